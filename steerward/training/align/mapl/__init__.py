"""MAPL: reward models and policies that follow several instructions."""
