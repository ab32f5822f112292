"""What the containers that cross-validation does not split have in common."""

from __future__ import annotations

import copy
from typing import Any, Self

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from .ids import check_ids


class Unsplit:
    """Base class of containers that cross-validation passes on unchanged.

    scikit-learn splits any object whose length equals the number of samples. What is
    known of items and users is needed whole in every split, so subclasses have neither
    a length nor a shape, and cannot be converted to an array.

    Attributes
    ----------
    ids : ndarray of shape (n,) or None
        Id of each entry. None if the entries are aligned with a rating matrix.
    """

    ids: NDArray[Any] | None

    def __sklearn_clone__(self) -> Self:
        return copy.deepcopy(self)


def check_unique_ids(keys: Any, name: str, what: str, entry: str) -> NDArray[Any]:
    """Validate the ids that entries belong to.

    Parameters
    ----------
    keys : array-like of shape (n,)
        Ids.

    name : str
        Name of the argument in the error messages.

    what : {"user", "item"}
        Side that the ids belong to.

    entry : str
        What an id has, in the singular, for the error messages.

    Returns
    -------
    ids : ndarray of shape (n,)
        Ids, as returned by `check_ids`.

    Raises
    ------
    TypeError, ValueError
        If the ids are invalid, or an id is repeated.
    """
    try:
        ids = check_ids(keys, what)
    except (TypeError, ValueError) as error:
        raise type(error)(
            f"{name} has keys that are not valid {what} ids. {error}"
        ) from error
    repeated: NDArray[np.bool_] = pd.Index(ids, tupleize_cols=False).duplicated()
    if repeated.any():
        raise ValueError(
            f"{name} has repeated ids, among them {ids[repeated].tolist()[0]!r}: keep "
            f"one {entry} per {what}."
        )
    return ids
