"""Answers for places of an image instead of the whole of it."""
