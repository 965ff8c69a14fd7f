"""MODPO: preferences of one objective, rewards of the others as margins."""
