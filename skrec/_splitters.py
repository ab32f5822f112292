"""Splitters of user-item pairs, for `cv` of scikit-learn, and of rows of ratings."""

from __future__ import annotations

from abc import ABCMeta, abstractmethod
from collections.abc import Iterator
from numbers import Integral, Real
from typing import Any, ClassVar

import numpy as np
import pandas as pd
import scipy.sparse as sp
from numpy.typing import NDArray
from sklearn.model_selection import BaseCrossValidator
from sklearn.utils import check_random_state

from ._data.ids import check_pairs
from ._data.ratings import RatingMatrix, check_rating_matrix, is_matrix, row_numbers


class _PairSplitter(BaseCrossValidator, metaclass=ABCMeta):
    """Base class of splitters whose samples are user-item pairs.

    A subclass numbers the fold in which each pair is held out.
    """

    n_splits: int

    def split(
        self, X: Any, y: Any = None, groups: Any = None
    ) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int64]]]:
        """Yield the indices of training and held-out pairs.

        Parameters
        ----------
        X : {array-like, DataFrame} of shape (n_ratings, 2)
            User and item ids.

        y : object
            Ignored.

        groups : array-like of shape (n_ratings,), default=None
            Times of the ratings, for splitters by time; otherwise ignored.

        Yields
        ------
        train, test : ndarray of int
            Indices of the pairs.
        """
        yield from self._splits(_codes(self, X), groups)

    def get_n_splits(self, X: Any = None, y: Any = None, groups: Any = None) -> int:
        """Return the number of splits; the arguments are ignored."""
        return self.n_splits

    @abstractmethod
    def _splits(self, codes: NDArray[np.int64], groups: Any) -> Iterator[Any]:
        """Yield the splits, given the numbers of users and items of the pairs."""


class _KFold(_PairSplitter):
    """Base class of splitters that deal out pairs, users or items to folds."""

    def __init__(
        self,
        n_splits: int = 5,
        *,
        random_state: int | np.random.RandomState | None = None,
    ) -> None:
        _check_count(n_splits, "n_splits", 2)
        self.n_splits = n_splits
        self.random_state = random_state

    def _splits(self, codes, groups):
        fold = self._deal(codes, check_random_state(self.random_state))
        for k in range(self.n_splits):
            yield np.flatnonzero(fold != k), np.flatnonzero(fold == k)

    @abstractmethod
    def _deal(self, codes: NDArray[np.int64], rng: Any) -> NDArray[np.int64]:
        """Return the fold of each pair."""


class RatingKFold(_KFold):
    """K folds of ratings, in which each user has the same share of ratings.

    Ratings are shuffled. A user with at least `n_splits` ratings has some in each fold.
    This measures how well the gaps of known users are filled.

    Parameters
    ----------
    n_splits : int, default=5
        Number of folds, at least 2.

    random_state : int, RandomState or None, default=None
        Seed of the shuffling.

    See Also
    --------
    sklearn.model_selection.KFold : Folds of ratings without regard to users.

    Examples
    --------
    >>> import numpy as np
    >>> from skrec.model_selection import RatingKFold
    >>> X = np.array([["ann", "Up"], ["ann", "Heat"], ["bob", "Up"], ["bob", "Alien"]])
    >>> for train, test in RatingKFold(2, random_state=0).split(X):
    ...     print(X[test].tolist())
    [['ann', 'Up'], ['bob', 'Alien']]
    [['ann', 'Heat'], ['bob', 'Up']]
    """

    def _deal(self, codes, rng):
        users = codes[:, 0]
        if len(users) < self.n_splits:
            raise ValueError(
                f"X has {len(users)} ratings, fewer than n_splits={self.n_splits}."
            )
        order = np.lexsort([rng.permutation(len(users)), users])
        fold = np.empty(len(users), np.int64)
        # Users follow each other without a gap, so that folds are of equal size.
        fold[order] = np.arange(len(users)) % self.n_splits
        return fold


