"""How objectives are combined: gates, reward transform, score, directions."""
