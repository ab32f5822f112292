"""What the displays have in common: their axes, and which models they accept."""

from __future__ import annotations

from typing import Any

from sklearn.utils.validation import check_is_fitted

from .._base import BaseRecommender
from .._sklearn_compat import check_matplotlib_support


def axes_to_draw_on(display: Any, ax: Any) -> Any:
    """Return the axes given, or those of a new figure."""
    check_matplotlib_support(f"{type(display).__name__}.plot")
    if ax is not None:
        return ax
    import matplotlib.pyplot as plt

    return plt.subplots(layout="constrained")[1]


def check_recommender(model: Any) -> None:
    """Raise an error if a model is not a fitted recommender."""
    if not isinstance(model, BaseRecommender):
        raise TypeError(
            f"model must be a recommender of skrec, got {type(model).__name__}: take "
            "it out of the pipeline or the search, for example by best_estimator_."
        )
    check_is_fitted(model)
