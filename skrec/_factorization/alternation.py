"""Alternating least squares, shared by the factorizations, and its trainer."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from numbers import Integral, Real
from typing import Any

import numpy as np
import torch
from torch import Tensor

from .._core import ridge
from .._core.collectives import ALONE, WHOLE, Group, Layout, Share
from .._core.device import as_tensor, make_generator
from .._core.half_steps import solve_half_step
from .._core.normal_rows import with_ones
from .._core.sparse import Pattern, sddmm
from .._data.ids import positions_of
from .._data.ratings import Ratings
from .._fitting import Fit, Trainer, r_squared
from .._sklearn_compat import Interval, StrOptions
from .priors import MeanPrior, Prior

FACTORIZATION_CONSTRAINTS: dict[str, list[Any]] = {
    "n_factors": [Interval(Integral, 1, None, closed="left")],
    "lambda_u": [Interval(Real, 0, None, closed="left")],
    "lambda_v": [Interval(Real, 0, None, closed="left")],
    "fit_intercept": ["boolean"],
    "normalize_y": ["boolean"],
}
PENALTY_OR_AUTO: list[Any] = [
    Interval(Real, 0, None, closed="left"),
    StrOptions({"auto"}),
]
DIVERGENCE_REMEDY = "Use dtype='float64', normalize_y=True, or smaller weights"

# Standard deviation of the initial factors
INITIAL_STD = 0.1


@dataclass
class Side:
    """Users or items with their ratings, vectors and the prior of the vectors.

    Attributes
    ----------
    pattern : Pattern of shape (n, n_others)
        Positions of the ratings.

    ratings : Tensor of shape (n_ratings,)
        Ratings minus the intercept.

    weights : Tensor of shape (n_ratings,) or None
        Weights of the ratings. None means 1 each.

    vectors : Tensor of shape (n, k)
        Vectors, changed in place.

    penalties : Tensor of shape (n,)
        Penalty on the squared distance of each vector from its prior mean.

    prior : Prior
        Prior of the vectors.

    layout : Layout
        How rows and ratings are dealt out to ranks.
    """

    pattern: Pattern
    ratings: Tensor
    weights: Tensor | None
    vectors: Tensor
    penalties: Tensor
    prior: Prior
    layout: Layout = WHOLE

    def fit_prior(self) -> None:
        """Update the prior: that of items, which all ranks have, on rank 0."""
        if self.layout.entries.rank == 0:
            self.prior.fit(self.vectors, self.penalties)
        self.spread_prior()

    @torch.no_grad()
    def spread_prior(self) -> None:
        """Give the prior of items on rank 0 to all ranks.

        Rounding differs between processors, and a network enlarges the differences.
        """
        if self.layout.entries.size > 1:
            for tensor in self.prior.parameters():
                tensor.copy_(self.layout.entries.copy_first(tensor.detach()))

    def penalty(self) -> Tensor:
        """Return the penalty on the distances of the vectors from their prior means."""
        means = self.prior.means()
        distance = self.vectors if means is None else self.vectors - means
        total = torch.dot(self.penalties, distance.square().sum(1)).double()
        return 0.5 * self.layout.rows.sum(total)


class Alternation:
    """Alternating ridge regressions of users and items.

    Parameters
    ----------
    pattern : Pattern of shape (n_users, n_items)
        Positions of the ratings.

    ratings : Tensor of shape (n_ratings,)
        Ratings minus the intercept.

    weights : Tensor of shape (n_ratings,) or None
        Weights of the ratings. None means 1 each.

    users, items : Tensor of shape (n_users, k) and (n_items, k)
        Initial vectors, changed in place.

    has_biases : bool
        Whether the last entry of a vector is a bias, which is added to the product of
        the other entries.

    lambda_u, lambda_v : Tensor of shape (n_users,) and (n_items,)
        Penalties on the squared distances of the vectors from their prior means.

    user_prior, item_prior : Prior
        Priors of the vectors.

    group : Group
        Ranks that have the users.

    Raises
    ------
    ValueError
        If the problem of a row has no unique solution.
    """

    def __init__(
        self,
        pattern: Pattern,
        ratings: Tensor,
        weights: Tensor | None,
        users: Tensor,
        items: Tensor,
        *,
        has_biases: bool,
        lambda_u: Tensor,
        lambda_v: Tensor,
        user_prior: Prior,
        item_prior: Prior,
        group: Group = ALONE,
    ):
        self.has_biases, self.group = has_biases, group
        self.users = Side(
            pattern,
            ratings,
            weights,
            users,
            lambda_u,
            user_prior,
            Layout(rows=group),
        )
        order, transposed = pattern.transpose()
        self.items = Side(
            transposed,
            ratings[order],
            None if weights is None else weights[order],
            items,
            lambda_v,
            item_prior,
            Layout(entries=group),
        )
        for side in self.users, self.items:
            counts = side.layout.entries.sum(side.pattern.crow.diff())
            ridge.refuse_singular(counts, side.penalties, side.vectors.shape[1])
            side.spread_prior()
        is_unrated = group.sum(transposed.crow.diff()) == 0
        self.unrated = is_unrated.nonzero().squeeze(1)

    def parameters(self) -> list[Tensor]:
        """Return all tensors that a sweep changes."""
        users, items = self.users, self.items
        priors = [*items.prior.parameters(), *users.prior.parameters()]
        return [users.vectors, items.vectors, *priors]

    def sweep(self) -> float:
        """Update users, items and priors in turn; return the objective."""
        self.improve(self.users, self.items)
        self.improve(self.items, self.users)
        for side in self.items, self.users:
            side.fit_prior()
        means = self.items.prior.means()
        if means is not None:
            # The next half step would set them so; the last sweep has no next one.
            self.items.vectors[self.unrated] = means[self.unrated]
        return self.objective()

    def improve(self, side: Side, others: Side) -> None:
        """Solve for the vectors of one side, given the other side and the prior."""
        ratings, factors = side.ratings, others.vectors
        if self.has_biases:
            ratings = ratings - factors[:, -1].index_select(0, side.pattern.col)
            factors = with_ones(factors)
        solution = solve_half_step(
            side.pattern,
            ratings,
            factors,
            side.penalties,
            side.vectors,
            weights=side.weights,
            prior=side.prior.means(),
            layout=side.layout,
        )
        side.vectors.copy_(solution)

    def objective(self) -> float:
        """Return half the weighted squared errors, plus all penalties."""
        users = self.users
        error = users.ratings - self.predict(users.pattern)
        weighted = error if users.weights is None else error * users.weights
        # Summed up on the device, which is then waited for once
        total = 0.5 * self.group.sum(torch.dot(error, weighted).double())
        for side in users, self.items:
            total += side.penalty()
            total += side.prior.penalty()
        return float(total)

    def predict(self, pattern: Pattern) -> Tensor:
        """Predict the entries of a pattern, minus the intercept."""
        users, items = self.users.vectors, self.items.vectors
        return products(pattern, users, items, self.has_biases)


def products(
    pattern: Pattern, users: Tensor, items: Tensor, has_biases: bool
) -> Tensor:
    """Return products plus biases at the entries of a pattern, without intercept."""
    if not has_biases:
        return sddmm(pattern, users, items)
    sums = sddmm(pattern, users, with_ones(items))
    return sums + items[:, -1].index_select(0, pattern.col)


class AlternationTrainer(Trainer):
    """Trainer that runs the alternation of an estimator.

    Parameters
    ----------
    fit : Fit
        Fit whose estimator has the parameters `n_factors`, `lambda_u`, `lambda_v`
        and `fit_intercept`.

    has_biases : bool
        Whether users and items have biases.

    user_prior, item_prior : Prior or None
        Priors of the vectors. None means a mean of zero.

    item_penalties : ndarray of shape (n_items,) or None
        Penalties of the items. None means `lambda_v` for each item.
    """

    def __init__(
        self,
        fit: Fit,
        *,
        has_biases: bool,
        user_prior: Prior | None = None,
        item_prior: Prior | None = None,
        item_penalties: np.ndarray | None = None,
    ):
        params = fit.estimator
        self.params, self.has_biases = params, has_biases
        self.n_epochs = params.max_iter
        self.rating_weights = fit.rating_weights()
        self.intercept = fit.mean if params.fit_intercept else 0.0
        refuse_singular(fit, params.n_factors + has_biases)
        user_prior = Prior() if user_prior is None else user_prior
        item_prior = Prior() if item_prior is None else item_prior
        self.must_settle = user_prior.settles and item_prior.settles
        users, items = self._initial_vectors(fit)
        if item_penalties is None:
            item_penalties = np.full(len(items), float(params.lambda_v))
        lambda_v = torch.tensor(item_penalties, dtype=fit.dtype, device=fit.device)
        self.alternation = Alternation(
            *fit.tensors(fit.training, self.intercept),
            users,
            items,
            has_biases=has_biases,
            lambda_u=users.new_full((len(users),), params.lambda_u),
            lambda_v=lambda_v,
            user_prior=user_prior,
            item_prior=item_prior,
            group=fit.group,
        )
        if fit.previous is not None:
            for side in self.alternation.users, self.alternation.items:
                side.prior.resume(side.vectors, side.penalties)
        if fit.held_out is not None:
            self.held_out = fit.tensors(fit.held_out, self.intercept)

    def parameters(self):
        return self.alternation.parameters()

    def optimizers(self):
        sides = self.alternation.users, self.alternation.items
        return [o for side in sides for o in side.prior.optimizers()]

    def generators(self):
        sides = self.alternation.users, self.alternation.items
        return [g for side in sides for g in side.prior.generators()]

    def step(self, epoch: int, keep: Callable[[], None]) -> float:
        objective = self.alternation.sweep()
        keep()
        return objective

    def validate(self):
        pattern, ratings, weights = self.held_out
        predicted = self.alternation.predict(pattern)
        return r_squared(ratings, predicted, weights, self.alternation.group)

    def attributes(self) -> dict[str, Any]:
        users, items = self.alternation.users, self.alternation.items
        user_factors, user_biases = self._split(users.vectors)
        item_factors, item_biases = self._split(items.vectors)
        return {
            "user_factors_": user_factors,
            "item_factors_": item_factors,
            "user_biases_": user_biases,
            "item_biases_": item_biases,
            "intercept_": self.intercept,
            "_lambda_u": float(self.params.lambda_u),
            "_has_biases": self.has_biases,
            "_rating_weights": self.rating_weights,
            **users.prior.attributes(),
            **items.prior.attributes(),
        }

    def _split(self, vectors: Tensor) -> tuple[np.ndarray, np.ndarray]:
        """Split vectors into factors and biases, which are zeros without biases."""
        array = vectors.cpu().numpy().copy()
        if self.has_biases:
            return array[:, :-1].copy(), array[:, -1].copy()
        return array, np.zeros(len(array), array.dtype)

    def _initial_vectors(self, fit: Fit) -> list[Tensor]:
        """Return random vectors of users and items, or those of the previous fit."""
        k, old = self.params.n_factors, fit.previous
        if old is not None and old._lambda_u is None:
            raise ValueError(
                "warm_start=True cannot continue a fit whose penalties were 'auto' "
                "with penalties that are numbers: use warm_start=False."
            )
        if old is not None and old.item_factors_.shape[1] != k:
            raise ValueError(
                f"warm_start=True cannot continue a fit of "
                f"{old.item_factors_.shape[1]} factors with n_factors={k}: use "
                "warm_start=False."
            )
        generator = make_generator(fit.draw_seed())
        users, items = (
            draw_vectors(n, k, self.has_biases, fit.dtype, generator, share)
            for n, share in zip(fit.ratings.shape, (fit.share, None), strict=True)
        )
        if old is not None:
            to = positions_of(fit.ratings.users, old.users_, "user")
            self._continue(users, to, old.user_factors_, old.user_biases_)
            to = positions_of(fit.ratings.items, old.items_, "item")
            self._continue(items, to, old.item_factors_, old.item_biases_)
        return [users.to(fit.device), items.to(fit.device)]

    def _continue(self, vectors, positions, factors, biases):
        """Overwrite initial vectors with those of the previous fit, where known."""
        new = np.flatnonzero(positions >= 0)
        old = positions[new]
        k = factors.shape[1]
        vectors[new, :k] = as_tensor(factors[old]).to(vectors.dtype)
        if self.has_biases:
            vectors[new, -1] = as_tensor(biases[old]).to(vectors.dtype)


def penalties_are_auto(params: Any) -> bool:
    """Return whether the penalties are estimated; raise an error if only one is."""
    is_auto = [p == "auto" for p in (params.lambda_u, params.lambda_v)]
    if is_auto[0] != is_auto[1]:
        raise ValueError(
            "lambda_u and lambda_v must both be 'auto' or both be numbers, got "
            f"lambda_u={params.lambda_u!r} and lambda_v={params.lambda_v!r}."
        )
    if is_auto[0] and not params.normalize_y:
        raise ValueError(
            "normalize_y=False needs lambda_u and lambda_v that are numbers: estimated "
            "penalties do not depend on the unit of the ratings."
        )
    return is_auto[0]


def draw_vectors(
    n: int,
    n_factors: int,
    has_biases: bool,
    dtype: torch.dtype,
    generator: torch.Generator,
    share: Share | None = None,
) -> Tensor:
    """Draw random vectors with biases of zero, which may be a share of all."""

    def draw(n):
        vectors = torch.empty(n, n_factors + has_biases, dtype=dtype)
        return vectors.normal_(0, INITIAL_STD, generator=generator)

    vectors = draw(n) if share is None else share.draw(draw)
    if has_biases:
        vectors[:, -1] = 0
    return vectors


def mean_item_prior(fit: Fit, ratings: Ratings) -> MeanPrior:
    """Create the prior that shrinks items toward the mean item."""
    counts = np.bincount(ratings.indices, minlength=len(ratings.items))
    is_rated = torch.tensor(fit.group.total(counts) > 0, device=fit.device)
    return MeanPrior(is_rated, fit.estimator.n_factors + 1, fit.dtype)


def refuse_singular(fit: Fit, n_unknowns: int) -> None:
    """Raise an error if a penalty is 0 and a user or item has too few ratings."""
    params, ratings = fit.estimator, fit.training
    for name, value, side, positions, group in [
        ("lambda_u", params.lambda_u, "user", ratings.rows, ALONE),
        ("lambda_v", params.lambda_v, "item", ratings.indices, fit.group),
    ]:
        if value != 0:
            continue
        n = ratings.shape[side == "item"]
        counts = group.total(np.bincount(positions, minlength=n))
        fewest = counts[counts > 0].min()
        if fewest < n_unknowns:
            raise ValueError(
                f"{name}=0 needs at least {n_unknowns} ratings of each {side}, as many "
                f"as unknowns, but there is one of {fewest}: use {name} > 0."
            )
