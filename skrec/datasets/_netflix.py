"""Loader of the Netflix Prize ratings from the official files."""

import io
import os
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Literal, overload

import numpy as np
import pandas as pd
from sklearn.utils import Bunch

from ._base import get_data_home, validated_parameters
from ._compact import check_range
from ._errors import DataFileError, LineError, line_of
from ._lines import DECIMAL, INTEGER, check_lines, line_pattern, parse_lines

_TYPES = {"user": "int32", "item": "int32", "rating": "int8", "date": "datetime64[s]"}
_MAX_ID = np.iinfo(np.int32).max
_LINE = line_pattern(INTEGER + rb"(?::|," + DECIMAL + rb",\d{4}-\d\d-\d\d)")
_YEARS = re.compile(r"(?:\d{4}|NULL)?")


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
        If the files are missing.
    DataFileError
        If a file is damaged or not in the official format.

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
        try:
            n_ratings = 0
            for ratings in _ratings_of_file(path):
                n_ratings += len(ratings)
                yield ratings
            if not n_ratings:
                raise ValueError("it has no ratings")
        except ValueError as error:
            raise _error(path, error) from error


def _ratings_of_file(path: Path) -> Iterator[pd.DataFrame]:
    item = np.nan  # the last movie of the previous block

    def parse(block: bytes) -> pd.DataFrame:
        return _parse(block, item)

    with path.open("rb") as file:
        for lines in parse_lines(file, parse):
            item = lines["item"].iloc[-1] if len(lines) else item
            yield lines.dropna(subset="date").astype(_TYPES)


def _parse(block: bytes, item: float) -> pd.DataFrame:
    """Return the lines of movies, without a date, and the lines of ratings."""
    check_lines(block, _LINE, "movie:' or 'user,stars,date")
    names = ["user", "rating", "date"]
    if not block.strip():
        return pd.DataFrame(columns=[*names, "item"])
    types = {"user": "str", "rating": "float32", "date": "str"}
    lines = pd.read_csv(io.BytesIO(block), names=names, dtype=types)
    begins = lines["user"].str.endswith(":")
    items = lines["user"].where(begins).str.rstrip(":").astype(float)
    lines["item"] = items.fillna({0: item}).ffill()
    lines["user"] = lines["user"].str.rstrip(":").astype("int64")
    ratings = lines[~begins]
    for name in ("user", "item"):
        if not (lines[name].fillna(_MAX_ID + 1) <= _MAX_ID).all():
            raise ValueError(f"the {name} id is missing or larger than {_MAX_ID}")
    ratings["date"].astype("datetime64[s]")  # raises for a day that does not exist
    stars = ratings["rating"].to_numpy()
    check_range(stars, 1, 5)
    if np.any(stars % 1 != 0):
        raise ValueError("a rating is not a whole star")
    return lines


def _error(path: Path, error: Exception) -> DataFileError:
    return DataFileError(
        f"{str(path)!r} is not in the official format of the Netflix Prize ({error}).",
        path,
        line_of(error),
    )


def _parse_titles(folder: Path) -> pd.DataFrame:
    """Read movies from lines ``id,year,title``; a title may contain commas."""
    paths = [folder / f"movie_titles.{suffix}" for suffix in ("txt", "csv")]
    path = next((path for path in paths if path.is_file()), paths[0])
    movies: dict[int, tuple[str, str]] = {}
    lines = path.read_text("latin-1").split("\n") if path.is_file() else []
    for number, line in enumerate(lines, 1):
        if not line:
            continue
        item, year, title = [*line.split(",", 2), "", ""][:3]
        known = item.isascii() and item.isdigit() and len(item) <= len(str(_MAX_ID))
        known = known and int(item) <= _MAX_ID
        if not known or line.count(",") < 2 or not _YEARS.fullmatch(year):
            found = LineError(f"line {number}: {line[:60]!r} is no movie", number)
            raise _error(path, found)
        if int(item) in movies:
            found = LineError(f"line {number}: movie {item} again", number)
            raise _error(path, found)
        movies[int(item)] = title, year
    index = pd.Index(list(movies), dtype="int64", name="item")
    frame = pd.DataFrame(list(movies.values()), index, ["title", "year"])
    frame["year"] = pd.to_numeric(frame["year"], errors="coerce").astype("Int64")
    return frame
