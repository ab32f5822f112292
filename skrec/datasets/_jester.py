"""Loader of the Jester ratings and jokes from files in the official layout."""

import html
import os
import re
from pathlib import Path
from typing import Literal, overload

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from sklearn.utils import Bunch

from ._base import get_data_home, validated_parameters
from ._compact import check_range, read_compact, to_dataset
from ._csv import UNREADABLE, read_csv
from ._errors import DataFileError, line_of
from ._lines import check_lines, line_pattern, parse_lines, read_numbers

_LOW, _HIGH = -10, 10
_NOT_RATED = 99
_N_JOKES = 100
_NO_USERS = np.empty((0, _N_JOKES))
_LINE = line_pattern(
    rb",".join([rb" *-?(?:\d{1,18}(?:\.\d{0,18})?|\.\d{1,18}) *"] * (_N_JOKES + 1))
)
_FILES = tuple(f"jester-data-{part}.csv" for part in (1, 2, 3))
_JOKE = re.compile(r"<!--\s*begin of joke\s*-->(.*?)<!--\s*end of joke\s*-->", re.S)
_TAG = re.compile(r"<[^<>]*>")


@overload
def load_jester(
    *, data_home: str | os.PathLike[str] | None = ..., return_X_y: Literal[True]
) -> tuple[pd.DataFrame, pd.Series]: ...


@overload
def load_jester(
    *, data_home: str | os.PathLike[str] | None = ..., return_X_y: bool = ...
) -> Bunch: ...


@validated_parameters(
    {"data_home": [str, os.PathLike, None], "return_X_y": ["boolean"]}
)
def load_jester(
    *, data_home: str | os.PathLike[str] | None = None, return_X_y: bool = False
) -> Bunch | tuple[pd.DataFrame, pd.Series]:
    """Load the ratings and jokes of Jester data set 1 from its files.

    The data set has 4.1 million ratings of 100 jokes by 73,421 users, real numbers from
    -10 to 10 with two decimals. It may be used for research and is available at its
    source [1]_. Publications are asked to cite [2]_. Put the files into the folder
    ``jester`` of `data_home`, with the ratings saved as CSV.

    Parameters
    ----------
    data_home : str or path-like, default=None
        Path of the folder that contains the folder ``jester``, see
        :func:`get_data_home`.

    return_X_y : bool, default=False
        If True, return ``(data, target)`` instead of a Bunch.

    Returns
    -------
    dataset : :class:`~sklearn.utils.Bunch`
        Dictionary-like object, with the following attributes.

        data : DataFrame of shape (n_ratings, 2)
            User and item ids: the columns ``user`` and ``item`` in int64, the `X` of
            an estimator. Users are the rows of the files, numbered from 0 and on from
            one file to the next. Items are the jokes, numbered from 0: the joke in
            ``init1.html`` is item 0.
        target : Series of shape (n_ratings,)
            Ratings in float64: the `y` of an estimator.
        is_test : ndarray of shape (n_ratings,), dtype bool, or None
            Whether a rating belongs to the test set. None if the ratings were read from
            the CSV files, which have no split.
        item_texts : Series of str
            Jokes indexed by item id. Empty if there are no files of jokes.

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
    Ratings are published as Excel files. Save them in a spreadsheet program as
    ``jester-data-1.csv``, ``jester-data-2.csv`` and ``jester-data-3.csv``, with commas
    and without a header; those that exist are read in this order. A row has the number
    of ratings of a user, then the ratings of the 100 jokes, 99 if not rated.

    Jokes are read from ``init1.html`` to ``init100.html``, in the folder or in its
    folder ``jokes``.

    If the folder has the file ``ratings.npz`` (arrays ``user``, ``item``, ``rating``
    and ``is_test``), the ratings are read from this file instead. If it has the file
    ``texts.csv.gz`` (columns ``item`` and ``text``), so are the jokes.

    References
    ----------
    .. [1] https://eigentaste.berkeley.edu/dataset/
    .. [2] Ken Goldberg, Theresa Roeder, Dhruv Gupta and Chris Perkins. 2001.
       "Eigentaste: A Constant Time Collaborative Filtering Algorithm". Information
       Retrieval 4(2), 133-151.

    Examples
    --------
    >>> from skrec.datasets import load_jester
    >>> jester = load_jester(data_home="my_data")  # doctest: +SKIP
    """
    folder = Path(get_data_home(data_home)) / "jester"
    paths = [folder / name for name in _FILES if (folder / name).is_file()]
    if (folder / "ratings.npz").is_file():
        ratings = read_compact(folder / "ratings.npz", low=_LOW, high=_HIGH)
        # Back to the two decimals of the files, which may have been rounded to float32.
        ratings["rating"] = ratings["rating"].round(2)
    elif paths:
        ratings = _parse_ratings(paths)
    else:
        raise OSError(
            f"{str(folder)!r} has neither {_FILES[0]}, {_FILES[1]}, {_FILES[2]} nor "
            "ratings.npz: save the Excel files of Jester there as CSV, or pass another "
            "data_home."
        )
    if return_X_y:
        dataset = to_dataset(ratings)
        return dataset.data, dataset.target
    return to_dataset(ratings, item_texts=_load_texts(folder))


