"""Loader of Amazon product reviews from the files of the 2014 release."""

import ast
import gzip
import json
import os
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Literal, overload

import numpy as np
import pandas as pd
from sklearn.utils import Bunch

from ._base import get_data_home, validated_parameters
from ._errors import DataFileError

# What the field of a review must be, to be stored without loss, and a test of that.
_FIELDS: dict[str, tuple[str, Callable[[Any], bool]]] = {
    "reviewerID": ("a string", lambda value: isinstance(value, str)),
    "asin": ("a string", lambda value: isinstance(value, str)),
    "overall": (
        "a number from 1 to 5",
        lambda value: isinstance(value, (int, float)) and 1 <= value <= 5,
    ),
    "unixReviewTime": (
        "an integer of 64 bits",
        lambda value: isinstance(value, int) and -(2**63) <= value < 2**63,
    ),
    "reviewText": ("a string", lambda value: isinstance(value, str)),
}
_OPTIONAL = {"reviewText": ""}
_COLUMNS = ["user", "item", "rating", "timestamp", "review"]


@overload
def load_amazon(
    category: str = ...,
    *,
    data_home: str | os.PathLike[str] | None = ...,
    return_X_y: Literal[True],
) -> tuple[pd.DataFrame, pd.Series]: ...


@overload
def load_amazon(
    category: str = ...,
    *,
    data_home: str | os.PathLike[str] | None = ...,
    return_X_y: bool = ...,
) -> Bunch: ...


@validated_parameters(
    {
        "category": [str],
        "data_home": [str, os.PathLike, None],
        "return_X_y": ["boolean"],
    }
)
def load_amazon(
    category: str = "Amazon_Instant_Video",
    *,
    data_home: str | os.PathLike[str] | None = None,
    return_X_y: bool = False,
) -> Bunch | tuple[pd.DataFrame, pd.Series]:
    """Load ratings, reviews and item descriptions from the files of Amazon reviews.

    The data are available on request at their source [1]_. Put the files of a category
    into the folder ``amazon`` of `data_home`.

    Parameters
    ----------
    category : str, default="Amazon_Instant_Video"
        Name of the category, as in the file names.

    data_home : str or path-like, default=None
        Path of the folder that contains the folder ``amazon``, see
        :func:`get_data_home`.

    return_X_y : bool, default=False
        If True, return ``(data, target)`` instead of a Bunch.

    Returns
    -------
    dataset : :class:`~sklearn.utils.Bunch`
        Dictionary-like object, with the following attributes.

        data : DataFrame of shape (n_ratings, 2)
            User and item ids: the strings in the columns ``user`` and ``item``, the
            `X` of an estimator. If a user rated an item several times, the latest
            rating is kept.
        target : Series of shape (n_ratings,)
            Ratings in float64, from 1 to 5: the `y` of an estimator.
        timestamps : ndarray of shape (n_ratings,), dtype int64
            Seconds since 1970-01-01 UTC.
        reviews : Series of str of shape (n_ratings,)
            Text of the review that each rating comes with, without its summary; empty
            if there is none. Use :func:`join_reviews` to make documents of the items
            from the reviews of the training ratings.
        item_texts : Series of str
            Descriptions indexed by item id, without the items that have none. Empty if
            there is no metadata file.

    (data, target) : tuple if ``return_X_y`` is True
        The attributes `data` and `target`.

    Raises
    ------
    OSError
        If a file is missing.
    DataFileError
        If a file is damaged or not in the official format.

    See Also
    --------
    join_reviews : Join reviews into documents of the items, without those held out.

    Notes
    -----
    Ratings are read from ``reviews_<category>.json.gz`` or ``reviews_<category>_5.
    json.gz``, with one JSON object per line. Descriptions are read from
    ``meta_<category>.json.gz``, with one Python or JSON literal per line. The files may
    also be uncompressed.

    A review is written together with the rating and often reveals it. In papers on
    recommenders with texts, the document of an item consists of all its reviews,
    including those of the test ratings, which are unknown in practice. The descriptions
    are written by the sellers and do not reveal ratings.

    References
    ----------
    .. [1] Julian McAuley, Christopher Targett, Qinfeng Shi and Anton van den Hengel.
       2015. "Image-Based Recommendations on Styles and Substitutes". SIGIR '15.
       https://jmcauley.ucsd.edu/data/amazon/

    Examples
    --------
    >>> from sklearn.model_selection import train_test_split
    >>> from skrec.datasets import join_reviews, load_amazon
    >>> videos = load_amazon(data_home="my_data")  # doctest: +SKIP
    >>> X_train, X_test, y_train, y_test, reviews_train, _ = train_test_split(
    ...     videos.data, videos.target, videos.reviews, random_state=0
    ... )  # doctest: +SKIP
    >>> item_texts = join_reviews(X_train, reviews_train)  # doctest: +SKIP
    """
    folder = Path(get_data_home(data_home)) / "amazon"
    path = _find(folder, f"reviews_{category}", f"reviews_{category}_5")
    if path is None:
        raise OSError(
            f"{str(folder)!r} has no reviews_{category}.json.gz: put the file there, "
            "or pass another category or data_home."
        )
    ratings = pd.DataFrame(_rows(path), columns=_COLUMNS)
    if ratings.empty:
        raise DataFileError(f"{str(path)!r} has no reviews.", path)
    ratings = ratings.sort_values("timestamp", kind="stable")
    ratings = ratings.drop_duplicates(["user", "item"], keep="last").sort_index()
    ratings = ratings.reset_index(drop=True)
    data, target = ratings[["user", "item"]], ratings["rating"].astype(np.float64)
    if return_X_y:
        return data, target
    return Bunch(
        data=data,
        target=target,
        timestamps=ratings["timestamp"].to_numpy(np.int64),
        reviews=ratings["review"].astype("str"),
        item_texts=_descriptions(_find(folder, f"meta_{category}")),
    )


