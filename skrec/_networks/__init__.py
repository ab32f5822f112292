"""Recommenders based on neural networks over rows of ratings."""
