"""Generator of synthetic ratings, and of texts that depend on the item factors."""

from numbers import Integral, Real
from typing import Any

import numpy as np
import scipy.sparse as sp
from numpy.typing import ArrayLike, NDArray
from sklearn.utils import Bunch, check_random_state

from .._sklearn_compat import Interval
from ._base import validated_parameters
from ._synthetic_texts import draw_texts

# Fractions of the range of levels. For 1 to 5 stars they give a mean of 3.5 and
# standard deviations of 0.35, 0.45 and 0.8, close to those of MovieLens.
_MEAN, _USER_BIAS, _ITEM_BIAS, _INTERACTION = 0.625, 0.0875, 0.1125, 0.2
# Multiple of skew: in MovieLens, numbers of ratings vary more by item than by user.
_ITEM_SKEW = 1.6
_BLOCK = 1 << 17  # ratings computed at a time, to bound the copies of their factors


@validated_parameters(
    {
        "n_users": [Interval(Integral, 1, None, closed="left")],
        "n_items": [Interval(Integral, 1, None, closed="left")],
        "density": [Interval(Real, 0.0, 1.0, closed="right")],
        "n_factors": [Interval(Integral, 1, None, closed="left")],
        "noise": [Interval(Real, 0.0, None, closed="left")],
        "text_words": [Interval(Integral, 1, None, closed="left")],
        "skew": [Interval(Real, 0.0, None, closed="left")],
        "levels": ["array-like"],
        "random_state": ["random_state"],
    }
)
def make_ratings(
    n_users: int = 200,
    n_items: int = 100,
    *,
    density: float = 0.2,
    n_factors: int = 5,
    noise: float = 0.5,
    text_words: int = 30,
    skew: float = 1.0,
    levels: ArrayLike = (1, 2, 3, 4, 5),
    random_state: int | np.random.RandomState | None = None,
) -> Bunch:
    r"""Generate ratings from a factor model, and texts from the item factors.

    Users and items differ in their numbers of ratings, their biases and their latent
    factors. Texts consist of invented words. The frequencies of some words depend on
    the factors of the item, so a text has part of the information in the ratings.

    Parameters
    ----------
    n_users : int, default=200
        Number of users, the rows of `R`.

    n_items : int, default=100
        Number of items, the columns of `R`.

    density : float, default=0.2
        Proportion of the cells of `R` that have a rating, in (0, 1]. There are exactly
        ``round(density * n_users * n_items)`` ratings.

    n_factors : int, default=5
        Number of latent factors.

    noise : float, default=0.5
        Standard deviation of the normal noise of a rating, before rounding, in the
        units of `levels`.

    text_words : int, default=30
        Mean number of words in a text. Every text has at least one word.

    skew : float, default=1.0
        Inequality of the numbers of ratings. Users and items have log-normal weights:
        the logarithm of a weight has this standard deviation for users, and 1.6 times
        this standard deviation for items. 0 means equal weights. 1 is similar to
        MovieLens, where few users and items have most of the ratings.

    levels : array-like of shape (n_levels,), default=(1, 2, 3, 4, 5)
        Possible ratings, in increasing order. A rating is its unrounded value rounded
        to the nearest level.

    random_state : int, RandomState instance or None, default=None
        Random number generator. Pass an int for the same result in every call.

    Returns
    -------
    dataset : :class:`~sklearn.utils.Bunch`
        Dictionary-like object, with the following attributes.

        R : csr_array of shape (n_users, n_items)
            Ratings in float64. Every stored entry is a rating. There are no empty rows
            and columns if there are enough ratings.
        R_expected : csr_array of shape (n_users, n_items)
            Values of the same entries before noise and rounding.
        item_texts : list of str of length n_items
            Texts in the order of the columns.
        user_factors, item_factors : ndarray of shape (n_users or n_items, n_factors)
            Factors p and q of the model in the Notes.
        user_biases, item_biases : ndarray of shape (n_users,) and (n_items,)
            Biases b and c of the model.
        mean : float
            Mean of the model.

    Raises
    ------
    ValueError
        If a parameter is out of range, or if `density` is so low that there are no
        ratings.

    See Also
    --------
    fetch_movielens : Load ratings by real users.

    Notes
    -----
    Before rounding, the rating of item i by user u is

    .. math:: \mu + b_u + c_i + p_u^T q_i + \epsilon_{ui}

    with the mean :math:`\mu`, normal biases b and c, normal factors p and q, and
    normal noise :math:`\epsilon_{ui}` of standard deviation `noise`.

    With probability 0.3, a word of a text is a background word drawn from Zipf's law.
    Otherwise it belongs to one of 2 * n_factors topics, one for each sign of each
    factor. The probability of a topic is proportional to the exponential of 1.5 times
    the item's factor, in standard deviations and with the sign of the topic.

    The rated cells do not depend on the values of the ratings. The number of ratings of
    a user is proportional to the user's weight, but at most a proportion
    ``(1 + density) / 2`` of the items. The items of a user are drawn with probabilities
    proportional to the weights of the items, up to 1. Then each item without ratings
    takes over a rating of another item. Time and memory grow with the number of
    ratings, not with the number of cells.

    Examples
    --------
    >>> from skrec.datasets import make_ratings
    >>> dataset = make_ratings(n_users=50, n_items=20, random_state=0)
    >>> dataset.R.shape, dataset.R.nnz
    ((50, 20), 200)
    >>> sorted(set(dataset.R.data.tolist()))
    [1.0, 2.0, 3.0, 4.0, 5.0]
    >>> len(dataset.item_texts)
    20
    """
    levels = _check_levels(levels)
    n_ratings = _check_n_ratings(density, n_users, n_items)
    rng = check_random_state(random_state)

    rows, columns = _draw_cells(n_users, n_items, n_ratings, skew, rng)
    span = float(levels[-1] - levels[0])
    model = _draw_model(n_users, n_items, n_factors, span, rng)
    model["mean"] = float(levels[0] + _MEAN * span)
    expected = _expected_ratings(rows, columns, **model)
    noisy = expected + noise * rng.standard_normal(n_ratings)
    ratings = levels[np.searchsorted((levels[1:] + levels[:-1]) / 2, noisy)]

    indptr = np.searchsorted(rows, np.arange(n_users + 1))
    # Parts of scikit-learn do not accept sparse matrices with 64-bit indices.
    fits = max(n_ratings, n_items) <= np.iinfo(np.int32).max
    index_type = np.int32 if fits else np.int64
    columns, indptr = columns.astype(index_type), indptr.astype(index_type)
    R = sp.csr_array((ratings, columns, indptr), shape=(n_users, n_items))
    R_expected = R.copy()
    R_expected.data = expected
    return Bunch(
        R=R,
        R_expected=R_expected,
        item_texts=draw_texts(model["item_factors"], text_words, rng),
        **model,
    )


