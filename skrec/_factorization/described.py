"""Items that are known from a description, a text or features, and not from ratings."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import scipy.sparse as sp

from .._core.collectives import ALONE, Group
from .._data.ratings import PRIOR_RATINGS
from .._explanation import PartGroup, Parts
from .._prediction import Case
from .models import FactorModel, FactorState

# Terms of the series for the number of items that hardly anybody chooses.
_N_TERMS = 20


class Distances:
    """Differences between item vectors and the predictions from their descriptions.

    Users rate items that they chose, so that their ratings are higher on average than
    the descriptions alone predict. For items without ratings, the mean difference over
    the items that a user has rated corrects this, times the probability that a rating
    of such an item is one of a new item; see `probability_of_new`.

    Parameters
    ----------
    fitted : object
        Estimator, or an object with its attributes.

    described_vectors : ndarray of shape (n_items, n_factors + 1)
        Factors and bias of each item that its description predicts. They are compared
        with each sample if `item_factors_` are several samples side by side.

    group : Group
        Ranks that have the users.
    """

    def __init__(
        self, fitted: Any, described_vectors: np.ndarray, group: Group = ALONE
    ):
        vectors = np.column_stack([fitted.item_factors_, fitted.item_biases_])
        factors, bias = described_vectors[:, :-1], described_vectors[:, -1]
        n_samples = fitted.item_factors_.shape[1] // factors.shape[1]
        described_vectors = np.column_stack([np.tile(factors, n_samples), bias])
        is_compared = fitted._is_described & fitted._is_rated
        self.is_compared = is_compared.astype(vectors.dtype)
        vectors = vectors - described_vectors
        self.vectors = vectors * self.is_compared[:, np.newaxis]
        counts = np.bincount(fitted._seen.indices, minlength=len(vectors))
        counts = group.total(counts)
        n_cold = int((fitted._is_described & ~fitted._is_rated).sum())
        self.probability = probability_of_new(counts[counts > 0], n_cold)

    def means(self, rows: sp.csr_array) -> np.ndarray:
        """Mean differences over the items of each row, shrunk toward 0.

        Parameters
        ----------
        rows : csr_array of shape (n_rows, n_items)
            Weight of each item.

        Returns
        -------
        means : ndarray of shape (n_rows, n_factors + 1)
            Mean differences of factors and of biases.
        """
        counts = rows @ self.is_compared
        scale = self.probability / (counts + PRIOR_RATINGS)
        return (rows @ self.vectors) * scale[:, np.newaxis]

    def biases(self, rows: sp.csr_array, factors: np.ndarray) -> np.ndarray:
        """Mean differences as ratings, given users' factors, of shape (n_rows,)."""
        means = self.means(rows)
        return (means[:, :-1] * factors).sum(axis=1) + means[:, -1]


class DescribedModel(FactorModel):
    """Factor model with corrections for items that have features but no ratings."""

    def __init__(self, fitted, device):
        super().__init__(fitted, device)
        self.distances = None
        described = getattr(fitted, "_item_described_means", None)
        if described is not None and self.is_cold.any():
            self.distances = Distances(fitted, described)
            self.users = self._corrected(self.users, ones_at(fitted._seen))

    def user_prior_parts(self, case: Case, sample: int = 0) -> list[PartGroup]:
        """Split the prior mean of a user: the center, features and seen items."""
        fitted, indices = self.fitted, case.rows.indices
        found = [("average user", [""], fitted.user_prior_mean_[np.newaxis])]
        if case.user is not None and fitted._user_feature_parts is not None:
            parts = fitted._user_feature_parts[case.user]
            found.append(("user feature", fitted.user_feature_blocks_, parts))
        links = self.seen_item_links(indices, sample)
        if links is not None and len(links):
            links = links / np.sqrt(len(links))
            found.append(("seen item", fitted.items_[indices], links))
        return [(kind, names, means.astype(float)) for kind, names, means in found]

    def seen_item_links(self, items: np.ndarray, sample: int) -> np.ndarray | None:
        """Links of items that a user has rated; None without."""
        links = getattr(self.fitted, "item_links_", None)
        return None if links is None else links[items]

    def item_parts(self, case):
        fitted, item = self.fitted, case.item
        groups = [("average item", [""], fitted.item_prior_mean_[np.newaxis])]
        parts = getattr(fitted, "_item_feature_parts", None)
        if parts is not None:
            kinds = ["item feature"] * parts.shape[1]
            if getattr(fitted, "_word_encoder", None) is not None:
                kinds[-1] = "text"
            for kind, name, part in zip(
                kinds, fitted.item_feature_blocks_, parts[item], strict=True
            ):
                groups.append((kind, [name if kind != "text" else "words"], [part]))
        found = Parts.of(*groups)
        if getattr(fitted, "text_weights_", None):
            described = fitted._item_described_means[item]
            found = found.completed(described, "text", "network")
        found = self.with_raters(found, item)
        n_samples = fitted.item_factors_.shape[1] // (found.vectors.shape[1] - 1)
        factors, biases = found.vectors[:, :-1], found.vectors[:, -1:]
        tiled = np.hstack([np.tile(factors, n_samples), biases])
        found = Parts(found.labels, tiled)
        if not fitted._is_rated[item]:
            return found
        return found.completed(self.item_vector(item), "item ratings")

    def with_raters(self, parts: Parts, item: int) -> Parts:
        """Parts of an item, with the links of the users who have rated it."""
        return parts

    def _corrected(self, state: FactorState, rows: sp.csr_array) -> FactorState:
        """State with corrections for cold items, given a 1 for each rating."""
        if self.distances is None:
            return state
        biases = self.distances.biases(rows, state.factors.cpu().numpy())
        return state._replace(cold_biases=self.tensor(biases).to(state.biases))


