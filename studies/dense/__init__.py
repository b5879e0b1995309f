"""Segmentation from scratch: how Super tokens return to the patches, and peers at equal training time."""
