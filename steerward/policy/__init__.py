"""Policies: they generate completions, steered by a preference direction."""
