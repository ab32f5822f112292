"""Trainer of factorizations by variational Bayes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from .._core.canonical import canonical_bases, transform
from .._core.device import as_tensor, make_generator, to_array
from .._core.prior_means import NormalPrior
from .._core.variational import Factorization, Vectors
from .._data.ids import positions_of
from .._data.ratings import Ratings
from .._fitting import Fit, Trainer, r_squared
from .described import described_mean_ratings
from .knowledge import Knowledge

# A factor is dropped if the mean square of its part of a rating, relative to the noise
# variance, is below this.
_NEGLIGIBLE = 1e-4


class VariationalTrainer(Trainer):
    """Trainer that maximizes the evidence bound of a factorization with biases.

    Parameters
    ----------
    fit : Fit
        Fit of standardized ratings, whose estimator has the parameter `n_factors`.

    knowledge : Knowledge or None
        What is known of users and items; None means the features of the fit.

    user_links, item_links : bool
        Whether the prior mean of a user depends on the rated items, and that of an item
        on its raters.
    """

    def __init__(
        self,
        fit: Fit,
        knowledge: Knowledge | None = None,
        *,
        user_links: bool = False,
        item_links: bool = False,
    ):
        params = fit.estimator
        self.knowledge = Knowledge.of(fit) if knowledge is None else knowledge
        self.known, self.params = fit.known, params
        self.n_epochs, self.group = params.max_iter, fit.group
        self.rating_weights = fit.rating_weights()
        previous, k = fit.previous, params.n_factors
        if previous is not None:
            k = n_factors_to_continue(previous, params)
        self.model = start_factorization(
            fit, self.knowledge, k, user_links=user_links, item_links=item_links
        )
        if previous is not None:
            _continue(previous, fit.ratings, self.model)
            self.knowledge.resume(previous, self.model)
        if fit.held_out is not None:
            self.held_out = fit.tensors(fit.held_out)

    def parameters(self):
        return self.model.parameters()

    def step(self, epoch: int, keep: Callable[[], None]) -> float:
        loss = self.model.sweep()
        keep()
        return loss

    def validate(self):
        pattern, ratings, weights = self.held_out
        return r_squared(ratings, self.model.predict(pattern), weights, self.group)

    def bases(self) -> tuple[Tensor, Tensor]:
        """Canonical bases of users and items, without negligible factors."""
        users, items = self.model.users.vectors, self.model.items.vectors
        noise = float(self.model.noise)
        return canonical_bases(users, items, noise, _NEGLIGIBLE, self.group)

    def canonical(self) -> list[tuple[Vectors, NormalPrior]]:
        """Users and items in the canonical bases."""
        return [
            transform(side.vectors, side.prior, basis)
            for side, basis in zip(
                (self.model.users, self.model.items), self.bases(), strict=True
            )
        ]

    def attributes(self) -> dict[str, Any]:
        ((U, _), user_prior), ((V, covariances), item_prior) = self.canonical()
        # An item's contribution to its raters, and a user's to the rated items
        links = {"item_links_": user_prior.links, "user_links_": item_prior.links}
        if not any(map(len, links.values())):
            links = {}
        features = {}
        if hasattr(self.params, "item_encoder"):
            features = self.knowledge.attributes(user_prior, item_prior)
        attributes = {
            "user_factors_": to_array(U[:, :-1]),
            "item_factors_": to_array(V[:, :-1]),
            "user_biases_": to_array(U[:, -1]),
            "item_biases_": to_array(V[:, -1]),
            "intercept_": 0.0,
            "noise_variance_": float(self.model.noise),
            "user_prior_mean_": to_array(user_prior.center),
            "user_prior_covariance_": to_array(user_prior.covariance),
            "item_prior_mean_": to_array(item_prior.center),
            "item_prior_covariance_": to_array(item_prior.covariance),
            **{name: to_array(y) if len(y) else None for name, y in links.items()},
            **features,
            "_item_covariances": to_array(covariances),
            "_precisions": {
                name: (to_array(prior.link_precision), to_array(prior.weight_precision))
                for name, prior in (("user", user_prior), ("item", item_prior))
            },
            "_rating_weights": self.rating_weights,
            "_n_factors": self.params.n_factors,
            "_lambda_u": None,
        }
        attributes |= self.describe(attributes)
        return attributes | described_mean_ratings(vars(self.known) | attributes)

    def describe(self, attributes: dict[str, Any]) -> dict[str, Any]:
        """Further attributes, given those of the vectors and the features."""
        return {}


def start_factorization(
    fit: Fit,
    knowledge: Knowledge,
    n_factors: int,
    *,
    user_links: bool,
    item_links: bool,
) -> Factorization:
    """Make a factorization of the training ratings, to be fitted.

    Parameters
    ----------
    fit : Fit
        Fit of standardized ratings.

    knowledge : Knowledge
        What is known of users and items.

    n_factors : int
        Number of factors.

    user_links, item_links : bool
        As for `VariationalTrainer`.
    """
    generator = make_generator(fit.draw_seed())
    n_users, n_items = fit.ratings.shape
    dtype, device = fit.dtype, fit.device
    user_features, item_features = knowledge.tensors(dtype, device)
    return Factorization(
        *fit.tensors(fit.training),
        Vectors.draw(n_users, n_factors, dtype, generator, device, fit.share),
        Vectors.draw(n_items, n_factors, dtype, generator, device),
        NormalPrior.start(
            n_factors, n_items * user_links, dtype, device, user_features
        ),
        NormalPrior.start(
            n_factors, n_users * item_links, dtype, device, item_features
        ),
        user_features,
        item_features,
        fit.group,
    )


def n_factors_to_continue(old: Any, params: Any) -> int:
    """Number of factors of the previous fit, to continue with."""
    if old._lambda_u is not None:
        raise ValueError(
            "warm_start=True cannot continue a fit whose penalties were numbers with "
            "penalties that are 'auto': use warm_start=False."
        )
    if old._n_factors != params.n_factors:
        raise ValueError(
            f"warm_start=True cannot continue a fit of {old._n_factors} factors with "
            f"n_factors={params.n_factors}: use warm_start=False."
        )
    return old.item_factors_.shape[1]


def _continue(old: Any, ratings: Ratings, model: Factorization) -> None:
    """Overwrite the initial state of a fit with that of the previous fit.

    The first half step computes the users from the items, so that theirs is not needed.
    New items have the distribution of their prior.
    """
    items, user_prior, item_prior = (
        model.items.vectors,
        model.users.prior,
        model.items.prior,
    )
    model.noise.fill_(old.noise_variance_)
    for prior, side in (user_prior, "user"), (item_prior, "item"):
        for tensor, name in (prior.center, "mean"), (prior.covariance, "covariance"):
            tensor.copy_(as_tensor(getattr(old, f"{side}_prior_{name}_")))
    known_items = _matches(ratings.items, old.items_, "item")
    known_users = _matches(ratings.users, old.users_, "user")
    for side, prior, source, (new, places) in [
        ("user", user_prior, getattr(old, "item_links_", None), known_items),
        ("item", item_prior, getattr(old, "user_links_", None), known_users),
    ]:
        links = prior.links
        if len(links) and source is not None:
            links[new] = as_tensor(source[places]).to(links)
            prior.link_precision.copy_(as_tensor(old._precisions[side][0]))
    items.mean.copy_(item_prior.center)
    rows, columns = torch.triu_indices(*item_prior.covariance.shape)
    items.covariance.copy_(item_prior.covariance[rows, columns])
    new, places = known_items
    factors, biases = old.item_factors_[places], old.item_biases_[places]
    items.mean[new] = as_tensor(np.column_stack([factors, biases])).to(items.mean)
    items.covariance[new] = as_tensor(old._item_covariances[places]).to(items.mean)


def _matches(
    ids: np.ndarray, known: np.ndarray, side: str
) -> tuple[np.ndarray, np.ndarray]:
    """Positions of the known ids, and their positions in the previous fit."""
    places = positions_of(ids, known, side)
    new = np.flatnonzero(places >= 0)
    return new, places[new]
