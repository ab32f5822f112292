"""Common steps of all predictions, including fallbacks for unseen users and items."""

from __future__ import annotations

import warnings
from abc import ABC, abstractmethod
from collections.abc import Iterable
from operator import is_
from typing import Any, Literal, NamedTuple

import numpy as np
import scipy.sparse as sp
import torch

from ._core.chunks import CHUNK, row_chunks
from ._core.device import as_tensor, available_memory, inference_device
from ._core.sparse import Pattern
from ._data.ids import IdIndex, check_ids, check_matrix_ids, check_pairs
from ._data.ratings import (
    PRIOR_RATINGS,
    Values,
    check_rating_matrix,
    row_numbers,
    select_entries,
    shrunken_means,
)
from ._limits import refuse_far_ratings
from ._progress import shown
from ._sklearn_compat import check_feature_names

# Temporary numbers and bytes per entry in the computation of dense predictions.
_NUMBERS_AT_WORK, _BYTES_AT_WORK = 4, 24
# Temporary numbers per pair in the computation of single predictions.
_NUMBERS_PER_PAIR = 8
# Number of pairs from which mostly unseen users or items cause a warning.
_MANY_PAIRS = 100


class Case(NamedTuple):
    """Prediction to explain.

    Attributes
    ----------
    state : named tuple of tensors with one row
        State of the user in the model.

    rows : csr_array of shape (1, n_items)
        Ratings of modeled items by the user, on the scale of the model.

    user : int or None
        Position of the user in `users_`; None for a new user.

    item : int
        Position of the item in `items_`.

    finer : dict
        Finer parts of the item's vector, by the kind and name of what they replace.
    """

    state: Any
    rows: sp.csr_array
    user: int | None
    item: int
    finer: dict[tuple[str, str], Any]


class Contribution(NamedTuple):
    """Named part of a prediction, on the scale of the model."""

    kind: str
    name: Any
    value: float


class Model(ABC):
    """Fitted model on a device, constructed from the attributes of an estimator.

    It predicts for users with a known state: a named tuple of tensors with one row per
    user. These are the users in `fit` and new users folded in from their ratings.

    Parameters
    ----------
    fitted : BaseRecommender
        Fitted estimator, whose attributes must not change afterward.

    device : torch.device
        Device to compute on.
    """

    # State of the users in `fit`.
    users: Any
    # Number of temporary values per user and item in `scores`.
    width = 1
    # What `rankings` leaves out of the scores.
    offset = 0.0

    def __init__(self, fitted: Any, device: torch.device):
        self.fitted, self.device = fitted, device

    @abstractmethod
    def fold_in(self, rows: sp.csr_array) -> Any:
        """Compute the state of new users from rows of ratings of modeled items."""

    @abstractmethod
    def transform(self, state: Any) -> np.ndarray:
        """Factors of users, of shape (n_users, n_components)."""

    @abstractmethod
    def scores_at(self, state: Any, row: np.ndarray, item: np.ndarray) -> np.ndarray:
        """Predict pairs of a row of the state and an item, sorted by row."""

    @abstractmethod
    def scores(self, state: Any) -> np.ndarray:
        """Predict all items, of shape (n_users, n_items)."""

    def rankings(self, state: Any) -> torch.Tensor:
        """Compute the scores of all items minus `offset`, on the device."""
        return torch.as_tensor(self.scores(state))

    def factors(self, side: Literal["user", "item"]) -> np.ndarray:
        """Vectors of all users or items, whose cosines say how similar they are."""
        return getattr(self.fitted, f"{side}_factors_")

    @abstractmethod
    def left_out(self, rows: sp.csr_array) -> np.ndarray:
        """Predict each rating from the other ratings in its row, of shape (nnz,).

        The value is arbitrary if the row has no other rating.
        """

    @abstractmethod
    def contributions(
        self, case: Case, by: Literal["user", "item"]
    ) -> list[Contribution]:
        """Split a prediction into exact contributions, of which the mean is the first.

        A product of factors is split into the parts of the side `by`.
        """

    def std_at(self, user: np.ndarray, item: np.ndarray) -> np.ndarray:
        """Standard deviations of ratings of users in `fit`, given by positions."""
        raise TypeError(f"{type(self).__name__} has no standard deviations.")

    def std(self, rows: sp.csr_array) -> np.ndarray:
        """Standard deviations of all items for rows of ratings."""
        raise TypeError(f"{type(self).__name__} has no standard deviations.")

    def tensor(self, array: np.ndarray) -> torch.Tensor:
        """Move an array to the device."""
        return as_tensor(array, device=self.device)

    def pattern(self, rows: sp.csr_array) -> Pattern:
        """Pattern of rows of ratings, on the device."""
        crow, col = as_tensor(rows.indptr), as_tensor(rows.indices)
        return Pattern(crow, col, rows.shape).to(self.device)

    def pattern_of_pairs(self, n_rows: int, row: np.ndarray, item: np.ndarray):
        """Pattern of pairs of a row and an item, sorted by row."""
        crow = np.searchsorted(row, np.arange(n_rows + 1))
        shape = n_rows, len(self.fitted.items_)
        return Pattern(as_tensor(crow), as_tensor(item), shape).to(self.device)


