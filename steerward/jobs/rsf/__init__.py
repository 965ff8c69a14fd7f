"""Rejection-sampling fine-tuning: sample, score, select, fine-tune, swap, repeat."""
