"""Trainer of LLORMA, which fits the local models one after the other."""

from __future__ import annotations

import functools
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from .._core.device import make_generator, to_array
from .._core.prior_means import NormalPrior
from .._core.sparse import Pattern
from .._core.training import Stopping, run_sweeps
from .._core.variational import Factorization, Vectors
from .._data.ratings import Ratings
from .._fitting import Fit, Trainer, r_squared
from .alternation import (
    INITIAL_STD,
    Alternation,
    AlternationTrainer,
    mean_item_prior,
    products,
)
from .priors import Prior
from .variational_trainer import VariationalTrainer


class LocalModels(NamedTuple):
    """Local models; those that are not yet fitted are zeros.

    Attributes
    ----------
    users, items : Tensor of shape (n_models, n_users or n_items, k + 1)
        Vectors: factors followed by the bias.

    user_kernels, item_kernels : Tensor of shape (n_models, n_users or n_items)
        Kernel between each user or item and the anchor; 0 means not near.
    """

    users: Tensor
    items: Tensor
    user_kernels: Tensor
    item_kernels: Tensor

    def add(self, t: int, pattern: Pattern, total: Tensor, weight: Tensor) -> None:
        """Add the weighted predictions and the weights of model t to the sums."""
        near = self.weights(t, pattern)
        total.addcmul_(near, products(pattern, self.users[t], self.items[t], True))
        weight.add_(near)

    def weights(self, t: int, pattern: Pattern) -> Tensor:
        """Return the product of the kernels of user and item at each entry."""
        weights = pattern.spread(self.user_kernels[t])
        return weights.mul_(self.item_kernels[t].index_select(0, pattern.col))


class LeastSquares:
    """Alternating least squares of all models, for penalties given as numbers.

    Parameters
    ----------
    fit : Fit
        The fit of an `LLORMARegressor`.

    Attributes
    ----------
    preliminary : Trainer
        Trainer of the preliminary model.

    model : Alternation
        Preliminary model.
    """

    # Weight of the preliminary model in each prediction
    preliminary_weight = 0.0

    def __init__(self, fit: Fit):
        self.context, self.params = fit, fit.estimator
        self.preliminary = AlternationTrainer(
            fit, has_biases=True, item_prior=mean_item_prior(fit, fit.training)
        )
        self.model = self.preliminary.alternation

    def parameters(self) -> list[Tensor]:
        """Return all tensors that change, other than the `LocalModels`."""
        return self.preliminary.parameters()

    def vectors(self) -> tuple[Tensor, Tensor]:
        """Return the vectors of users and items in the preliminary model."""
        return self.model.users.vectors, self.model.items.vectors

    def start(
        self,
        t: int,
        local: LocalModels,
        part: Ratings,
        near: Tensor,
        generator: torch.Generator,
    ) -> Alternation:
        """Return local model t, to be improved, with random initial factors.

        Parameters
        ----------
        t : int
            Number of the model.

        local : LocalModels
            Local models. The kernels of model t are set; its vectors are changed in
            place.

        part : Ratings
            Ratings near the anchor.

        near : Tensor of shape (n_near,)
            Their products of kernels.

        generator : torch.Generator
            Generator of the initial factors, on the CPU.
        """
        for start, vectors in zip(self.vectors(), local[:2], strict=True):
            factors = torch.empty(start[:, :-1].shape, dtype=start.dtype)
            factors.normal_(0, INITIAL_STD, generator=generator)
            vectors[t].copy_(start)
            vectors[t][:, :-1].copy_(factors)
        params, fit = self.params, self.context
        pattern, values, weights = fit.tensors(part, self.preliminary.intercept)
        # Far from the anchor both the ratings and the penalties have small weights.
        return Alternation(
            pattern,
            values,
            near if weights is None else near * weights,
            local.users[t],
            local.items[t],
            has_biases=True,
            lambda_u=params.lambda_u
            * params.local_penalty_scale
            * local.user_kernels[t],
            lambda_v=params.lambda_v
            * params.local_penalty_scale
            * local.item_kernels[t],
            user_prior=Prior(),
            item_prior=mean_item_prior(fit, part),
        )

    def attributes(self) -> dict[str, Any]:
        """Return the fitted attributes other than those of the `LocalModels`."""
        penalty = self.params.local_penalty_scale * self.params.lambda_u
        return self.preliminary.attributes() | {"_local_lambda_u": penalty}


