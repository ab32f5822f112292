"""Recommendations and similar users and items."""

from __future__ import annotations

from collections.abc import Mapping, Set
from typing import Any, Literal, NamedTuple

import numpy as np
import pandas as pd
import scipy.sparse as sp
import torch

from ._core.chunks import row_chunks
from ._data.ids import check_ids, positions_of
from ._data.ratings import check_ratings, is_matrix
from ._prediction import Predictor, Users, entries_of_rows

# On a CPU, chunks of users have about 2**18 scores, which stay in its cache.
_CACHE_FACTOR = 64


class Lists(NamedTuple):
    """Lists of items, one for each of some users.

    Attributes
    ----------
    indptr : ndarray of shape (n_users + 1,)
        Beginning of each list in `items`.

    items : ndarray
        Positions of the items.
    """

    indptr: np.ndarray
    items: np.ndarray

    @classmethod
    def join(cls, lists: list[np.ndarray]) -> Lists:
        """Join one array of positions for each user."""
        counts = [0, *map(len, lists)]
        return cls(np.cumsum(counts), np.concatenate(lists))

    def places(self, part: slice, n_items: int) -> np.ndarray:
        """Places of a range of users' lists in a flattened matrix of these users."""
        indptr = self.indptr[part.start : part.stop + 1]
        items = self.items[indptr[0] : indptr[-1]].astype(np.int64)
        if len(indptr) > 2:
            items += np.repeat(
                np.arange(len(indptr) - 1) * n_items, indptr[1:] - indptr[:-1]
            )
        return items


class Choice(NamedTuple):
    """Items that may be recommended.

    Attributes
    ----------
    hidden : list of Lists
        Items that are not recommended to each user.

    candidates : Lists or None
        The only items that may be recommended to each user; None for all.

    closed : ndarray or None
        Positions of items that are recommended to nobody.
    """

    hidden: list[Lists]
    candidates: Lists | None
    closed: np.ndarray | None

    def apply(self, scores: torch.Tensor, part: slice) -> None:
        """Set the scores of all other items to -inf, for a range of users."""
        n_items, device = scores.shape[1], scores.device
        flat = scores.view(-1)
        for lists in self.hidden:
            places = lists.places(part, n_items)
            flat.index_fill_(0, torch.from_numpy(places).to(device), -torch.inf)
        if self.candidates is not None:
            is_hidden = torch.ones(len(flat), dtype=torch.bool, device=device)
            places = self.candidates.places(part, n_items)
            is_hidden[torch.from_numpy(places).to(device)] = False
            flat.masked_fill_(is_hidden, -torch.inf)
        if self.closed is not None:
            closed = torch.from_numpy(self.closed).to(device)
            scores.index_fill_(1, closed, -torch.inf)


def recommend(
    predictor: Predictor,
    X: Any,
    n_items: int,
    *,
    exclude_seen: bool,
    items: Any,
    exclude_items: Any,
) -> pd.DataFrame:
    """Recommend items; see `BaseRecommender.recommend`."""
    if is_matrix(X):
        rows = predictor.check_rows(X)
        ids, users = np.arange(rows.shape[0]), predictor.users_of_rows(rows)
        seen = Lists(rows.indptr, rows.indices)
    else:
        ids = check_ids(X, "user")
        positions = predictor.user_positions(ids)
        if len(ids) == 1 and positions[0] >= 0:
            users = predictor.known_user(positions[0])
        else:
            users = predictor.known_users(positions)
        seen = _seen_by(predictor, positions)
    choice = _choose(
        predictor, ids, seen if exclude_seen else None, items, exclude_items
    )
    return rank(predictor, ids, users, n_items, choice)


def recommend_for(
    predictor: Predictor, ratings: Any, n_items: int, **options: Any
) -> pd.DataFrame:
    """Recommend items to new users; see `BaseRecommender.recommend_for`."""
    ids, rows = rows_of_ratings(predictor, ratings)
    exclude_seen = options.pop("exclude_seen")
    seen = Lists(rows.indptr, rows.indices) if exclude_seen else None
    choice = _choose(predictor, ids, seen, **options)
    return rank(predictor, ids, predictor.users_of_rows(rows), n_items, choice)