def _check_levels(values: ArrayLike) -> NDArray[np.float64]:
    levels = np.asarray(values, dtype=np.float64)
    if levels.ndim != 1 or len(levels) < 2 or not np.all(np.isfinite(levels)):
        raise ValueError(
            "levels must be a sequence of at least two finite numbers, got "
            f"{levels.tolist()}."
        )
    if np.any(np.diff(levels) <= 0):
        raise ValueError(
            f"levels must be in strictly increasing order, got {levels.tolist()}. Sort "
            "them and remove duplicates."
        )
    return levels


def _check_n_ratings(density: float, n_users: int, n_items: int) -> int:
    n_ratings = round(density * n_users * n_items)
    if n_ratings == 0:
        raise ValueError(
            f"density={density} gives no ratings for {n_users} users and {n_items} "
            f"items. It must be at least {1 / (n_users * n_items):.3g}."
        )
    return n_ratings


# -- who rates what ------------------------------------------------------------------


def _draw_cells(
    n_users: int,
    n_items: int,
    n_ratings: int,
    skew: float,
    rng: np.random.RandomState,
) -> tuple[NDArray[Any], NDArray[Any]]:
    """Draw distinct cells; return their rows and columns, sorted by row, then column.

    A cell is encoded as row * n_items + column.
    """
    # Without this limit, the most active users would rate nearly all items, and the
    # items would not differ in their numbers of ratings.
    most = -(-(n_users * n_items + n_ratings) // (2 * n_users))
    counts = _allocate(n_ratings, _draw_weights(n_users, skew, rng), most)
    cells = _draw_by_weight(counts, _draw_weights(n_items, _ITEM_SKEW * skew, rng), rng)
    cells = _complete(cells, counts, n_items, rng)
    if n_ratings >= n_items:
        cells = _cover(cells, n_items, rng)
    return np.divmod(cells, n_items)


def _draw_weights(
    n: int, skew: float, rng: np.random.RandomState
) -> NDArray[np.float64]:
    logarithms = skew * rng.standard_normal(n)
    # The lower bound keeps sums of weights accurate if skew is extreme.
    return np.maximum(np.exp(logarithms - logarithms.max()), 1e-12)


def _sort_weights(
    weights: NDArray[np.float64],
) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any], NDArray[Any]]:
    """Prepare shares that are proportional to weights, but at most 1.

    Returns the order of decreasing weights, the weights in this order, the sum of each
    weight and all later weights, and for each weight the total above which its share is
    1. If the first m shares are 1, the others are (total - m) * weight / sum from m.
    """
    order = np.argsort(-weights, kind="stable")
    weights = weights[order]
    sums = np.cumsum(weights[::-1])[::-1]
    return order, weights, sums, np.arange(len(weights)) + sums / weights


def _allocate(
    total: int, weights: NDArray[np.float64], capacity: int
) -> NDArray[np.int64]:
    """Split `total` into integers nearly proportional to `weights`, up to `capacity`.

    The integers are at least 1 if `total` suffices.
    """
    n = len(weights)
    minimum = int(total >= n)
    total, capacity = total - minimum * n, capacity - minimum
    counts = np.full(n, minimum)
    if total == 0:
        return counts
    order, weights, sums, limits = _sort_weights(weights)
    n_full = np.searchsorted(limits, total / capacity)
    shares = np.full(n, float(capacity))
    rest = (total - capacity * n_full) * weights[n_full:] / sums[n_full : n_full + 1]
    shares[n_full:] = np.minimum(rest, capacity)

    whole = np.floor(shares).astype(np.int64)
    most_cut = np.argsort(whole - shares, kind="stable")[: total - whole.sum()]
    whole[most_cut] += 1
    counts[order] += whole
    return counts


