"""Recipes: the settings and the exact commands behind what ships and what is claimed."""
