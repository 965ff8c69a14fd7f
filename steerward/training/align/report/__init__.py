"""Runs side by side: fronts, hypervolume, curves."""