class UserKFold(_KFold):
    """K folds of users: all ratings of a user are held out together.

    Held-out users are unseen, so that models without features of users predict the
    means of items. To serve users from some of their ratings, use a rating matrix.

    Parameters
    ----------
    n_splits : int, default=5
        Number of folds, at least 2.

    random_state : int, RandomState or None, default=None
        Seed of the shuffling.

    See Also
    --------
    ItemKFold : The same for items.
    sklearn.model_selection.GroupKFold : Folds of any groups.

    Examples
    --------
    >>> import numpy as np
    >>> from skrec.model_selection import UserKFold
    >>> X = np.array([["ann", "Up"], ["ann", "Heat"], ["bob", "Up"], ["cy", "Alien"]])
    >>> for train, test in UserKFold(3, random_state=0).split(X):
    ...     print(X[test].tolist())
    [['cy', 'Alien']]
    [['bob', 'Up']]
    [['ann', 'Up'], ['ann', 'Heat']]
    """

    def _deal(self, codes, rng):
        return _deal_groups(codes[:, 0], self.n_splits, rng, "users")


class ItemKFold(_KFold):
    """K folds of items: all ratings of an item are held out together.

    This measures how well new items are predicted from texts and features.

    Parameters
    ----------
    n_splits : int, default=5
        Number of folds, at least 2.

    random_state : int, RandomState or None, default=None
        Seed of the shuffling.

    See Also
    --------
    UserKFold : The same for users.

    Examples
    --------
    >>> import numpy as np
    >>> from skrec.model_selection import ItemKFold
    >>> X = np.array([["ann", "Up"], ["ann", "Heat"], ["bob", "Up"], ["cy", "Alien"]])
    >>> for train, test in ItemKFold(3, random_state=0).split(X):
    ...     print(X[test].tolist())
    [['cy', 'Alien']]
    [['ann', 'Heat']]
    [['ann', 'Up'], ['bob', 'Up']]
    """

    def _deal(self, codes, rng):
        return _deal_groups(codes[:, 1], self.n_splits, rng, "items")


class _TimeSplitter(_PairSplitter):
    """Base class of splitters by the times of the ratings, passed as `groups`."""

    # Routing passes times as `groups`, as for scikit-learn's group splitters.
    __metadata_request__split: ClassVar[dict[str, bool]] = {"groups": True}

    def _times(self, groups: Any, n: int) -> NDArray[np.int64]:
        times = check_times(groups, type(self).__name__)
        if len(times) != n:
            raise ValueError(f"groups has {len(times)} times, but X has {n} ratings.")
        return times


class LeaveLastOut(_TimeSplitter):
    """Hold out the last ratings of each user.

    This measures how well a model predicts what its users do next. Other users' later
    ratings are in the training set: use `TimeSplit` to exclude them.

    Parameters
    ----------
    n_last : int, default=1
        Number of held-out ratings of each user. Users with no more than that stay in
        the training set as a whole.

    Notes
    -----
    Pass the times of the ratings, numbers or datetimes, as `groups` to the functions of
    scikit-learn. Of ratings at the same time, those that come first in X are earlier.

    Examples
    --------
    >>> import numpy as np
    >>> from skrec.model_selection import LeaveLastOut
    >>> X = np.array([["ann", "Up"], ["ann", "Heat"], ["bob", "Up"], ["ann", "Alien"]])
    >>> [(train, test)] = LeaveLastOut().split(X, groups=[30, 20, 40, 10])
    >>> X[test].tolist()
    [['ann', 'Up']]
    """

    n_splits = 1

    def __init__(self, n_last: int = 1) -> None:
        _check_count(n_last, "n_last", 1)
        self.n_last = n_last

    def _splits(self, codes, groups):
        users = codes[:, 0]
        order = np.lexsort([self._times(groups, len(users)), users])
        counts = np.bincount(users)
        ends = np.repeat(np.cumsum(counts), counts)  # of the users, in this order
        is_last = np.arange(len(users)) >= ends - self.n_last
        is_last &= np.repeat(counts, counts) > self.n_last
        if not is_last.any():
            raise ValueError(
                f"No user has more than n_last={self.n_last} ratings: nothing can be "
                "held out."
            )
        yield np.sort(order[~is_last]), np.sort(order[is_last])