def rows_of_ratings(
    predictor: Predictor, ratings: Any, name: str = "ratings"
) -> tuple[np.ndarray, sp.csr_array]:
    """Turn a table of user ids, item ids and ratings into rows of ratings.

    Returns
    -------
    ids : ndarray of shape (n_users,)
        Ids of the users, ascending.

    rows : csr_array of shape (n_users, n_items)
        Their ratings.
    """
    if not isinstance(ratings, pd.DataFrame) or ratings.shape[1] != 3:
        raise ValueError(
            f"{name} must be a DataFrame with three columns, user id, item id and "
            f"rating, got {type(ratings).__name__} of shape {np.shape(ratings)}."
        )
    found = check_ratings(ratings.iloc[:, :2], ratings.iloc[:, 2].to_numpy(), None)
    places = predictor.item_positions(found.items)
    if (places < 0).any():
        unknown = found.items[places < 0].tolist()[0]
        raise ValueError(
            f"{name} has the item {unknown!r}, which the model does not know: leave "
            "out its ratings, or fit anew with them."
        )
    shape = len(found.users), predictor.n_items
    columns = places[found.indices]
    return found.users, sp.csr_array((found.values, columns, found.indptr), shape=shape)


def rank(
    predictor: Predictor, ids: np.ndarray, users: Users, n_items: int, choice: Choice
) -> pd.DataFrame:
    """Table of the items with the highest unclipped scores for each user."""
    model, scale = predictor.model, predictor.scale
    factor = _CACHE_FACTOR if model.device.type == "cpu" else 1
    tops, bests = [], []
    parts = row_chunks(len(ids), predictor.n_items * model.width * factor)
    for part in predictor.shown(parts, "recommend", "users"):
        scores = predictor.rankings(users if len(ids) == 1 else users.take(part))
        choice.apply(scores, part)
        top, best = top_items(scores, n_items)
        tops.append(top)
        bests.append(best)
    top, best = ((a[0] if len(a) == 1 else np.concatenate(a)) for a in (tops, bests))
    found = best > -np.inf
    ratings = predictor.clipped(scale.restore(best[found] + model.offset))
    columns = {
        0: np.repeat(ids, found.sum(axis=1)),
        1: predictor.fitted.items_[top[found]],
        2: ratings,
    }
    frame = pd.DataFrame(columns, copy=False)
    frame.columns = _COLUMNS
    return frame


_COLUMNS = pd.Index(["user", "item", "rating"])


def top_items(scores: torch.Tensor, n_items: int) -> tuple[np.ndarray, np.ndarray]:
    """Find the items with the highest scores in each row.

    Items with equal scores are ranked and cut off in the order of the items.

    Parameters
    ----------
    scores : Tensor of shape (n_users, n_items)
        Scores.

    n_items : int
        Number of items to find, or all if there are fewer.

    Returns
    -------
    top, best : ndarray of shape (n_users, n_found)
        Positions of the items, and their scores in double precision.
    """
    width = scores.shape[1]
    k = min(n_items, width)
    values, places = scores.topk(min(k + 1, width), dim=1)
    best, top = values.cpu().numpy(), places.cpu().numpy()
    is_equal = best[:, 1:] == best[:, :-1]
    is_equal &= best[:, 1:] > -np.inf
    if is_equal.any():
        for row in np.flatnonzero(is_equal.any(axis=1)):
            own = scores[row].cpu().numpy()
            candidates = np.flatnonzero(own >= best[row, k - 1])
            order = np.argsort(-own[candidates], kind="stable")[:k]
            top[row, :k] = candidates[order]
            best[row, :k] = own[top[row, :k]]
    return top[:, :k], best[:, :k].astype(np.float64)