class VariationalBayes:
    """Variational Bayes of all models, which estimates the penalties.

    The interface is that of `LeastSquares`.
    """

    # On validation ratings of six data sets, between 2 and 8 was best.
    preliminary_weight = 4.0

    def __init__(self, fit: Fit):
        self.context = fit
        self.preliminary = VariationalTrainer(fit)
        self.model = self.preliminary.model
        n_models, k = fit.estimator.n_models, fit.estimator.n_factors + 1
        zeros = functools.partial(torch.zeros, dtype=fit.dtype, device=fit.device)
        n_items = fit.ratings.shape[1]
        self.item_covariances = zeros(n_models, n_items, k * (k + 1) // 2)
        self.prior_means = zeros(n_models, k)
        self.prior_covariances = zeros(n_models, k, k)
        self.noises = zeros(n_models)

    def parameters(self) -> list[Tensor]:
        return [
            *self.preliminary.parameters(),
            self.item_covariances,
            self.prior_means,
            self.prior_covariances,
            self.noises,
        ]

    def vectors(self) -> list[Tensor]:
        # Angles depend on the basis.
        return [vectors.mean for vectors, _ in self.preliminary.canonical()]

    def start(
        self,
        t: int,
        local: LocalModels,
        part: Ratings,
        near: Tensor,
        generator: torch.Generator,
    ) -> Factorization:
        fit, k = self.context, self.context.estimator.n_factors
        users, items = (
            Vectors.draw(n, k, fit.dtype, generator, fit.device)
            for n in fit.ratings.shape
        )
        user_prior, item_prior = (
            NormalPrior.start(k, 0, fit.dtype, fit.device) for _ in range(2)
        )
        pattern, values, weights = fit.tensors(part)
        model = Factorization(
            pattern,
            values,
            near if weights is None else near * weights,
            users._replace(mean=local.users[t].copy_(users.mean)),
            Vectors(
                local.items[t].copy_(items.mean),
                self.item_covariances[t].copy_(items.covariance),
            ),
            user_prior._replace(
                center=self.prior_means[t].copy_(user_prior.center),
                covariance=self.prior_covariances[t].copy_(user_prior.covariance),
            ),
            item_prior,
        )
        model.noise = self.noises[t].copy_(model.noise)
        return model

    def attributes(self) -> dict[str, Any]:
        return self.preliminary.attributes() | {
            "local_user_prior_means_": to_array(self.prior_means),
            "local_user_prior_covariances_": to_array(self.prior_covariances),
            "local_noise_variances_": to_array(self.noises),
            "_local_item_covariances": to_array(self.item_covariances),
        }


class LLORMATrainer(Trainer):
    """Trainer that fits the preliminary model, then one local model in each step.

    Parameters
    ----------
    fit : Fit
        The fit of an `LLORMARegressor`.

    solver : type
        `LeastSquares` or `VariationalBayes`.
    """

    may_settle = must_settle = False

    def __init__(self, fit: Fit, solver: type[LeastSquares | VariationalBayes]):
        self.context, self.params = fit, fit.estimator
        self.n_epochs = 1 + self.params.n_models
        self.stopping = Stopping(
            self.params.max_iter, self.params.tol, self.params.n_iter_no_change
        )
        self.anchors = self._draw_anchors(fit)
        self.solver = solver(fit)
        self.generator = make_generator(fit.draw_seed())
        n_models, k = self.params.n_models, self.params.n_factors + 1
        users = self.solver.model.users
        self.data = users.pattern, users.ratings, users.weights
        zeros = functools.partial(torch.zeros, dtype=fit.dtype, device=fit.device)
        n_users, n_items = fit.ratings.shape
        self.local = LocalModels(
            zeros(n_models, n_users, k),
            zeros(n_models, n_items, k),
            zeros(n_models, n_users),
            zeros(n_models, n_items),
        )
        self.blend = torch.zeros_like(self.data[1]), torch.zeros_like(self.data[1])
        if fit.held_out is not None:
            self.held_out = self.solver.preliminary.held_out
            held_out = torch.zeros_like(self.held_out[1])
            self.held_out_blend = held_out, held_out.clone()

    def parameters(self):
        return [*self.solver.parameters(), *self.local]

    def generators(self):
        return [self.generator]

    def extras(self):
        blends = {"blend": self.blend}
        if self.context.held_out is not None:
            blends["held_out_blend"] = self.held_out_blend
        return blends

    def step(self, epoch, keep):
        """Fit a model; return half the weighted squared errors of the blend so far."""
        pattern, ratings, weights = self.data
        if epoch == 0:
            run_sweeps(self.solver.model, self.stopping, keep)
        else:
            self._fit_local(epoch - 1)
            self.local.add(epoch - 1, pattern, *self.blend)
            if self.context.held_out is not None:
                self.local.add(epoch - 1, self.held_out[0], *self.held_out_blend)
        keep()
        error = ratings - self._predict(pattern, self.blend)
        weighted = error if weights is None else error * weights
        return 0.5 * float(torch.dot(error, weighted))

    def validate(self):
        pattern, ratings, weights = self.held_out
        predicted = self._predict(pattern, self.held_out_blend)
        return r_squared(ratings, predicted, weights)

    def attributes(self) -> dict[str, Any]:
        fitted, ratings = self.solver.attributes(), self.context.ratings
        anchor_users, anchor_items = self.anchors.T
        return fitted | {
            "anchor_users_": ratings.users[anchor_users],
            "anchor_items_": ratings.items[anchor_items],
            "local_user_factors_": to_array(self.local.users),
            "local_item_factors_": to_array(self.local.items),
            "user_kernels_": to_array(self.local.user_kernels),
            "item_kernels_": to_array(self.local.item_kernels),
            "_anchor_factors": fitted["user_factors_"][anchor_users],
            "_bandwidth": self.params.bandwidth,
            "_preliminary_weight": self.solver.preliminary_weight,
        }

    def _draw_anchors(self, fit: Fit) -> np.ndarray:
        """Return positions of the users and items of random ratings, (n_models, 2)."""
        ratings, n_models = fit.training, self.params.n_models
        replace = n_models > ratings.n_ratings
        drawn = fit.random_state.choice(ratings.n_ratings, n_models, replace=replace)
        return np.column_stack([ratings.rows[drawn], ratings.indices[drawn]])

    def _predict(self, pattern: Pattern, blend: tuple[Tensor, Tensor]) -> Tensor:
        preliminary = self.solver.model.predict(pattern)
        return average(*blend, preliminary, self.solver.preliminary_weight)

    def _fit_local(self, t: int) -> None:
        """Fit model t to the ratings near its anchor.

        The initial factors are random. Models that all start from the preliminary model
        make similar errors, so averaging them gains less.
        """
        for vectors, place, kernels in zip(
            self.solver.vectors(), self.anchors[t], self.local[2:], strict=True
        ):
            factors, bandwidth = vectors[:, :-1], self.params.bandwidth
            kernels[t].copy_(
                kernel(factors, factors[place : place + 1], bandwidth).squeeze(1)
            )
        near = self.local.weights(t, self.data[0])
        is_near = near > 0
        part = self.context.training.select(is_near.cpu().numpy())
        near = near[is_near]
        del is_near
        model = self.solver.start(t, self.local, part, near, self.generator)
        del part, near
        run_sweeps(model, self.stopping)


def kernel(vectors: Tensor, anchors: Tensor, bandwidth: float) -> Tensor:
    """Return the Epanechnikov kernel of the angles, (n_vectors, n_anchors)."""
    directions, to = (
        torch.nn.functional.normalize(v, dim=1) for v in (vectors, anchors)
    )
    angles = torch.arccos((directions @ to.T).clamp(-1, 1))
    return (1 - (angles / bandwidth).square()).clamp(min=0)


def average(
    total: Tensor, weight: Tensor, preliminary: Tensor, preliminary_weight: float
) -> Tensor:
    """Return means of local and preliminary predictions.

    Parameters
    ----------
    total, weight : Tensor
        Sums of weighted predictions and of weights of the local models.

    preliminary : Tensor
        Predictions of the preliminary model.

    preliminary_weight : float
        Their weight. If it is 0, they count where no local model does.
    """
    total = total + preliminary_weight * preliminary
    weight = weight + preliminary_weight
    return torch.where(weight > 0, total / weight, preliminary)