class TimeSplit(_TimeSplitter):
    """Train on the past, and hold out what follows.

    The ratings after a time are cut into `n_splits` periods of about equally many
    ratings. Each is held out in turn; the training set is all that is older.

    Parameters
    ----------
    n_splits : int, default=1
        Number of held-out periods.

    test_size : float, default=0.1
        Share of the ratings that is held out in each split; together less than 1.

    gap : float or timedelta, default=0
        Time before each held-out period whose ratings are left out, in the unit of the
        times.

    Notes
    -----
    Pass the times of the ratings, numbers or datetimes, as `groups` to the functions of
    scikit-learn. Ratings at the same time stay together. Many held-out users may have
    no training ratings, and are predicted by the items' means.

    See Also
    --------
    sklearn.model_selection.TimeSeriesSplit : For samples that are sorted by time.

    Examples
    --------
    >>> import numpy as np
    >>> from skrec.model_selection import TimeSplit
    >>> X = np.array([["ann", "Up"], ["bob", "Up"], ["ann", "Heat"], ["bob", "Heat"]])
    >>> splitter = TimeSplit(2, test_size=0.25)
    >>> for train, test in splitter.split(X, groups=[2001, 2002, 2004, 2003]):
    ...     print(train.tolist(), test.tolist())
    [0, 1] [3]
    [0, 1, 3] [2]
    """

    test_size: float
    gap: Any

    def __init__(
        self, n_splits: int = 1, *, test_size: float = 0.1, gap: Any = 0
    ) -> None:
        _check_count(n_splits, "n_splits", 1)
        if not isinstance(test_size, Real) or not 0 < n_splits * test_size < 1:
            raise ValueError(
                "n_splits * test_size must be between 0 and 1, both excluded, got "
                f"n_splits={n_splits} and test_size={test_size!r}."
            )
        self.n_splits = n_splits
        self.test_size = test_size
        self.gap = gap

    def _splits(self, codes, groups):
        n = len(codes)
        times = self._times(groups, n)
        shares = 1 - self.test_size * np.arange(self.n_splits, -1, -1)
        ordered = np.sort(times)
        starts = [ordered[min(round(share * n), n - 1)] for share in shares[:-1]]
        for k, start in enumerate(starts):
            is_test = times >= start
            if k + 1 < len(starts):
                is_test &= times < starts[k + 1]
            train = np.flatnonzero(times < start - _gap_of(self.gap, times))
            test = np.flatnonzero(is_test)
            if not len(train) or not len(test):
                raise ValueError(
                    f"Split {k} has {len(train)} training and {len(test)} held-out "
                    "ratings: take fewer splits, a smaller gap, or finer times."
                )
            yield train, test