def _find(folder: Path, *names: str) -> Path | None:
    paths = [folder / f"{name}{end}" for name in names for end in (".json.gz", ".json")]
    return next((path for path in paths if path.is_file()), None)


def _rows(path: Path) -> Iterator[list[Any]]:
    """Yield the user, item, rating, timestamp and text of each review."""
    for number, record in _records(path):
        try:
            row = [(_OPTIONAL | record)[field] for field in _FIELDS]
        except KeyError as error:
            raise _error(path, number, f"has no {error}") from error
        for field, value, (description, is_valid) in zip(
            _FIELDS, row, _FIELDS.values(), strict=True
        ):
            if not is_valid(value):
                found = f"has {value!r} as {field!r}, which is not {description}"
                raise _error(path, number, found)
        yield row


def _records(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yield the number and the object of each line that is not blank."""
    for number, line in _lines(path):
        try:
            # Metadata are Python literals, whose strings have single quotes.
            record = json.loads(line) if line[1:2] == '"' else ast.literal_eval(line)
            if not isinstance(record, dict):
                raise ValueError(f"it is a {type(record).__name__}")
        except (ValueError, SyntaxError, TypeError, RecursionError) as error:
            found = f"is not an object in the official format ({error})"
            raise _error(path, number, found) from error
        yield number, record


def _lines(path: Path) -> Iterator[tuple[int, str]]:
    opener = gzip.open if path.suffix == ".gz" else open
    number = 0
    try:
        with opener(path, "rb") as file:
            # Decoded line by line: the decoder of a text file reads ahead.
            for number, line in enumerate(file, 1):
                text = line.decode("utf-8-sig" if number == 1 else "utf-8")
                if text and not text.isspace():
                    yield number, text
    except UnicodeDecodeError as error:
        raise _error(path, number, f"is not UTF-8 ({error})") from error
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise DataFileError(
            f"{str(path)!r} is damaged ({error}) after line {number}. Replace it by an "
            "intact file.",
            path,
        ) from error


def _error(path: Path, line: int, found: str) -> DataFileError:
    return DataFileError(f"{str(path)!r}, line {line} {found}.", path, line)


def _descriptions(path: Path | None) -> pd.Series:
    texts: dict[str, str] = {}
    if path is None:
        return pd.Series(texts, dtype="str", name="text").rename_axis("item")
    for number, record in _records(path):
        text = record.get("description")
        if not text:
            continue
        if not isinstance(text, str) or not isinstance(record.get("asin"), str):
            found = "has a description that is not a string, or no 'asin'"
            raise _error(path, number, found)
        texts[record["asin"]] = text
    return pd.Series(texts, dtype="str", name="text").rename_axis("item")
