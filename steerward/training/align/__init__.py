"""Optimisers for several objectives: pure functions on tensors, and TRL trainers around them."""
