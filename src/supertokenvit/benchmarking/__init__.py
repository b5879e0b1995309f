"""This room measures how fast models are, side by side."""