class Users(NamedTuple):
    """Users to predict for: users in `fit` or users folded in from their ratings.

    Attributes
    ----------
    state : named tuple of tensors of shape (n_users, ...)
        State of the users in the model.

    is_known : ndarray of shape (n_users,), dtype bool
        Mask of the users who have ratings that determine their state.

    means : ndarray of shape (n_users,)
        Mean ratings of the users, shrunk toward the global mean.
    """

    state: Any
    is_known: np.ndarray
    means: np.ndarray

    def take(self, part: slice) -> Users:
        return Users(_take(self.state, part), self.is_known[part], self.means[part])


class Predictor:
    """Predictor of a fitted model that also handles unseen users and items.

    Parameters
    ----------
    fitted : BaseRecommender
        Fitted estimator, which must not change afterward.
    """

    def __init__(self, fitted: Any):
        self.fitted = fitted
        self.model: Model = fitted._make_model(inference_device(fitted.device))
        self.scale = fitted._scale
        self.n_items = len(fitted.items_)
        # Items and users that have ratings, or are described by texts or features.
        self.is_modeled = fitted._is_rated | fitted._is_described
        self.all_modeled = bool(self.is_modeled.all())
        self.user_ids = IdIndex(fitted.users_, "user")
        self.item_ids = IdIndex(fitted.items_, "item")
        has_rated = np.diff(fitted._seen.indptr) > 0
        self.is_modeled_user = has_rated | fitted._is_described_user

    # Queries: user-item pairs, rows of ratings, or users.

    def check_rows(self, X: Any, name: str = "X") -> sp.csr_array:
        """Validate rows of ratings with one column for each item."""
        rows = check_rating_matrix(X, name=name, n_items=self.n_items)
        refuse_far_ratings(rows.data, self.scale, self.fitted.dtype, name)
        return rows

    def positions(self, X: Any) -> tuple[np.ndarray, np.ndarray]:
        """Positions of the users and items of pairs; -1 if unseen."""
        users, items = check_pairs(X)
        if not self.fitted._fitted_on_matrix:
            check_feature_names(self.fitted, X)
        return self.user_positions(users), self.item_positions(items)

    def known_users(self, positions: np.ndarray) -> Users:
        """Users given by their positions in `users_`; -1 is an unseen user."""
        is_seen = positions >= 0
        means = self.fitted.user_means_[positions]
        return Users(
            _zeroed(_take(self.model.users, positions), ~is_seen),
            is_seen & self.is_modeled_user[positions],
            np.where(is_seen, means, self.fitted.global_mean_),
        )

    def known_user(self, position: int) -> Users:
        """One user in `fit`, as views, which cost less than copies."""
        at = slice(position, position + 1)
        state, means = _take(self.model.users, at), self.fitted.user_means_[at]
        return Users(state, self.is_modeled_user[at], means)

    def users_of_rows(self, rows: sp.csr_array) -> Users:
        """Users folded in from their rows of ratings."""
        informative = select_entries(rows, self.is_modeled[rows.indices])
        is_known = np.diff(informative.indptr) > 0
        return Users(
            _zeroed(self.model.fold_in(self._standardize(informative)), ~is_known),
            is_known,
            shrunken_means(
                row_numbers(rows), rows.shape[0], rows.data, self.fitted.global_mean_
            ),
        )

    def user_position(self, user: Any) -> int:
        """Position of a user given by its id; -1 if unseen."""
        return int(self.user_positions(check_ids(_column_of(user), "user"))[0])

    def item_position(self, item: Any) -> int:
        """Position of an item given by its id; -1 if unseen."""
        return int(self.item_positions(check_ids(_column_of(item), "item"))[0])

    def seen_by(self, positions: np.ndarray) -> sp.csr_array:
        """Ratings in `fit` of users given by their positions; none for -1."""
        seen = self.fitted._seen
        indptr, entries = entries_of_rows(seen, positions)
        # Models of earlier versions have the ratings themselves.
        levels = getattr(self.fitted, "_levels", None)
        values = Values(seen.data[entries], levels).decode()
        return sp.csr_array(
            (values, seen.indices[entries], indptr),
            shape=(len(positions), self.n_items),
        )

    def informative(self, rows: sp.csr_array) -> sp.csr_array:
        """Ratings of modeled items, on the scale of the model."""
        modeled = select_entries(rows, self.is_modeled[rows.indices])
        return self._standardize(modeled)

    # Predictions.

    def predict_pairs(self, X: Any) -> np.ndarray:
        """Predict user-item pairs, of shape (n_pairs,)."""
        positions, items = self.positions(X)
        _warn_if_unseen(X, positions, "user")
        _warn_if_unseen(X, items, "item")
        positions, row = _distinct(positions, len(self.fitted.users_))
        return self.predict_entries(self.known_users(positions), row, items)

    def predict_rows(self, X: Any) -> np.ndarray:
        """Predict all items for rows of ratings, of shape (n_rows, n_items)."""
        rows = self.check_rows(X)
        self.refuse_too_large(rows.shape)
        return self.predict_dense(self.users_of_rows(rows))

    def predict_entries(
        self, users: Users, row: np.ndarray, item: np.ndarray
    ) -> np.ndarray:
        """Predict single ratings, of shape (n_ratings,); item -1 is an unseen item."""
        fitted = self.fitted
        is_modeled = np.append(self.is_modeled, False)[item]
        item_means = np.append(fitted.item_means_, fitted.global_mean_)[item]
        ratings = np.where(is_modeled, item_means, users.means[row])
        modeled = np.flatnonzero(users.is_known[row] & is_modeled)
        scores = self._scores_at(users, row[modeled], item[modeled])
        ratings[modeled] = self.scale.restore(scores)
        return self.clipped(ratings)

    def _scores_at(self, users: Users, row: np.ndarray, item: np.ndarray) -> np.ndarray:
        """Scores of pairs in any order, of modeled users and items."""
        n_users = len(users.means)
        if self.model.device.type != "cpu" or len(row) > n_users * self.n_items:
            # The kernels of a GPU need sorted, distinct entries of a matrix.
            keys = row.astype(np.int64) * self.n_items + item
            keys, place = np.unique(keys, return_inverse=True)
            pairs = np.divmod(keys, self.n_items)
            return self._sorted_scores_at(users.state, *pairs)[place]
        if (row[1:] >= row[:-1]).all():
            return self._sorted_scores_at(users.state, row, item)
        # Small integers are sorted by their digits, in linear time.
        is_small = n_users <= np.iinfo(np.uint16).max
        order = np.argsort(row.astype(np.uint16) if is_small else row, kind="stable")
        scores = np.empty(len(row))
        scores[order] = self._sorted_scores_at(users.state, row[order], item[order])
        return scores

    def _sorted_scores_at(
        self, state: Any, row: np.ndarray, item: np.ndarray
    ) -> np.ndarray:
        """Scores of pairs sorted by row, as many at once as fit in memory."""
        chunks = row_chunks(len(row), _NUMBERS_PER_PAIR)
        parts = self.shown(chunks, "predict", "pairs")
        found = [self.model.scores_at(state, row[at], item[at]) for at in parts]
        return found[0] if len(found) == 1 else np.concatenate(found)

    def predict_dense(self, users: Users, *, clip: bool = True) -> np.ndarray:
        """Predict all items for the given users, of shape (n_users, n_items)."""
        ratings = np.empty((len(users.means), self.n_items))
        for part in self.shown(self._chunks(len(ratings)), "predict", "users"):
            some = users.take(part)
            ratings[part] = self.model.scores(some.state)
            self.scale.restore(ratings[part], out=ratings[part])
            ratings[part][~some.is_known] = self.fitted.item_means_
            ratings[part][:, ~self.is_modeled] = some.means[:, np.newaxis]
        return self.clipped(ratings) if clip else ratings

    def predict_left_out(self, rows: sp.csr_array) -> np.ndarray:
        """Predict each rating from the other ratings in its row, of shape (nnz,)."""
        row = row_numbers(rows)
        is_modeled = self.is_modeled[rows.indices]
        informative = select_entries(rows, is_modeled)
        counts = np.diff(rows.indptr)[row]
        # Leaving out rating j reduces the sum of its row by r_j and the count by 1.
        sums = np.bincount(row, rows.data, minlength=rows.shape[0])[row] - rows.data
        prior = PRIOR_RATINGS * self.fitted.global_mean_
        ratings = (sums + prior) / (counts - 1 + PRIOR_RATINGS)
        others = np.diff(informative.indptr)[row] - is_modeled
        alone = is_modeled & (others == 0)
        ratings[alone] = self.fitted.item_means_[rows.indices[alone]]
        left_out = self.scale.restore(
            self.model.left_out(self._standardize(informative))
        )
        ratings[is_modeled & (others > 0)] = left_out[others[is_modeled] > 0]
        return self.clipped(ratings)

    def std_of_pairs(self, X: Any) -> np.ndarray:
        """Standard deviations of the predictions of pairs, of shape (n_pairs,)."""
        users, items = self.positions(X)
        is_known = np.append(self.is_modeled_user, False)[users]
        known = np.flatnonzero(is_known & np.append(self.is_modeled, False)[items])
        std = np.full(len(users), self.fitted.rating_std_)
        std[known] = self.model.std_at(users[known], items[known]) * self.scale.std
        return std

    def std_of_rows(self, X: Any) -> np.ndarray:
        """Standard deviations of all items for rows, of shape (n_rows, n_items)."""
        rows = self.check_rows(X)
        informative = select_entries(rows, self.is_modeled[rows.indices])
        std = self.model.std(self._standardize(informative)) * self.scale.std
        std[np.diff(informative.indptr) == 0] = self.fitted.rating_std_
        std[:, ~self.is_modeled] = self.fitted.rating_std_
        return std

    def transform(self, users: Users) -> np.ndarray:
        """Factors of users; zeros for unknown users."""
        return self.model.transform(users.state)

    def rankings(self, users: Users) -> torch.Tensor:
        """Scores of all items on the device, less `offset` of the model, to rank by."""
        scores, offset = self.model.rankings(users.state), self.model.offset
        if not users.is_known.all():
            means = self.scale.standardize(self.fitted.item_means_) - offset
            unknown = torch.from_numpy(~users.is_known).to(scores.device)
            scores[unknown] = torch.as_tensor(means).to(scores)
        if not self.all_modeled:
            means = self.scale.standardize(users.means) - offset
            unmodeled = torch.from_numpy(~self.is_modeled).to(scores.device)
            scores[:, unmodeled] = torch.as_tensor(means).to(scores).unsqueeze(1)
        return scores

    def directions(self, side: Literal["user", "item"]) -> torch.Tensor:
        """Factors of all users or items, scaled to length 1, on the device."""
        factors = torch.as_tensor(self.model.factors(side)).to(self.model.device)
        return torch.nn.functional.normalize(factors)

    def shown(self, parts: list[slice], call: str, unit: str) -> Iterable[slice]:
        """Parts of a call; with `verbose`, lines say how many units are done."""
        task = f"{type(self.fitted).__name__}.{call}"
        return shown(parts, task, unit, self.fitted.verbose)

    def refuse_too_large(self, shape: tuple[int, int]) -> None:
        """Reject dense predictions that do not fit in memory."""
        n_entries = shape[0] * shape[1]
        at_once = max(CHUNK // _NUMBERS_AT_WORK, shape[1])
        at_work = min(n_entries, at_once) * _BYTES_AT_WORK
        size, free = n_entries * 8 + at_work, available_memory()
        if size > free:
            raise ValueError(
                f"The dense predictions of shape {shape} would take "
                f"{size / 2**30:.1f} GiB of {free / 2**30:.1f} GiB that are free: "
                "predict some rows at a time, predict user-item pairs, or call "
                "recommend(X)."
            )

    def _chunks(self, n_users: int) -> list[slice]:
        """Slices of users whose dense predictions are computed at once."""
        width = self.n_items * self.model.width * _NUMBERS_AT_WORK
        return row_chunks(n_users, width)

    def _standardize(self, rows: sp.csr_array) -> sp.csr_array:
        """Bring rows of ratings to the scale of the model."""
        values = self.scale.standardize(rows.data)
        return sp.csr_array((values, rows.indices, rows.indptr), shape=rows.shape)

    def user_positions(self, ids: np.ndarray) -> np.ndarray:
        """Positions of validated user ids; -1 if unseen."""
        if self.fitted._fitted_on_matrix:
            check_matrix_ids(ids, "user")
        return self.user_ids.positions(ids)

    def item_positions(self, ids: np.ndarray) -> np.ndarray:
        """Positions of validated item ids; -1 if unseen."""
        if self.fitted._fitted_on_matrix:
            check_matrix_ids(ids, "item")
        return self.item_ids.positions(ids)

    def clipped(self, ratings: np.ndarray) -> np.ndarray:
        """Ratings in the range of those in `fit`, if the model clips; in place."""
        if not self.fitted.clip:
            return ratings
        return np.clip(ratings, *self.fitted.rating_range_, out=ratings)


class PredictorCache:
    """Cache of an estimator's predictor, renewed when an attribute has been replaced.

    Predictions use a snapshot of all attributes, so that a refit in another thread
    cannot change them halfway. The predictor is not copied or pickled.
    """

    def __init__(self) -> None:
        self._predictor: Predictor | None = None

    def get(self, estimator: Any) -> Predictor:
        """Predictor for the current attributes of an estimator."""
        attributes = vars(estimator).copy()
        del attributes["_predictors"]  # this cache itself
        predictor = self._predictor
        if predictor is None or not _is_same(vars(predictor.fitted), attributes):
            fitted = object.__new__(type(estimator))
            fitted.__dict__ = attributes
            self._predictor = predictor = Predictor(fitted)
        return predictor

    def __reduce__(self):
        return PredictorCache, ()


def _warn_if_unseen(X: Any, positions: np.ndarray, side: str) -> None:
    """Warn if more than half of many pairs have an unseen user or item."""
    n_pairs, n_unseen = len(positions), np.count_nonzero(positions < 0)
    if n_pairs >= _MANY_PAIRS and n_unseen > n_pairs / 2:
        ids = check_pairs(X)[0 if side == "user" else 1]
        example = ids[positions < 0][:1].tolist()[0]
        warnings.warn(
            f"{n_unseen} of {n_pairs} pairs have an unseen {side}, not in `fit`, for "
            f"example {example!r}. They are predicted by mean ratings. Files of "
            "ratings are sorted, mostly by user, so that an integer cv tests on "
            "unseen users only: use a shuffled splitter, for example KFold(5, "
            "shuffle=True, random_state=0). If the split is random, check that the "
            f"ids of the {side}s are those of `fit`. If it is by time, by user or by "
            "item, this is what it measures.",
            UserWarning,
            # This function, `predict_pairs`, `predict`, its decorator.
            stacklevel=5,
        )


def _column_of(value: Any) -> np.ndarray:
    """Array of one id, which may be of any type."""
    array = np.empty(1, dtype=object)
    array[0] = value
    return array


def _is_same(old: dict[str, Any], new: dict[str, Any]) -> bool:
    """Whether two dictionaries contain the same objects."""
    # In the same order, or else the predictor is made again, which is harmless.
    return list(old) == list(new) and all(map(is_, old.values(), new.values()))


def _distinct(positions: np.ndarray, n: int) -> tuple[np.ndarray, np.ndarray]:
    """Distinct positions from -1 to n - 1, ascending from 0, and the place of each."""
    is_present = np.zeros(n + 1, bool)
    is_present[positions] = True
    distinct = np.flatnonzero(is_present)
    place = np.cumsum(is_present) - 1
    distinct[distinct == n] = -1
    return distinct, place[positions]


def _take(state: Any, positions: Any) -> Any:
    """Select the state of some users."""
    return type(state)(*(tensor[positions] for tensor in state))


def _zeroed(state: Any, mask: np.ndarray) -> Any:
    """Set the state of some users to 0, in place."""
    if mask.any():
        for tensor in state:
            tensor[torch.as_tensor(mask, device=tensor.device)] = 0
    return state


def entries_of_rows(
    matrix: sp.csr_array, positions: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Entries of some rows of a matrix, and where each row begins; -1 has none."""
    starts = matrix.indptr[positions]
    counts = np.where(positions >= 0, matrix.indptr[positions + 1] - starts, 0)
    indptr = np.concatenate([[0], np.cumsum(counts)])
    entries = np.repeat(starts - indptr[:-1], counts) + np.arange(indptr[-1])
    return indptr, entries
