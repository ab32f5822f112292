"""Loader of Amazon product reviews from the files of the 2014 release."""

import ast
import gzip
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal, overload

import numpy as np
import pandas as pd
from sklearn.utils import Bunch

from ._base import get_data_home, validated_parameters


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
    """Load ratings and item descriptions from the files of Amazon product reviews.

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
        item_texts : Series of str
            Descriptions indexed by item id, without the items that have none. Empty if
            there is no metadata file.

    (data, target) : tuple if ``return_X_y`` is True
        The attributes `data` and `target`.

    Raises
    ------
    OSError
        If a file is missing or not in the official format.

    Notes
    -----
    Ratings are read from ``reviews_<category>.json.gz`` or ``reviews_<category>_5.
    json.gz``, with one JSON object per line. Descriptions are read from
    ``meta_<category>.json.gz``, with one Python or JSON literal per line. The files may
    also be uncompressed.

    References
    ----------
    .. [1] Julian McAuley, Christopher Targett, Qinfeng Shi and Anton van den Hengel.
       2015. "Image-Based Recommendations on Styles and Substitutes". SIGIR '15.
       https://jmcauley.ucsd.edu/data/amazon/

    Examples
    --------
    >>> from skrec.datasets import load_amazon
    >>> videos = load_amazon(data_home="my_data")  # doctest: +SKIP
    """
    folder = Path(get_data_home(data_home)) / "amazon"
    path = _find(folder, f"reviews_{category}", f"reviews_{category}_5")
    if path is None:
        raise OSError(
            f"{str(folder)!r} has no reviews_{category}.json.gz: put the file there, "
            "or pass another category or data_home."
        )
    fields = ("reviewerID", "asin", "overall", "unixReviewTime")
    ratings = pd.DataFrame(
        _rows(path, fields), columns=["user", "item", "rating", "timestamp"]
    )
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
        item_texts=_descriptions(_find(folder, f"meta_{category}")),
    )


def _find(folder: Path, *names: str) -> Path | None:
    paths = [folder / f"{name}{end}" for name in names for end in (".json.gz", ".json")]
    return next((path for path in paths if path.is_file()), None)


def _rows(path: Path, fields: tuple[str, ...]) -> Iterator[list[Any]]:
    """Yield the given fields of each record."""
    for number, record in _records(path):
        try:
            yield [record[field] for field in fields]
        except KeyError as error:
            raise OSError(f"{str(path)!r}, line {number} has no {error}.") from error


def _records(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    opener = gzip.open if path.suffix == ".gz" else open
    with opener(path, "rt", encoding="utf-8") as file:
        for number, line in enumerate(file, 1):
            try:
                # Metadata are Python literals, whose strings have single quotes.
                record = json.loads(line) if line[1] == '"' else ast.literal_eval(line)
            except (ValueError, SyntaxError, IndexError) as error:
                raise OSError(
                    f"{str(path)!r}, line {number} is not an object in the official "
                    f"format ({error})."
                ) from error
            yield number, record


def _descriptions(path: Path | None) -> pd.Series:
    texts = {}
    for _, record in _records(path) if path else []:
        if record.get("description"):
            texts[record["asin"]] = record["description"]
    return pd.Series(texts, dtype="str", name="text").rename_axis("item")
