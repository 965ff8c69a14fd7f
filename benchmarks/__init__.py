"""Benchmarks: each checks correctness first, then prints a table and one line of JSON."""