def described_mean_ratings(attributes: dict[str, Any]) -> dict[str, np.ndarray]:
    """`user_means_` and `item_means_`, completed for users and items without ratings.

    Those that are described get predictions from their descriptions; the others keep
    their means.
    """
    fitted, found = SimpleNamespace(**attributes), {}
    cold = ~(np.diff(fitted._seen.indptr) > 0) & fitted._is_described_user
    if cold.any():
        vectors = np.column_stack([fitted.user_factors_, fitted.user_biases_])
        found["user_means_"] = fitted.user_means_.copy()
        found["user_means_"][cold] = mean_ratings(fitted, "user", vectors[cold])
    cold = ~fitted._is_rated & fitted._is_described
    if cold.any():
        vectors = np.column_stack([fitted.item_factors_, fitted.item_biases_])
        found["item_means_"] = fitted.item_means_.copy()
        found["item_means_"][cold] = mean_ratings(fitted, "item", vectors[cold])
    return found


def mean_ratings(fitted: Any, side: str, vectors: np.ndarray) -> np.ndarray:
    """Predict the mean ratings of users or items that have none.

    Parameters
    ----------
    fitted : object
        Estimator, or an object with its attributes.

    side : {"user", "item"}
        Side of the vectors.

    vectors : ndarray of shape (n, n_factors + 1)
        Factors and biases that the descriptions predict.

    Returns
    -------
    means : ndarray of shape (n,)
        Mean over the other side, where everyone counts once for each rating.
    """
    if side == "user":
        others = np.column_stack([fitted.item_factors_, fitted.item_biases_])
        counts = np.bincount(fitted._seen.indices, minlength=len(others))
    else:
        others = np.column_stack([fitted.user_factors_, fitted.user_biases_])
        counts = np.diff(fitted._seen.indptr)
        per_item = np.bincount(
            fitted._seen.indices, minlength=len(fitted.item_factors_)
        )
        distances = Distances(fitted, fitted._item_described_means)
        vectors = vectors + distances.means(sp.csr_array(per_item[np.newaxis]))
    partner = counts @ others / counts.sum()
    sums = vectors[:, :-1] @ partner[:-1] + vectors[:, -1] + partner[-1]
    return fitted._scale.restore(sums)


def probability_of_new(counts: np.ndarray, n_cold: int) -> float:
    r"""Probability that a rating of an item without ratings is one of a new item.

    An item has no ratings because it is new, or because hardly anybody chooses it. An
    estimate of how many are of the second kind is how many further items would get
    their first rating if there were half as many ratings more, as in a split of
    ratings: with n_k items of k ratings [1]_,

    .. math:: \frac{n_1}{2} - \frac{n_2}{4} + \frac{n_3}{8} - \ldots

    The others are new, and will get as many ratings as items get on average. Those that
    nobody chooses will get about as many as there are items with one rating.

    Parameters
    ----------
    counts : ndarray of shape (n_rated,)
        Positive number of ratings of each rated item.

    n_cold : int
        Number of items without ratings.

    References
    ----------
    .. [1] I. J. Good and G. H. Toulmin. 1956. "The Number of New Species, and the
       Increase in Population Coverage, when a Sample is Increased". Biometrika 43.
    """
    k = np.arange(1, _N_TERMS + 1)
    numbers = np.bincount(counts, minlength=_N_TERMS + 1)[k]
    n_unpopular = max(0.0, -float(numbers @ (-0.5) ** k))
    n_new_ratings = max(0.0, n_cold - n_unpopular) * counts.mean()
    return n_new_ratings / max(1.0, n_new_ratings + numbers[0])


def ones_at(rows: sp.csr_array) -> sp.csr_array:
    """Matrix with a 1 for each stored rating, including stored zeros."""
    ones = np.ones(rows.nnz, bool)
    return sp.csr_array((ones, rows.indices, rows.indptr), shape=rows.shape)
