"""Ratings, ids and texts as users hand them over: checked, and in one form."""
