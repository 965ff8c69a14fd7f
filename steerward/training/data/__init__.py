"""Rating and preference data: rows, schemas, labels, splits."""