def _draw_by_weight(
    counts: NDArray[np.int64],
    weights: NDArray[np.float64],
    rng: np.random.RandomState,
) -> NDArray[np.int64]:
    """Draw `counts` items for each user, with probabilities proportional to `weights`.

    The shares of the items, laid end to end, form a line whose length is the user's
    count. One item is drawn from each section of length 1. Only an item that lies
    across a border can be drawn twice; it is kept once.
    """
    order, _, sums, limits = _sort_weights(weights)
    n_items = len(weights)
    n_certain = np.searchsorted(limits, counts)
    users = np.repeat(np.arange(len(counts)), counts)
    sections = np.arange(len(users)) - (np.cumsum(counts) - counts)[users]

    ranks = sections.copy()
    drawn = np.flatnonzero(sections >= n_certain[users])
    m = n_certain[users[drawn]]
    length = (counts - n_certain)[users[drawn]]
    # A random shift for each user, so that no two items always share a section.
    shift = rng.random_sample(len(counts))[users[drawn]]
    place = (sections[drawn] - m + shift + rng.random_sample(len(drawn))) % length
    above = sums[m] * (1 - place / length)
    ranks[drawn] = n_items - 1 - np.searchsorted(sums[::-1], above)
    cells = np.sort(users * n_items + order[ranks])
    return cells[np.diff(cells, prepend=-1) > 0]


def _complete(
    cells: NDArray[np.int64],
    counts: NDArray[np.int64],
    n_items: int,
    rng: np.random.RandomState,
) -> NDArray[np.int64]:
    """Add ratings of unrated items for users with fewer ratings than `counts`.

    A user's unrated items, in order, are split into one range for each missing rating.
    One item is drawn from each range, so that all items drawn are distinct.
    """
    rated_by, items = np.divmod(cells, n_items)
    found = np.bincount(rated_by, minlength=len(counts))
    lacking, n_free = counts - found, n_items - found
    first = np.cumsum(found) - found

    users = np.repeat(np.arange(len(counts)), lacking)
    j = np.arange(len(users)) - (np.cumsum(lacking) - lacking)[users]
    low = j * n_free[users] // lacking[users]
    high = (j + 1) * n_free[users] // lacking[users]
    drawn = low + (rng.random_sample(len(users)) * (high - low)).astype(np.int64)

    # The r-th unrated item follows all rated items that have at most r unrated items
    # before them.
    stride = n_items + 1
    n_free_before = items - (np.arange(len(cells)) - first[rated_by])
    n_before = np.searchsorted(
        rated_by * stride + n_free_before, users * stride + drawn, side="right"
    )
    added = users * n_items + drawn + n_before - first[users]
    return np.sort(np.concatenate([cells, added]))


def _cover(
    cells: NDArray[np.int64], n_items: int, rng: np.random.RandomState
) -> NDArray[np.int64]:
    """Move one rating to each empty column without emptying another column."""
    items = cells % n_items
    kept = np.full(n_items, -1)
    kept[items] = np.arange(len(cells))
    empty = np.flatnonzero(kept < 0)
    movable = np.delete(np.arange(len(cells)), kept[kept >= 0])
    moved = rng.choice(movable, len(empty), replace=False)
    cells[moved] += rng.permutation(empty) - items[moved]
    return np.sort(cells)


# -- ratings -------------------------------------------------------------------------


def _draw_model(
    n_users: int,
    n_items: int,
    n_factors: int,
    span: float,
    rng: np.random.RandomState,
) -> dict[str, Any]:
    # The inner product of two such vectors has standard deviation _INTERACTION * span.
    scale = np.sqrt(_INTERACTION * span / np.sqrt(n_factors))
    return {
        "user_factors": scale * rng.standard_normal((n_users, n_factors)),
        "item_factors": scale * rng.standard_normal((n_items, n_factors)),
        "user_biases": _USER_BIAS * span * rng.standard_normal(n_users),
        "item_biases": _ITEM_BIAS * span * rng.standard_normal(n_items),
    }


def _expected_ratings(
    rows: NDArray[np.int64],
    columns: NDArray[np.int64],
    user_factors: NDArray[np.float64],
    item_factors: NDArray[np.float64],
    user_biases: NDArray[np.float64],
    item_biases: NDArray[np.float64],
    mean: float,
) -> NDArray[np.float64]:
    expected = mean + user_biases[rows] + item_biases[columns]
    for start in range(0, len(rows), _BLOCK):
        block = slice(start, start + _BLOCK)
        expected[block] += np.einsum(
            "nk,nk->n", user_factors[rows[block]], item_factors[columns[block]]
        )
    return expected
