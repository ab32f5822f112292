"""Loader of the Netflix Prize ratings from the official files."""

import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Literal, overload

import numpy as np
import pandas as pd
from sklearn.utils import Bunch

from ._base import get_data_home, validated_parameters
from ._compact import check_range

_CHUNK = 1_000_000  # lines parsed at a time, to bound the memory of the parser
_TYPES = {"user": "int32", "item": "int32", "rating": "int8", "date": "datetime64[s]"}
_MAX_ID = np.iinfo(np.int32).max


@overload
def load_netflix(
    *, data_home: str | os.PathLike[str] | None = ..., return_X_y: Literal[True]
) -> tuple[pd.DataFrame, pd.Series]: ...


@overload
def load_netflix(
    *, data_home: str | os.PathLike[str] | None = ..., return_X_y: bool = ...
) -> Bunch: ...


@validated_parameters(
    {"data_home": [str, os.PathLike, None], "return_X_y": ["boolean"]}
)
def load_netflix(
    *, data_home: str | os.PathLike[str] | None = None, return_X_y: bool = False
) -> Bunch | tuple[pd.DataFrame, pd.Series]:
    """Load the training set of the Netflix Prize from its official files.

    The data set has 100,480,507 ratings of 17,770 movies by 480,189 users, in whole
    stars from 1 to 5. It is no longer offered for download. If you have the files, put
    them into the folder ``netflix`` of `data_home`.

    Parameters
    ----------
    data_home : str or path-like, default=None
        Path of the folder that contains the folder ``netflix``, see
        :func:`get_data_home`.

    return_X_y : bool, default=False
        If True, return ``(data, target)`` instead of a Bunch.

    Returns
    -------
    dataset : :class:`~sklearn.utils.Bunch`
        Dictionary-like object, with the following attributes.

        data : DataFrame of shape (n_ratings, 2)
            User and item ids: the columns ``user`` and ``item`` in int32, the `X` of
            an estimator.
        target : Series of shape (n_ratings,)
            Ratings in float64: the `y` of an estimator.
        dates : ndarray of shape (n_ratings,), dtype datetime64[D]
            Day of each rating.
        movies : DataFrame of shape (n_movies, 2)
            Movies indexed by item id, with the columns ``title`` and ``year`` (Int64,
            missing if unknown). Empty if there is no ``movie_titles.txt``.

    (data, target) : tuple if ``return_X_y`` is True
        The attributes `data` and `target`.

    Raises
    ------
    OSError
        If the files are missing, or one is not in the official format.

    Notes
    -----
    Ratings are read from ``training_set/mv_*.txt``, the files as published, or from
    ``combined_data_*.txt`` if there is no such folder. Titles are read from
    ``movie_titles.txt`` or ``movie_titles.csv``. A line ``1:`` starts the ratings of
    movie 1, which follow as lines ``user,stars,date``.

    Examples
    --------
    >>> from skrec.datasets import load_netflix
    >>> netflix = load_netflix(data_home="my_data")  # doctest: +SKIP
    """
    folder = Path(get_data_home(data_home)) / "netflix"
    paths = sorted(folder.glob("training_set/mv_*.txt"))
    paths = paths or sorted(folder.glob("combined_data_*.txt"))
    if not paths:
        raise OSError(
            f"{str(folder)!r} has neither training_set/mv_*.txt nor "
            "combined_data_*.txt: put the files of the Netflix Prize there, or pass "
            "another data_home."
        )
    ratings = pd.concat(_parse_ratings(paths), ignore_index=True)
    data, target = ratings[["user", "item"]], ratings["rating"].astype(np.float64)
    if return_X_y:
        return data, target
    return Bunch(
        data=data,
        target=target,
        dates=ratings["date"].to_numpy().astype("datetime64[D]"),
        movies=_parse_titles(folder),
    )


def _parse_ratings(paths: Iterable[Path]) -> Iterator[pd.DataFrame]:
    """Yield data frames with the columns user, item, rating and date."""
    for path in paths:
        item = np.nan  # the last movie of the previous chunk
        reader = pd.read_csv(
            path,
            names=["user", "rating", "date"],
            dtype={"user": "str", "rating": "float32", "date": "str"},
            chunksize=_CHUNK,
        )
        try:
            with reader as chunks:
                for chunk in chunks:
                    if chunk.empty:
                        raise ValueError("it has no ratings")
                    begins = chunk["user"].str.endswith(":")
                    items = chunk["user"].where(begins).str.rstrip(":").astype(float)
                    items = items.fillna({items.index[0]: item}).ffill()
                    item = items.iloc[-1]
                    part = chunk[~begins].assign(item=items[~begins])
                    _check(part)
                    yield part.astype(_TYPES)
        except (ValueError, OverflowError) as error:
            raise OSError(
                f"{str(path)!r} is not in the official format of the Netflix Prize "
                f"({error})."
            ) from error


def _check(ratings: pd.DataFrame) -> None:
    """Raise ValueError for values that smaller types would silently change."""
    items = ratings["item"]
    if ((items % 1 != 0) | (items < 0) | (items > _MAX_ID)).any():
        raise ValueError(f"the id of a movie is not an integer from 0 to {_MAX_ID}")
    stars = ratings["rating"].to_numpy()
    check_range(stars, 1, 5)
    if np.any(stars % 1 != 0):
        raise ValueError("a rating is not a whole star")


def _parse_titles(folder: Path) -> pd.DataFrame:
    """Read movies from lines ``id,year,title``; a title may contain commas."""
    paths = [folder / f"movie_titles.{suffix}" for suffix in ("txt", "csv")]
    path = next((path for path in paths if path.is_file()), None)
    lines = path.read_text("latin-1").split("\n") if path else []
    rows = [line.split(",", 2) for line in lines if line]
    try:
        movies = pd.DataFrame(rows, columns=["item", "year", "title"])
        movies["item"] = movies["item"].astype(np.int64)
    except (ValueError, TypeError, OverflowError) as error:
        raise OSError(
            f"{str(path)!r} is not in the official format of the Netflix Prize "
            f"({error})."
        ) from error
    movies["year"] = pd.to_numeric(movies["year"], errors="coerce").astype("Int64")
    return movies.set_index("item")[["title", "year"]]
