"""Synthetic ratings and texts that share their factors."""

from numbers import Integral, Real

import numpy as np
import scipy.sparse as sp
from sklearn.utils import Bunch, check_random_state
from sklearn.utils._param_validation import Interval, validate_params

from skrec.datasets._synthetic_texts import draw_texts

# Shares of the range of levels. On stars from 1 to 5 they amount to a mean of 3.5 and
# standard deviations of 0.35, 0.45 and 0.8, close to what one finds in MovieLens.
_MEAN, _USER_BIAS, _ITEM_BIAS, _INTERACTION = 0.625, 0.0875, 0.1125, 0.2
# Times skew: in MovieLens the ratings of items differ more than those of users.
_ITEM_SKEW = 1.6
_BLOCK = 1 << 17  # ratings computed at a time: bounds the copies of their factors


@validate_params(
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
    },
    prefer_skip_nested_validation=True,
)
def make_ratings(
    n_users=200,
    n_items=100,
    *,
    density=0.2,
    n_factors=5,
    noise=0.5,
    text_words=30,
    skew=1.0,
    levels=(1, 2, 3, 4, 5),
    random_state=None,
):
    r"""Draw ratings from a factor model, and texts from the factors of the items.

    Users and items differ in how much they rate and are rated, in how well, and in
    their factors. The texts are made of invented words, some of which get more
    frequent with an item's factors: texts tell part of what ratings tell.

    Parameters
    ----------
    n_users : int, default=200
        Number of users, the rows of `R`.

    n_items : int, default=100
        Number of items, the columns of `R`.

    density : float, default=0.2
        Share of the cells that hold a rating, in (0, 1]. There are exactly
        ``round(density * n_users * n_items)`` ratings.

    n_factors : int, default=5
        Number of factors of users and items.

    noise : float, default=0.5
        Standard deviation of the normal noise on a rating, before rounding and in the
        units of `levels`.

    text_words : int, default=30
        Mean number of words in a text. Every text has at least one.

    skew : float, default=1.0
        How unequal activity is: the logarithms of the weights with which users rate
        are normal with this standard deviation, those of the weights with which items
        are rated with 1.6 times as much. 0 means equal weights; 1 is about what
        MovieLens has, where few users and items have most of the ratings.

    levels : array-like of shape (n_levels,), default=(1, 2, 3, 4, 5)
        The ratings that users can give, in increasing order. A rating is the level
        next to its unrounded value.

    random_state : int, RandomState instance or None, default=None
        Determines the random numbers. Pass an int for the same result in every call.

    Returns
    -------
    dataset : :class:`~sklearn.utils.Bunch`
        Dictionary-like object, with the following attributes.

        R : csr_array of shape (n_users, n_items)
            The ratings in float64. Every stored entry is a rating. No row and no
            column is empty, as far as there are enough ratings.
        R_expected : csr_array of shape (n_users, n_items)
            For the same entries, the values before noise and rounding.
        item_texts : list of str of length n_items
            Texts in the order of the columns.
        user_factors, item_factors : ndarray of shape (n_users or n_items, n_factors)
            The factors p and q of the model in the Notes.
        user_biases, item_biases : ndarray of shape (n_users,) and (n_items,)
            Its biases b and c.
        mean : float
            Its mean.

    Raises
    ------
    ValueError
        If a parameter is out of its range, or if `density` is so low that there is
        no rating.

    See Also
    --------
    fetch_movielens : Load ratings by real users.

    Notes
    -----
    The value of user u's rating of item i before rounding is

    .. math:: \mu + b_u + c_i + p_u^T q_i + \epsilon_{ui}

    with the mean :math:`\mu`, normal biases b and c, normal factors p and q, and
    normal noise of standard deviation `noise`.

    A word of a text is either, with probability 0.3, a background word drawn by
    Zipf's law, or it belongs to one of 2 * n_factors topics, one for either sign of
    every factor. The probability of a topic is proportional to the exponential of 1.5
    times the item's factor, in standard deviations and with the topic's sign.

    Which cells hold a rating does not depend on the values. How many ratings a user
    gives is proportional to the user's weight, but no user rates more than the share
    ``(1 + density) / 2`` of the items; which items these are is drawn with
    probabilities proportional to the items' weights, up to 1. Then each item without
    any takes over a rating of another. Time and memory grow with the number of
    ratings, not with that of cells.

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
    model = _draw_model(n_users, n_items, n_factors, levels[-1] - levels[0], rng)
    model["mean"] = float(levels[0] + _MEAN * (levels[-1] - levels[0]))
    expected = _expected_ratings(rows, columns, **model)
    noisy = expected + noise * rng.standard_normal(n_ratings)
    ratings = levels[np.searchsorted((levels[1:] + levels[:-1]) / 2, noisy)]

    indptr = np.searchsorted(rows, np.arange(n_users + 1))
    # Some of scikit-learn takes no sparse matrix with 64-bit indices.
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


def _check_levels(levels):
    levels = np.asarray(levels, dtype=np.float64)
    if levels.ndim != 1 or len(levels) < 2 or not np.all(np.isfinite(levels)):
        raise ValueError(
            "levels must be a sequence of at least two finite numbers, got "
            f"{levels.tolist()}."
        )
    if np.any(np.diff(levels) <= 0):
        raise ValueError(
            f"levels must be in strictly increasing order, got {levels.tolist()}. Sort "
            "them and leave out repeated ones."
        )
    return levels


def _check_n_ratings(density, n_users, n_items):
    n_ratings = round(density * n_users * n_items)
    if n_ratings == 0:
        raise ValueError(
            f"density={density} leaves no rating for {n_users} users and {n_items} "
            f"items. It must be at least {1 / (n_users * n_items):.3g}."
        )
    return n_ratings


# -- who rates what ------------------------------------------------------------------


def _draw_cells(n_users, n_items, n_ratings, skew, rng):
    """Draw distinct cells; return their rows and columns, sorted by row, then column.

    A cell is coded as row * n_items + column.
    """
    # No user rates nearly everything, or all items would be rated about as often.
    most = -(-(n_users * n_items + n_ratings) // (2 * n_users))
    counts = _allocate(n_ratings, _draw_weights(n_users, skew, rng), most)
    cells = _draw_by_weight(counts, _draw_weights(n_items, _ITEM_SKEW * skew, rng), rng)
    cells = _complete(cells, counts, n_items, rng)
    if n_ratings >= n_items:
        cells = _cover(cells, n_items, rng)
    return np.divmod(cells, n_items)


def _draw_weights(n, skew, rng):
    logarithms = skew * rng.standard_normal(n)
    # The floor keeps sums of weights meaningful where skew is extreme.
    return np.maximum(np.exp(logarithms - logarithms.max()), 1e-12)


def _sort_weights(weights):
    """Prepare shares that are proportional to weights, up to the share of 1.

    Returns the order of decreasing weights, the weights in that order, their sums from
    each to the last and, for each, the total beyond which its share is 1: if the first
    m shares are 1, the others are (total - m) * weight / sum from m.
    """
    order = np.argsort(-weights, kind="stable")
    weights = weights[order]
    sums = np.cumsum(weights[::-1])[::-1]
    return order, weights, sums, np.arange(len(weights)) + sums / weights


def _allocate(total, weights, capacity):
    """Integers of sum `total`, nearly proportional to `weights`, up to `capacity`.

    They are at least 1 if `total` suffices.
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


