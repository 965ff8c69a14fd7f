"""Servers to compare with: other ways to serve the same weights, each run as a module."""
