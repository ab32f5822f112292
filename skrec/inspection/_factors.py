"""Display of the factors of items."""

from __future__ import annotations

from collections.abc import Mapping
from numbers import Integral
from typing import Any, Self

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from sklearn.decomposition import PCA
from sklearn.utils import check_scalar

from .._core.device import own_settings
from ._checks import axes_to_draw_on, check_recommender


class FactorMapDisplay:
    """Map of the items: the first two principal components of their factors.

    Use `from_estimator` to create it. All parameters are stored as attributes.

    Parameters
    ----------
    coordinates : DataFrame of shape (n_items, 2)
        Principal components of the factors of each item. The index has the item ids.

    labels : Series of shape (n_labels,)
        Names to draw. The index has the item ids.

    explained_variance_ratio : ndarray of shape (2,)
        Share of the variance of the factors in each component, between 0 and 1.

    Attributes
    ----------
    ax_ : matplotlib Axes
        Axes with the items.

    figure_ : matplotlib Figure
        Figure of the axes.

    Examples
    --------
    >>> from skrec import BiasedMFRegressor
    >>> from skrec.datasets import make_ratings
    >>> from skrec.inspection import FactorMapDisplay
    >>> R = make_ratings(500, 200, random_state=0).R
    >>> model = BiasedMFRegressor(random_state=0).fit(R)
    >>> names = {item: f"film {item}" for item in range(200)}
    >>> display = FactorMapDisplay.from_estimator(model, names, n_names=3)
    >>> display.labels.tolist()
    ['film 189', 'film 186', 'film 60']
    >>> print(f"{display.explained_variance_ratio.sum():.0%} of the variance")
    45% of the variance
    """

    def __init__(
        self,
        coordinates: pd.DataFrame,
        labels: pd.Series,
        explained_variance_ratio: NDArray[np.float64],
    ) -> None:
        self.coordinates = coordinates
        self.labels = labels
        self.explained_variance_ratio = explained_variance_ratio

    @classmethod
    def from_estimator(
        cls,
        model: Any,
        names: Mapping[Any, Any] | pd.Series | None = None,
        n_names: int = 20,
        *,
        ax: Any = None,
    ) -> Self:
        """Compute the principal components and draw the map.

        Parameters
        ----------
        model : recommender
            Fitted model with at least two factors.

        names : mapping or Series, default=None
            Name of each item, by its id. None, and items without a name, mean the ids.

        n_names : int, default=20
            Number of items with a name in the map: those with the most ratings.

        ax : matplotlib Axes, default=None
            Axes to draw on. None means those of a new figure.

        Returns
        -------
        display : FactorMapDisplay
            Display with all items of which the model knows ratings, a text or features.

        Raises
        ------
        NotFittedError
            If the model is not fitted.
        TypeError, ValueError
            If the model is not a recommender of skrec, if it has fewer than two factors
            or items, or if another argument is invalid.
        """
        check_recommender(model)
        check_scalar(n_names, "n_names", Integral, min_val=0)
        if not (names is None or isinstance(names, Mapping | pd.Series)):
            raise TypeError(
                "names must be a mapping or a Series from item id to name, got "
                f"{type(names).__name__}."
            )
        vectors, is_modeled = _item_vectors(model)
        vectors, items = vectors[is_modeled], model.items_[is_modeled]
        if min(vectors.shape) < 2:
            raise ValueError(
                f"model has {vectors.shape[1]} factors of {len(items)} items, but a "
                "map needs at least two of each."
            )
        pca = PCA(n_components=2).fit(vectors)
        coordinates = pd.DataFrame(pca.transform(vectors), index=pd.Index(items))
        counts = np.bincount(model._seen.indices, minlength=len(is_modeled))
        order = np.argsort(-counts[is_modeled], kind="stable")[:n_names]
        known = {} if names is None else dict(names)
        texts = [str(known.get(item, item)) for item in items[order].tolist()]
        labels = pd.Series(texts, pd.Index(items[order]), dtype=object)
        return cls(coordinates, labels, pca.explained_variance_ratio_).plot(ax)

    def plot(self, ax: Any = None) -> Self:
        """Draw the map.

        Parameters
        ----------
        ax : matplotlib Axes, default=None
            Axes to draw on. None means those of a new figure.

        Returns
        -------
        display : FactorMapDisplay
            The display itself.

        Raises
        ------
        ImportError
            If matplotlib is not installed.
        """
        ax = axes_to_draw_on(self, ax)
        ax.scatter(*self.coordinates.to_numpy().T, s=8, alpha=0.5)
        at = self.coordinates.loc[self.labels.index].to_numpy()
        for place, text in zip(at, self.labels, strict=True):
            # A dollar sign would start a formula.
            ax.annotate(text, place, fontsize="small", parse_math=False)
        first, second = self.explained_variance_ratio
        ax.set(
            xlabel=f"first principal component ({first:.0%} of the variance)",
            ylabel=f"second principal component ({second:.0%})",
        )
        self.ax_, self.figure_ = ax, ax.figure
        return self


@own_settings()
def _item_vectors(model: Any) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Return the vectors of all items, and which items the model knows."""
    predictor = model._predictor()
    vectors = torch.as_tensor(predictor.model.factors("item"))
    return vectors.cpu().numpy().astype(np.float64), predictor.is_modeled
