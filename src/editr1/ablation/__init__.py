"""Comparisons of training settings: runs of a grid, measured alike."""
