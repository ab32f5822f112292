"""Trainer of LLORMA, which fits the local models one after the other."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from .._core.device import make_generator
from .._core.sparse import Pattern
from .._core.training import Stopping, iterate
from .._fitting import Fit, Trainer, r_squared
from .alternation import (
    INITIAL_STD,
    Alternation,
    AlternationTrainer,
    mean_item_prior,
    products,
)
from .priors import Prior


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
        return self.user_kernels[t][pattern.row] * self.item_kernels[t][pattern.col]


class LLORMATrainer(Trainer):
    """Trainer that fits the preliminary model, then one local model in each step.

    Parameters
    ----------
    fit : Fit
        The fit of an `LLORMARegressor`.
    """

    may_settle = must_settle = False

    def __init__(self, fit: Fit):
        self.context, self.params = fit, fit.estimator
        self.n_epochs = 1 + self.params.n_models
        self.anchors = self._draw_anchors(fit)
        self.preliminary = AlternationTrainer(
            fit, has_biases=True, item_prior=mean_item_prior(fit, fit.training)
        )
        self.intercept = self.preliminary.intercept
        alternation = self.preliminary.alternation
        self.vectors = alternation.users.vectors, alternation.items.vectors
        self.generator = make_generator(fit.draw_seed())
        U, V = self.vectors
        n_models = self.params.n_models
        self.local = LocalModels(
            U.new_zeros(n_models, *U.shape),
            V.new_zeros(n_models, *V.shape),
            U.new_zeros(n_models, len(U)),
            V.new_zeros(n_models, len(V)),
        )
        users = alternation.users
        self.data = users.pattern, users.ratings, users.weights
        self.blend = torch.zeros_like(self.data[1]), torch.zeros_like(self.data[1])
        if fit.held_out is not None:
            self.held_out = self.preliminary.held_out
            zeros = torch.zeros_like(self.held_out[1])
            self.held_out_blend = zeros, zeros.clone()

    def parameters(self):
        return [*self.preliminary.parameters(), *self.local]

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
            self._improve(self.preliminary.alternation, keep)
        else:
            self._fit_local(epoch - 1)
            self.local.add(epoch - 1, pattern, *self.blend)
            if self.context.held_out is not None:
                self.local.add(epoch - 1, self.held_out[0], *self.held_out_blend)
        keep()
        error = ratings - average(*self.blend, self._fallback(pattern))
        weighted = error if weights is None else error * weights
        return 0.5 * float(torch.dot(error, weighted))

    def validate(self):
        pattern, ratings, weights = self.held_out
        predicted = average(*self.held_out_blend, self._fallback(pattern))
        return r_squared(ratings, predicted, weights)

    def attributes(self) -> dict[str, Any]:
        users, items, user_kernels, item_kernels = (
            tensor.cpu().numpy().copy() for tensor in self.local
        )
        preliminary, ratings = self.preliminary.attributes(), self.context.ratings
        anchor_users, anchor_items = self.anchors.T
        return preliminary | {
            "anchor_users_": ratings.users[anchor_users],
            "anchor_items_": ratings.items[anchor_items],
            "local_user_factors_": users,
            "local_item_factors_": items,
            "user_kernels_": user_kernels,
            "item_kernels_": item_kernels,
            "_anchor_factors": preliminary["user_factors_"][anchor_users],
            "_bandwidth": self.params.bandwidth,
            "_local_lambda_u": self.params.local_penalty * self.params.lambda_u,
        }

    def _draw_anchors(self, fit: Fit) -> np.ndarray:
        """Return positions of the users and items of random ratings, (n_models, 2)."""
        ratings, n_models = fit.training, self.params.n_models
        replace = n_models > ratings.n_ratings
        drawn = fit.random_state.choice(ratings.n_ratings, n_models, replace=replace)
        return np.column_stack([ratings.rows[drawn], ratings.indices[drawn]])

    def _fallback(self, pattern: Pattern) -> Tensor:
        return self.preliminary.alternation.predict(pattern)

    def _fit_local(self, t: int) -> None:
        """Fit model t to the ratings near its anchor.

        The initial factors are random. Models that all start from the preliminary model
        make similar errors, so averaging them gains less.
        """
        params, local, fit = self.params, self.local, self.context
        user_kernel, item_kernel = (
            kernel(v[:, :-1], v[[place], :-1], params.bandwidth).squeeze(1)
            for v, place in zip(self.vectors, self.anchors[t], strict=True)
        )
        for start, vectors in zip(self.vectors, local[:2], strict=True):
            factors = torch.empty(start[:, :-1].shape, dtype=start.dtype)
            factors.normal_(0, INITIAL_STD, generator=self.generator)
            vectors[t].copy_(start)
            vectors[t][:, :-1].copy_(factors)
        local.user_kernels[t].copy_(user_kernel)
        local.item_kernels[t].copy_(item_kernel)
        near = local.weights(t, self.data[0])
        part = fit.training.select((near > 0).cpu().numpy())
        pattern, values, weights = fit.tensors(part, self.intercept)
        near = near[near > 0]
        # Far from the anchor both the ratings and the penalties have small weights.
        alternation = Alternation(
            pattern,
            values,
            near if weights is None else near * weights,
            local.users[t],
            local.items[t],
            has_biases=True,
            lambda_u=params.lambda_u * params.local_penalty * user_kernel,
            lambda_v=params.lambda_v * params.local_penalty * item_kernel,
            user_prior=Prior(),
            item_prior=mean_item_prior(fit, part),
        )
        self._improve(alternation, lambda: None)

    def _improve(self, alternation, keep):
        def step(epoch, keep_sweep):
            objective = alternation.sweep()
            keep_sweep()
            keep()
            return objective

        params = self.params
        stopping = Stopping(params.max_iter, params.tol, params.n_iter_no_change)
        history = iterate(step, alternation.parameters(), stopping)
        if history.interrupt is not None:
            raise history.interrupt


def kernel(vectors: Tensor, anchors: Tensor, bandwidth: float) -> Tensor:
    """Return the Epanechnikov kernel of the angles, (n_vectors, n_anchors)."""
    directions, to = (
        torch.nn.functional.normalize(v, dim=1) for v in (vectors, anchors)
    )
    angles = torch.arccos((directions @ to.T).clamp(-1, 1))
    return (1 - (angles / bandwidth).square()).clamp(min=0)


def average(total: Tensor, weight: Tensor, fallback: Tensor) -> Tensor:
    """Return weighted means, or the fallback where the total weight is 0."""
    return torch.where(weight > 0, total / weight, fallback)