def _draw_by_weight(counts, weights, rng):
    """Draw so many items for each user, with probabilities proportional to weights.

    The shares of the items, laid end to end, are a line as long as the user's count:
    one item is drawn from each of its sections of length 1. Only an item that lies
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
    # Without a shift of each user's own, the same pairs of items would share a section.
    shift = rng.random_sample(len(counts))[users[drawn]]
    place = (sections[drawn] - m + shift + rng.random_sample(len(drawn))) % length
    above = sums[m] * (1 - place / length)
    ranks[drawn] = n_items - 1 - np.searchsorted(sums[::-1], above)
    cells = np.sort(users * n_items + order[ranks])
    return cells[np.diff(cells, prepend=-1) > 0]


def _complete(cells, counts, n_items, rng):
    """Give every user who lacks ratings as many of the items not rated yet.

    The user's free items, in their order, are cut into as many ranges as ratings are
    lacking, and one item is drawn from each: distinct without comparing draws.
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

    # The r-th free item comes after all rated ones that at most r free items precede.
    stride = n_items + 1
    n_free_before = items - (np.arange(len(cells)) - first[rated_by])
    n_before = np.searchsorted(
        rated_by * stride + n_free_before, users * stride + drawn, side="right"
    )
    added = users * n_items + drawn + n_before - first[users]
    return np.sort(np.concatenate([cells, added]))


def _cover(cells, n_items, rng):
    """Move as many ratings as there are empty columns, emptying no other column."""
    items = cells % n_items
    kept = np.full(n_items, -1)
    kept[items] = np.arange(len(cells))
    empty = np.flatnonzero(kept < 0)
    movable = np.delete(np.arange(len(cells)), kept[kept >= 0])
    moved = rng.choice(movable, len(empty), replace=False)
    cells[moved] += rng.permutation(empty) - items[moved]
    return np.sort(cells)


# -- ratings -------------------------------------------------------------------------


def _draw_model(n_users, n_items, n_factors, span, rng):
    # The product of two such factors, summed over all, has the wanted deviation.
    scale = np.sqrt(_INTERACTION * span / np.sqrt(n_factors))
    return {
        "user_factors": scale * rng.standard_normal((n_users, n_factors)),
        "item_factors": scale * rng.standard_normal((n_items, n_factors)),
        "user_biases": _USER_BIAS * span * rng.standard_normal(n_users),
        "item_biases": _ITEM_BIAS * span * rng.standard_normal(n_items),
    }


def _expected_ratings(
    rows, columns, user_factors, item_factors, user_biases, item_biases, mean
):
    expected = mean + user_biases[rows] + item_biases[columns]
    for start in range(0, len(rows), _BLOCK):
        block = slice(start, start + _BLOCK)
        expected[block] += np.einsum(
            "nk,nk->n", user_factors[rows[block]], item_factors[columns[block]]
        )
    return expected
