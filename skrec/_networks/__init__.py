"""Recommenders that are neural networks over rows of ratings."""
