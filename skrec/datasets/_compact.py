"""The compact file ``ratings.npz``, which several loaders read if it is present."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from sklearn.utils import Bunch

from ._errors import DataFileError

_COLUMNS = ("user", "item", "rating", "is_test")


def read_compact(path: Path, *, low: float, high: float) -> pd.DataFrame:
    """Read the columns user, item, rating and is_test, with ratings in [low, high]."""
    # Not np.load(path), which leaves a damaged file open.
    with path.open("rb") as file:
        try:
            arrays = np.load(file, allow_pickle=False)
            if not isinstance(arrays, np.lib.npyio.NpzFile):
                raise ValueError("it has a single array without a name")
            columns = {name: arrays[name] for name in _COLUMNS}
            return _to_frame(columns, low, high)
        # NumPy and zipfile raise a dozen types for damaged bytes.
        except Exception as error:
            raise DataFileError(
                f"{str(path)!r} is damaged ({error}). Replace it by an intact file, or "
                "delete it to read the files in the official format instead.",
                path,
            ) from error


def _to_frame(columns: dict[str, Any], low: float, high: float) -> pd.DataFrame:
    for name, allowed in zip(_COLUMNS, ("iu", "iu", "iuf", "b"), strict=True):
        if columns[name].dtype.kind not in allowed:
            raise ValueError(f"{name} has the dtype {columns[name].dtype}")
        if allowed == "iu" and columns[name].max(initial=0) > np.iinfo(np.int64).max:
            raise ValueError(f"{name} {columns[name].max()} is too large")
    # Wide types: the compact types would overflow in user * n_items.
    types = {"user": "int64", "item": "int64", "rating": "float64"}
    ratings = pd.DataFrame(columns).astype(types)
    if ratings.empty:
        raise ValueError("it has no ratings")
    check_range(ratings["rating"].to_numpy(), low, high, "in row {} ")
    return ratings


def check_range(
    ratings: NDArray[Any], low: float, high: float, place: str = ""
) -> None:
    """Raise ValueError if a rating is not in [low, high], for example missing.

    Parameters
    ----------
    place : str, default=""
        Words for the message, where "{}" stands for the position of the rating.
    """
    wrong = np.flatnonzero(~((ratings >= low) & (ratings <= high)))
    if len(wrong):
        raise ValueError(
            f"a rating {place.format(wrong[0])}is {ratings[wrong[0]]:g}, but they are "
            f"from {low} to {high}"
        )


def to_dataset(ratings: pd.DataFrame, **attributes: Any) -> Bunch:
    """Return a Bunch of data, target, is_test (None if there is no split), ..."""
    ratings = ratings.reset_index(drop=True)
    return Bunch(
        data=ratings[["user", "item"]],
        target=ratings["rating"],
        is_test=ratings["is_test"].to_numpy() if "is_test" in ratings else None,
        **attributes,
    )
