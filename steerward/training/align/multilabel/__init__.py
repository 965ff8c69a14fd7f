"""Multi-label reward regression."""
