"""Display of the contributions to one prediction."""

from __future__ import annotations

from numbers import Integral
from typing import Any, Literal, Self

import pandas as pd
from sklearn.utils import check_scalar

from ._checks import axes_to_draw_on, check_recommender

# Characters of a label
_LONGEST = 40


class ExplanationDisplay:
    """Contributions to a predicted rating, as horizontal bars.

    The mean of the ratings is in the title, because it is much larger than what is
    added to it. Use `from_estimator` to create it. All parameters are stored as
    attributes.

    Parameters
    ----------
    contributions : Series
        Contributions by kind and name, as `explain` of a recommender returns them.

    Attributes
    ----------
    ax_ : matplotlib Axes
        Axes with the bars.

    figure_ : matplotlib Figure
        Figure of the axes.

    Examples
    --------
    >>> from skrec import BiasedMFRegressor
    >>> from skrec.datasets import make_ratings
    >>> from skrec.inspection import ExplanationDisplay
    >>> R = make_ratings(300, 20, density=0.15, random_state=0).R
    >>> model = BiasedMFRegressor(random_state=0).fit(R[:250])
    >>> display = ExplanationDisplay.from_estimator(model, R[[250]], 3)
    >>> display.ax_.get_title()
    '2.67 = mean 3.42 + contributions'
    >>> [label.get_text() for label in display.ax_.get_yticklabels()][:3]
    ['item bias', 'user bias', 'rated item 4']
    """

    def __init__(self, contributions: pd.Series) -> None:
        self.contributions = contributions

    @classmethod
    def from_estimator(
        cls,
        model: Any,
        user: Any,
        item: Any,
        *,
        by: Literal["user", "item"] = "user",
        item_text: str | None = None,
        n_bars: int = 10,
        ax: Any = None,
    ) -> Self:
        """Explain a prediction and draw the contributions.

        Parameters
        ----------
        model : recommender
            Fitted model.

        user : id, {sparse matrix, sparse array} of shape (1, n_items) or DataFrame
            Id of a user; or the ratings of a new user, as for `explain`.

        item : id
            Id of an item.

        by : {"user", "item"}, default="user"
            Side whose parts split the product of the factors, as for `explain`.

        item_text : str, default=None
            Text of the item to split, as for `explain`.

        n_bars : int, default=10
            Number of contributions to draw, as for `plot`.

        ax : matplotlib Axes, default=None
            Axes to draw on. None means those of a new figure.

        Returns
        -------
        display : ExplanationDisplay
            Display with the contributions.

        Raises
        ------
        NotFittedError
            If the model is not fitted.
        TypeError, ValueError
            If the model is not a recommender of skrec, or if another argument is
            invalid.
        """
        check_recommender(model)
        contributions = model.explain(user, item, by=by, item_text=item_text)
        return cls(contributions).plot(ax, n_bars=n_bars)

    def plot(self, ax: Any = None, *, n_bars: int = 10) -> Self:
        """Draw the contributions.

        Parameters
        ----------
        ax : matplotlib Axes, default=None
            Axes to draw on. None means those of a new figure.

        n_bars : int, default=10
            Number of contributions to draw, largest absolute values first. The last bar
            has the sum of all others.

        Returns
        -------
        display : ExplanationDisplay
            The display itself.

        Raises
        ------
        ImportError
            If matplotlib is not installed.
        TypeError, ValueError
            If `n_bars` is not a positive integer.
        """
        check_scalar(n_bars, "n_bars", Integral, min_val=1)
        ax = axes_to_draw_on(self, ax)
        is_mean = self.contributions.index.get_level_values("kind") == "mean"
        mean = self.contributions[is_mean].sum()
        parts = self.contributions[~is_mean].sort_values(key=abs, ascending=False)
        values = parts.tolist()[:n_bars]
        keys = parts.index.tolist()[:n_bars]
        labels = [" ".join(str(part) for part in key if part != "") for key in keys]
        if len(parts) > n_bars:
            values.append(parts.iloc[n_bars:].sum())
            labels.append(f"{len(parts) - n_bars} others")
        # Different parts may have the same label, so that labels are no positions.
        colors = ["C0" if value > 0 else "C1" for value in values]
        ax.barh(range(len(values)), values, color=colors)
        labels = [_cut(label) for label in labels]
        ax.set_yticks(range(len(values)), labels, parse_math=False)
        ax.invert_yaxis()
        ax.axvline(0, color="gray", linewidth=0.8)
        ax.set(
            xlabel="contribution, in units of the ratings",
            title=f"{mean + parts.sum():.2f} = mean {mean:.2f} + contributions",
        )
        self.ax_, self.figure_ = ax, ax.figure
        return self


def _cut(label: str) -> str:
    """Cut a label that would leave no room for the bars."""
    return label if len(label) <= _LONGEST else f"{label[: _LONGEST - 1]}…"
