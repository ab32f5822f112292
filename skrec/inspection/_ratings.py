"""Display of how ratings are distributed."""

from __future__ import annotations

from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from .._data.ratings import check_ratings
from .._sklearn_compat import check_matplotlib_support

# With more distinct ratings, a bar is an interval of ratings.
_MAX_BARS, _N_INTERVALS = 30, 20


class RatingDistributionDisplay:
    """Distribution of the ratings over values and over items.

    Use `from_ratings` to create it. All parameters are stored as attributes.

    Parameters
    ----------
    values : ndarray of shape (n_values,)
        Distinct ratings, ascending; or the centers of intervals of ratings.

    counts : ndarray of shape (n_values,)
        Number of ratings with each value.

    item_counts : ndarray of shape (n_items,)
        Number of ratings of each rated item, descending.

    top_share : float
        Share of the ratings that the tenth of the items with the most ratings has
        (rounded up to whole items), between 0 and 1.

    Attributes
    ----------
    ax_ : ndarray of two matplotlib Axes
        Axes with the values, and axes with the items.

    figure_ : matplotlib Figure
        Figure of the axes.

    Examples
    --------
    >>> from skrec.datasets import make_ratings
    >>> from skrec.inspection import RatingDistributionDisplay
    >>> R = make_ratings(200, 80, random_state=0).R
    >>> display = RatingDistributionDisplay.from_ratings(R)
    >>> dict(zip(display.values.tolist(), display.counts.tolist()))
    {1.0: 75, 2.0: 375, 3.0: 957, 4.0: 1139, 5.0: 654}
    >>> print(f"The top tenth of the items has {display.top_share:.0%} of the ratings")
    The top tenth of the items has 33% of the ratings
    """

    def __init__(
        self,
        values: NDArray[np.float64],
        counts: NDArray[np.int64],
        item_counts: NDArray[np.int64],
        top_share: float,
    ) -> None:
        self.values = values
        self.counts = counts
        self.item_counts = item_counts
        self.top_share = top_share

    @classmethod
    def from_ratings(cls, X: Any, y: Any = None, *, ax: Any = None) -> Self:
        """Count ratings and draw the counts.

        Parameters
        ----------
        X : {array-like, DataFrame} of shape (n_ratings, 2) or {sparse matrix, sparse \
array} of shape (n_users, n_items)
            User and item ids; or a matrix whose stored entries are the ratings.

        y : array-like of shape (n_ratings,), sparse of shape (n_users, n_items) or None
            Ratings of the pairs. With a matrix, further ratings, or None.

        ax : array-like of two matplotlib Axes, default=None
            Axes to draw on. None means those of a new figure.

        Returns
        -------
        display : RatingDistributionDisplay
            Display with `values`, `counts`, `item_counts` and `top_share`. More than 30
            distinct ratings are counted in 20 intervals of equal width.

        Raises
        ------
        TypeError, ValueError
            If the ratings are invalid, or if `ax` does not have two axes.
        """
        ratings = check_ratings(X, y)
        values, counts = np.unique(ratings.values, return_counts=True)
        if len(values) > _MAX_BARS:
            counts, edges = np.histogram(ratings.values, bins=_N_INTERVALS)
            values = (edges[:-1] + edges[1:]) / 2
        # A matrix may have columns without ratings, pairs have no such items.
        item_counts = np.bincount(ratings.indices)
        item_counts = -np.sort(-item_counts[item_counts > 0])
        n_top = -(-len(item_counts) // 10)
        top_share = float(item_counts[:n_top].sum() / item_counts.sum())
        return cls(values, counts, item_counts, top_share).plot(ax)

    def plot(self, ax: Any = None) -> Self:
        """Draw the counts.

        Parameters
        ----------
        ax : array-like of two matplotlib Axes, default=None
            Axes to draw on. None means those of a new figure.

        Returns
        -------
        display : RatingDistributionDisplay
            The display itself.

        Raises
        ------
        ImportError
            If matplotlib is not installed.
        ValueError
            If `ax` does not have two axes.
        """
        check_matplotlib_support("RatingDistributionDisplay.plot")
        if ax is None:
            import matplotlib.pyplot as plt

            ax = plt.subplots(1, 2, figsize=(9, 3.5), layout="constrained")[1]
        axes = np.asarray(ax, dtype=object)
        if axes.shape != (2,):
            raise ValueError(
                "ax must have two axes, for the ratings and for the items, got shape "
                f"{axes.shape}: make them by plt.subplots(1, 2)."
            )
        gap = np.diff(self.values).min() if len(self.values) > 1 else 1.0
        axes[0].bar(self.values, self.counts, width=0.9 * gap)
        axes[0].set(xlabel="rating", ylabel="number of ratings")
        n_items = len(self.item_counts)
        n_top = -(-n_items // 10)
        places = np.arange(1, n_items + 1)
        axes[1].fill_between(places, self.item_counts, color="C0", alpha=0.3)
        axes[1].plot(places, self.item_counts, color="C0")
        axes[1].axvline(n_top, color="gray", linestyle="--")
        axes[1].set(
            xlabel="items, most rated first",
            ylabel="number of ratings",
            title=f"top tenth of the items: {self.top_share:.0%} of the ratings",
            ylim=(0, None),
        )
        self.ax_, self.figure_ = axes, axes[0].figure
        return self
