"""Data sets: MovieLens, Netflix, Amazon and others, and synthetic ones with texts."""

from ._amazon import load_amazon
from ._base import clear_data_home, get_data_home
from ._douban import load_douban
from ._errors import DataFileError
from ._filmtrust import load_filmtrust
from ._jester import load_jester
from ._movielens import fetch_movielens
from ._netflix import load_netflix
from ._reviews import join_reviews
from ._synthetic import make_ratings

__all__ = [
    "DataFileError",
    "clear_data_home",
    "fetch_movielens",
    "get_data_home",
    "join_reviews",
    "load_amazon",
    "load_douban",
    "load_filmtrust",
    "load_jester",
    "load_netflix",
    "make_ratings",
]
