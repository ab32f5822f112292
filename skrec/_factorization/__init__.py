"""Recommenders that factorize the matrix of ratings."""