def similar(
    predictor: Predictor, side: Literal["user", "item"], ids: Any, n: int
) -> pd.DataFrame:
    """Table of the most similar users or items, by the cosine of their factors."""
    fitted = predictor.fitted
    known = fitted.items_ if side == "item" else fitted.users_
    find = predictor.item_positions if side == "item" else predictor.user_positions
    is_modeled = predictor.is_modeled if side == "item" else predictor.is_modeled_user
    ids = check_ids(ids, side)
    places = find(ids)
    if (places < 0).any():
        raise ValueError(
            f"The model does not know the {side} {ids[places < 0].tolist()[0]!r}: give "
            f"ids of {side}s_."
        )
    if not is_modeled[places].all():
        raise ValueError(
            f"Nothing is known of the {side} {ids[~is_modeled[places]].tolist()[0]!r}: "
            "it has neither ratings nor a description."
        )
    directions = predictor.directions(side)
    hidden = torch.from_numpy(np.flatnonzero(~is_modeled)).to(directions.device)
    tops, bests = [], []
    parts = row_chunks(len(ids), len(known) * _CACHE_FACTOR)
    for part in predictor.shown(parts, f"similar_{side}s", f"{side}s"):
        own = torch.from_numpy(places[part]).to(directions.device)
        cosines = directions[own] @ directions.T
        cosines.index_fill_(1, hidden, -torch.inf)
        cosines[torch.arange(len(own), device=own.device), own] = -torch.inf
        top, best = top_items(cosines, n)
        tops.append(top)
        bests.append(best)
    top, best = np.concatenate(tops), np.concatenate(bests)
    found = best > -np.inf
    return pd.DataFrame(
        {
            side: np.repeat(ids, found.sum(axis=1)),
            f"similar_{side}": known[top[found]],
            "similarity": best[found],
        }
    )


def _seen_by(predictor: Predictor, positions: np.ndarray) -> Lists:
    """Items that users have rated in `fit`."""
    seen = predictor.fitted._seen
    if len(positions) == 1:
        at = positions[0]
        start, end = seen.indptr[at : at + 2] if at >= 0 else (0, 0)
        return Lists(np.array([0, end - start]), seen.indices[start:end])
    indptr, entries = entries_of_rows(seen, positions)
    return Lists(indptr, seen.indices[entries])


def _choose(
    predictor: Predictor,
    ids: np.ndarray,
    seen: Lists | None,
    items: Any,
    exclude_items: Any,
) -> Choice:
    """Resolve the arguments `items` and `exclude_items` of `recommend`."""
    hidden, candidates, closed = [] if seen is None else [seen], None, None
    if isinstance(items, Mapping):
        missing = [user for user in ids.tolist() if user not in items]
        if missing:
            raise ValueError(f"items has no candidates for the user {missing[0]!r}.")
        candidates = Lists.join(
            [_known_items(predictor, items[user], "items") for user in ids.tolist()]
        )
    elif items is not None:
        is_closed = np.ones(predictor.n_items, bool)
        is_closed[_known_items(predictor, items, "items")] = False
        closed = np.flatnonzero(is_closed)
    if isinstance(exclude_items, Mapping):
        if exclude_items:  # keys of another type would exclude nothing
            keys = check_ids(list(exclude_items), "user")
            positions_of(keys, pd.unique(ids), "user")
        lists = [exclude_items.get(user, ()) for user in ids.tolist()]
        hidden.append(
            Lists.join(
                [_known_items(predictor, some, "exclude_items") for some in lists]
            )
        )
    elif exclude_items is not None:
        excluded = _known_items(predictor, exclude_items, "exclude_items")
        closed = excluded if closed is None else np.union1d(closed, excluded)
    return Choice(hidden, candidates, closed)


def _known_items(predictor: Predictor, items: Any, name: str) -> np.ndarray:
    """Positions of items; unknown ones are refused as candidates, else left out."""
    items = list(items) if isinstance(items, Set) else items
    if isinstance(items, str) or not hasattr(items, "__len__"):
        raise TypeError(
            f"{name} must be an array-like of item ids, or a mapping from user id to "
            f"such, got {type(items).__name__}."
        )
    if len(items) == 0:
        return np.zeros(0, np.int64)
    ids = check_ids(items, "item")
    places = predictor.item_positions(ids)
    if name == "items" and (places < 0).any():
        raise ValueError(
            f"items has {ids[places < 0].tolist()[0]!r}, which the model does not "
            "know: leave it out, or make it known by its features or text."
        )
    return places[places >= 0]
