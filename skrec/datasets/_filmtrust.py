"""Loader of the FilmTrust ratings from the official file."""

import os
from pathlib import Path
from typing import Literal, overload

import pandas as pd
from sklearn.utils import Bunch

from ._base import get_data_home, validated_parameters
from ._compact import check_range, read_compact, to_dataset
from ._errors import DataFileError, line_of
from ._lines import (
    DECIMAL,
    INTEGER,
    check_lines,
    line_pattern,
    parse_lines,
    read_numbers,
)

_LOW, _HIGH = 0.5, 4.0
_COLUMNS = ["user", "item", "rating"]
_LINE = line_pattern(rb"[ \t]*" + rb"[ \t]+".join([INTEGER, INTEGER, DECIMAL]))


@overload
def load_filmtrust(
    *, data_home: str | os.PathLike[str] | None = ..., return_X_y: Literal[True]
) -> tuple[pd.DataFrame, pd.Series]: ...


@overload
def load_filmtrust(
    *, data_home: str | os.PathLike[str] | None = ..., return_X_y: bool = ...
) -> Bunch: ...


@validated_parameters(
    {"data_home": [str, os.PathLike, None], "return_X_y": ["boolean"]}
)
def load_filmtrust(
    *, data_home: str | os.PathLike[str] | None = None, return_X_y: bool = False
) -> Bunch | tuple[pd.DataFrame, pd.Series]:
    """Load the FilmTrust ratings from the official file.

    The data set has 35,494 ratings of 2,071 movies by 1,508 users, in half stars from
    0.5 to 4. It is available at its source [1]_. Publications are asked to cite [2]_.
    Put ``ratings.txt`` into the folder ``filmtrust`` of `data_home`.

    Parameters
    ----------
    data_home : str or path-like, default=None
        Path of the folder that contains the folder ``filmtrust``, see
        :func:`get_data_home`.

    return_X_y : bool, default=False
        If True, return ``(data, target)`` instead of a Bunch.

    Returns
    -------
    dataset : :class:`~sklearn.utils.Bunch`
        Dictionary-like object, with the following attributes.

        data : DataFrame of shape (n_ratings, 2)
            User and item ids: the columns ``user`` and ``item`` in int64, the `X` of
            an estimator. If a user rated an item several times, the last rating in the
            file is kept.
        target : Series of shape (n_ratings,)
            Ratings in float64: the `y` of an estimator. Half stars are exact.
        is_test : ndarray of shape (n_ratings,), dtype bool, or None
            Whether a rating belongs to the test set. None if the ratings were read from
            ``ratings.txt``, which has no split.

    (data, target) : tuple if ``return_X_y`` is True
        The attributes `data` and `target`.

    Raises
    ------
    OSError
        If the file is missing.
    DataFileError
        If the file is damaged or not in the official format.

    Notes
    -----
    Each line of ``ratings.txt`` has a user, an item and a rating, separated by spaces.
    If the folder has the file ``ratings.npz`` (arrays ``user``, ``item``, ``rating``
    and ``is_test``), the ratings are read from this file instead.

    References
    ----------
    .. [1] https://guoguibing.github.io/librec/datasets.html
    .. [2] Guibing Guo, Jie Zhang and Neil Yorke-Smith. 2013. "A Novel Bayesian
       Similarity Measure for Recommender Systems". IJCAI '13, 2619-2625.

    Examples
    --------
    >>> from skrec.datasets import load_filmtrust
    >>> filmtrust = load_filmtrust(data_home="my_data")  # doctest: +SKIP
    """
    folder = Path(get_data_home(data_home)) / "filmtrust"
    if (folder / "ratings.npz").is_file():
        ratings = read_compact(folder / "ratings.npz", low=_LOW, high=_HIGH)
    elif (folder / "ratings.txt").is_file():
        ratings = _parse_ratings(folder / "ratings.txt")
    else:
        raise OSError(
            f"{str(folder)!r} has neither ratings.txt nor ratings.npz: put ratings.txt "
            "of FilmTrust there, or pass another data_home."
        )
    dataset = to_dataset(ratings)
    return (dataset.data, dataset.target) if return_X_y else dataset


def _parse_ratings(path: Path) -> pd.DataFrame:
    try:
        with path.open("rb") as file:
            parts = [part for part in parse_lines(file, _parse) if len(part)]
        if not parts:
            raise ValueError("it has no ratings")
    except ValueError as error:
        raise DataFileError(
            f"{str(path)!r} is not in the official format of FilmTrust ({error}).",
            path,
            line_of(error),
        ) from error
    return pd.concat(parts).drop_duplicates(["user", "item"], keep="last")


def _parse(block: bytes) -> pd.DataFrame:
    check_lines(block, _LINE, "user item rating")
    ratings = read_numbers(block, _COLUMNS, r"\s+").astype({"rating": "float64"})
    check_range(ratings["rating"].to_numpy(), _LOW, _HIGH)
    if (ratings["rating"] * 2 % 1 != 0).any():
        raise ValueError("a rating is not a multiple of half a star")
    return ratings