def split_rows(
    R: RatingMatrix,
    test_size: float = 0.2,
    *,
    random_state: int | np.random.RandomState | None = None,
) -> tuple[sp.csr_array, sp.csr_array]:
    """Hold out a share of the ratings of each row of a matrix.

    ``score(given, held_out)`` and the scorers of `skrec.metrics` then measure how well
    a model predicts some ratings of unseen users from their other ratings.

    Parameters
    ----------
    R : {sparse matrix, sparse array} of shape (n_users, n_items)
        Rating matrix, whose stored entries are the ratings.

    test_size : float, default=0.2
        Share of held-out ratings of each row, rounded; a row keeps at least one rating.

    random_state : int, RandomState or None, default=None
        Seed.

    Returns
    -------
    given, held_out : csr_array of shape (n_users, n_items)
        The ratings, split.

    Examples
    --------
    >>> import scipy.sparse as sp
    >>> from skrec.model_selection import split_rows
    >>> R = sp.csr_array([[5, 3, 4, 1], [0, 2, 0, 0]])
    >>> given, held_out = split_rows(R, 0.5, random_state=0)
    >>> given.toarray()
    array([[5., 0., 0., 1.],
           [0., 2., 0., 0.]])
    >>> held_out.toarray()
    array([[0., 3., 4., 0.],
           [0., 0., 0., 0.]])
    """
    if not isinstance(test_size, Real) or not 0 < test_size < 1:
        raise ValueError(
            f"test_size must be between 0 and 1, both excluded, got {test_size!r}."
        )
    R = check_rating_matrix(R, name="R")
    counts, rows = np.diff(R.indptr), row_numbers(R)
    order = np.lexsort([check_random_state(random_state).permutation(R.nnz), rows])
    rank = np.arange(R.nnz) - np.repeat(R.indptr[:-1], counts)
    held = np.minimum(np.round(test_size * counts), counts - 1)
    is_held = np.empty(R.nnz, bool)
    is_held[order] = rank < held[rows]
    parts = []
    for chosen in (~is_held, is_held):
        indptr = np.concatenate(
            [[0], np.cumsum(np.bincount(rows[chosen], minlength=R.shape[0]))]
        )
        parts.append(sp.csr_array((R.data[chosen], R.indices[chosen], indptr), R.shape))
    return parts[0], parts[1]


def check_times(groups: Any, name: str) -> NDArray[Any]:
    """Validate the times of ratings; datetimes become datetime64."""
    if groups is None:
        raise ValueError(
            f"{name} needs the times of the ratings: pass them as groups, for example "
            "cross_val_score(..., groups=times)."
        )
    series = pd.Series(groups).infer_objects()
    if isinstance(series.dtype, pd.DatetimeTZDtype):
        series = series.dt.tz_convert("UTC").dt.tz_localize(None)
    times = series.to_numpy()
    if times.dtype.kind not in "iufM":
        raise TypeError(
            "groups must be times, numbers or datetimes, got dtype "
            f"{times.dtype}: convert them, for example by pandas.to_datetime."
        )
    if times.dtype.kind in "iu":
        # Differences of small or unsigned integers would wrap around.
        times = times.astype(np.float64 if times.dtype == np.uint64 else np.int64)
    if pd.isna(times).any():
        raise ValueError("groups has missing times: leave out their ratings.")
    return times


def _gap_of(gap: Any, times: NDArray[Any]) -> Any:
    """Validate a gap between times."""
    if times.dtype.kind == "M":
        if isinstance(gap, Real) and gap != 0:
            raise TypeError(
                f"The times are datetimes, so gap must be a timedelta, got {gap!r}."
            )
        gap = pd.Timedelta(gap)
        if gap < pd.Timedelta(0):
            raise ValueError(f"gap must not be negative, got {gap}.")
        return gap.to_timedelta64()
    if not isinstance(gap, int | float | np.number) or not gap >= 0:
        raise ValueError(f"gap must be a number of at least 0, got {gap!r}.")
    return gap


def _codes(splitter: Any, X: Any) -> NDArray[np.int64]:
    """Numbers of the users and items of pairs."""
    if is_matrix(X):
        raise TypeError(
            f"{type(splitter).__name__} splits user-item pairs, but X is a matrix, "
            "whose samples are users: use KFold(shuffle=True)."
        )
    users, items = check_pairs(X)
    return np.column_stack([pd.factorize(users)[0], pd.factorize(items)[0]])


def _deal_groups(
    groups: NDArray[np.int64], n_splits: int, rng: Any, what: str
) -> NDArray[np.int64]:
    """Deal out groups to folds of equally many groups."""
    n = int(groups.max()) + 1
    if n < n_splits:
        raise ValueError(f"X has {n} {what}, fewer than n_splits={n_splits}.")
    return (rng.permutation(n) % n_splits)[groups]


def _check_count(number: Any, name: str, least: int) -> None:
    is_bool = isinstance(number, bool | np.bool_)
    if is_bool or not isinstance(number, Integral) or number < least:
        raise ValueError(
            f"{name} must be an integer of at least {least}, got {number!r}."
        )
