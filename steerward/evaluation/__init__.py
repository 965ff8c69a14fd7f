"""Published benchmarks of reward models: their rows, their scoring rules, reports."""
