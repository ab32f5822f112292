"""Data sets: MovieLens, and synthetic ratings with texts."""

from skrec.datasets._amazon import load_amazon
from skrec.datasets._base import clear_data_home, get_data_home
from skrec.datasets._movielens import fetch_movielens
from skrec.datasets._netflix import load_netflix
from skrec.datasets._synthetic import make_ratings

__all__ = [
    "clear_data_home",
    "fetch_movielens",
    "get_data_home",
    "load_amazon",
    "load_netflix",
    "make_ratings",
]
