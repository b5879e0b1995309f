"""Training: the recipe, what it leaves open, the loop, checkpoints and reports."""