def _parse_ratings(paths: list[Path]) -> pd.DataFrame:
    parts = []
    n_users = 0
    for path in paths:
        try:
            with path.open("rb") as file:
                values = np.concatenate([*parse_lines(file, _parse), _NO_USERS])
            if not len(values):
                raise ValueError("it has no ratings")
        except ValueError as error:
            raise DataFileError(
                f"{str(path)!r} is not in the official format of Jester ({error}).",
                path,
                line_of(error),
            ) from error
        user, item = np.nonzero(values != _NOT_RATED)
        columns = {"user": user + n_users, "item": item, "rating": values[user, item]}
        parts.append(pd.DataFrame(columns).astype({"user": "int64", "item": "int64"}))
        n_users += len(values)
    return pd.concat(parts, ignore_index=True)


def _parse(block: bytes) -> NDArray[np.float64]:
    """Return the ratings of the users, 99 where there is none."""
    check_lines(block, _LINE, f"number of ratings, then {_N_JOKES} ratings")
    table = read_numbers(block, [str(column) for column in range(_N_JOKES + 1)], ",")
    values: NDArray[np.float64] = table.to_numpy("float64")[:, 1:]
    check_range(values[values != _NOT_RATED], _LOW, _HIGH)
    return values


def _load_texts(folder: Path) -> pd.Series:
    path = folder / "texts.csv.gz"
    if not path.is_file():
        jokes = pd.Series(_parse_jokes(folder), dtype="str", name="text")
        return jokes.rename_axis("item")
    try:
        return read_csv(path, "item")["text"].dropna()
    except (KeyError, *UNREADABLE) as error:
        raise DataFileError(
            f"{str(path)!r} is damaged ({error}). Replace it by an intact file, or "
            "delete it to read the jokes from the HTML files instead.",
            path,
            line_of(error),
        ) from error


def _parse_jokes(folder: Path) -> dict[int, str]:
    """Read the texts between the two comments in each HTML file, without markup."""
    jokes = {}
    for item in range(_N_JOKES):
        name = f"init{item + 1}.html"
        paths = [folder / name, folder / "jokes" / name]
        path = next((path for path in paths if path.is_file()), None)
        if path is None:
            continue
        found = _JOKE.search(path.read_text("latin-1"))
        if found is None:
            raise DataFileError(
                f"{str(path)!r} is not in the official format of Jester (it has no "
                "comments that mark the begin and the end of the joke).",
                path,
            )
        jokes[item] = " ".join(html.unescape(_TAG.sub(" ", found[1])).split())
    return jokes
