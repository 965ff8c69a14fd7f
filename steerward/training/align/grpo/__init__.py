"""Several rewards as one advantage: GRPO, PAMA and their relatives."""
