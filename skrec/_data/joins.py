"""Joins of what is known of users and items with the ratings."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .._sklearn_compat import N_WRAPPERS
from .ids import positions_of


def look_up(
    ids: NDArray[Any], known: NDArray[Any], name: str, what: str
) -> NDArray[np.int64]:
    """Return the position of each id among the known ids; -1 for a new one.

    Raises
    ------
    TypeError
        If the types of the ids can never match. `name` is the argument that has them.
    """
    try:
        return positions_of(ids, known, what)
    except TypeError:
        found, wanted = (type(array.tolist()[0]).__name__ for array in (ids, known))
        raise TypeError(
            f"The ids in {name} are of type {found}, but the {what} ids of the "
            f"ratings are of type {wanted}, so they can never match: convert one of "
            "them."
        ) from None


def warn_of_failed_join(
    known: NDArray[Any],
    matched: NDArray[np.int64],
    new: NDArray[Any],
    name: str,
    what: str,
    hint: str = "",
) -> None:
    """Warn if few users or items match, and most ids have no ratings.

    Either alone is common: few items have texts, or most of the items are new. To be
    called from a function that `Fit` calls.

    Parameters
    ----------
    known : ndarray of shape (n_known,)
        Ids of the ratings.

    matched : ndarray of int64
        Positions in `known` that have an entry.

    new : ndarray
        Ids that have an entry and no ratings.

    name : str
        Name of the argument.

    what : {"user", "item"}
        Side.

    hint : str
        Further advice.
    """
    if len(matched) >= len(known) / 2 or len(new) <= len(matched):
        return
    without = np.delete(known, matched)[:1].tolist()[0]
    entry, entries = "features", "rows"
    if name == "item_texts":
        entry, entries = "text", "texts"
    recommended = ", which are recommended as well" if what == "item" else ""
    warnings.warn(
        f"{name} has the ids of only {len(matched)} of {len(known)} rated {what}s, and "
        f"{len(new)} {entries} of {what}s without ratings: for example, {without!r} is "
        f"rated and has no {entry}, and {new[:1].tolist()[0]!r} is in {name} and has "
        f"no rating. If they are the same {what}s, make their ids equal: compare "
        "leading zeros, case, blanks, and where the ids come from. Otherwise the "
        f"latter are new {what}s{recommended}.{hint}",
        UserWarning,
        # This function, its caller, `Fit`, `fit`, and its wrappers.
        stacklevel=4 + N_WRAPPERS + 1,
    )
