"""Ratings that are dealt out to several processes, each with its own users."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any

import joblib
import numpy as np
import pandas as pd
from numpy.typing import NDArray

from .ratings import Ratings

# User ids of all ranks that are compared at a time
_COMPARED = 2**23


def unite_ranks(
    ratings: Ratings, on_matrix: bool, parameters: dict[str, str], group: Any
) -> Ratings:
    """Make the items of all ranks known to each, and refuse users on several ranks.

    Parameters
    ----------
    ratings : Ratings
        Ratings of this rank.

    on_matrix : bool
        Whether the ratings are given as a matrix, whose rows are own users.

    parameters : dict of str to str
        What must be the same on all ranks, besides the form of the ratings.

    group : Group
        Group of the ranks; see `collectives`.

    Returns
    -------
    ratings : Ratings
        The same ratings, with all items. Users of a matrix are numbered rank by rank.

    Raises
    ------
    ValueError
        On all ranks with the same message, if a user has ratings on two ranks, or if
        the ranks have other parameters or another form of ratings.
    """
    if group.size == 1:
        return ratings
    facts = parameters | {
        "form of X": "a matrix" if on_matrix else "user-item pairs",
        "type of the user ids": _type_of(ratings.users),
        "type of the item ids": _type_of(ratings.items),
    }
    if on_matrix:
        facts["number of columns of X"] = str(len(ratings.items))
    _refuse_different(group.meet(facts))
    if on_matrix:
        before = sum(group.gather(len(ratings.users))[: group.rank])
        return replace(ratings, users=ratings.users + before)
    _refuse_shared(ratings.users, group)
    items = np.unique(np.concatenate(group.gather(np.array(ratings.items))))
    return ratings.with_items(items)


def refuse_different_texts(
    ids: NDArray[Any], texts: Sequence[str | None] | None, group: Any
) -> None:
    """Raise an error on all ranks if they have other texts of the items."""
    if group.size == 1:
        return
    found = "none"
    if texts is not None:
        n_texts = sum(text is not None for text in texts)
        found = f"{n_texts} texts with the hash {joblib.hash((ids.tolist(), texts))}"
    _refuse_different(group.meet({"item_texts": found}))


def _refuse_different(facts: list[dict[str, str]]) -> None:
    """Raise an error if the ranks differ in something."""
    first = facts[0]
    for rank, own in enumerate(facts):
        for name in first | own:
            if own.get(name) != first.get(name):
                raise ValueError(
                    f"All ranks must have the same {name}, but rank 0 has "
                    f"{first.get(name)} and rank {rank} has {own.get(name)}."
                )


def _refuse_shared(users: NDArray[Any], group: Any) -> None:
    """Raise an error if a user is on two ranks.

    Hashes are compared, some at a time, so that no rank holds the users of all.
    """
    hashes = pd.util.hash_array(np.array(users), categorize=False)
    n_parts = 1 + group.total(len(users)) // _COMPARED
    for part in range(n_parts):
        own = hashes[hashes % n_parts == part] if n_parts > 1 else hashes
        found, counts = np.unique(np.concatenate(group.gather(own)), return_counts=True)
        repeated = found[counts > 1]
        if len(repeated):
            _refuse_equal(group.gather(users[np.isin(hashes, repeated)].tolist()))


def _refuse_equal(users: list[Iterable[Any]]) -> None:
    """Raise an error if two ranks have an equal user, not only an equal hash."""
    places: dict[Any, int] = {}
    for rank, ids in enumerate(users):
        for user in ids:
            if places.setdefault(user, rank) != rank:
                raise ValueError(
                    f"User {user!r} has ratings on rank {places[user]} and on rank "
                    f"{rank}: give all ratings of a user to one rank, for example to "
                    "the number of the user modulo the number of ranks."
                )


def _type_of(ids: NDArray[Any]) -> str:
    return type(ids[0]).__name__ if ids.dtype == object else ids.dtype.name
