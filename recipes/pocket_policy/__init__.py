"""The recipe of pocket-policy, the small steerable policy that ships with the package."""
