"""Validation of ratings, ids and texts, and their conversion to one internal form."""
