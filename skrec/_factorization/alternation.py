"""The alternation that every factorization with an item prior shares."""

from __future__ import annotations

import functools
from abc import abstractmethod
from numbers import Integral, Real
from typing import Any, ClassVar, NamedTuple

import numpy as np
import torch
from sklearn.metrics import r2_score
from sklearn.utils import check_random_state
from sklearn.utils._param_validation import Interval
from torch import Tensor

from .._base import BaseRecommender, EpochReports
from .._core.conjugate_gradients import improve_rows
from .._core.device import (
    as_tensor,
    inference_device,
    make_generator,
    resolve_device,
)
from .._core.normal_rows import with_ones
from .._core.ridge import positive_penalty, solve_rows
from .._core.sparse import Pattern, sddmm
from .._core.training import Stopping, iterate
from .._data.ids import positions_of

# The standard deviation of the initial factors.
INITIAL_STD = 0.1


class ItemPrior:
    """What the vectors of items are drawn to: zero, and what subclasses make of it.

    Users may have a prior of the same kind.

    A vector is an item's factors, followed by its bias where there are biases.
    """

    # Whether the objective settles, as it need not where `fit` takes noisy steps.
    settles = True

    def parameters(self) -> list[Tensor]:
        """All that `fit` changes."""
        return []

    def means(self) -> Tensor | None:
        """The present means of shape (n_items, k), or None for zero."""
        return None

    def fit(self, vectors: Tensor, weights: Tensor) -> None:
        """Come nearer to the vectors of shape (n_items, k), which stay as they are."""

    def penalty(self) -> float:
        """What the prior's own parameters add to the objective."""
        return 0.0


class MeanPrior(ItemPrior):
    """All items are drawn to what they are on average.

    Parameters
    ----------
    is_rated : Tensor of shape (n_items,), dtype bool
        Which items count.

    means : Tensor of shape (n_items, k)
        Where to keep the means.
    """

    def __init__(self, is_rated: Tensor, means: Tensor):
        self.is_rated, self._means = is_rated, means

    def parameters(self):
        return [self._means]

    def means(self):
        return self._means

    def fit(self, vectors, weights):
        eps = torch.finfo(weights.dtype).eps
        rated = weights.clamp(min=eps) * self.is_rated  # a penalty of 0 has no mean
        self._means.copy_((rated @ vectors / rated.sum()).expand_as(self._means))


class Alternation:
    """Alternating ridge regressions of users and items.

    Parameters
    ----------
    pattern : Pattern of shape (n_users, n_items)
        Where there are ratings.

    ratings : Tensor of shape (n_ratings,)
        The ratings, less the intercept.

    weights : Tensor of shape (n_ratings,) or None
        The weight of each.

    users, items : Tensor of shape (n_users, k) and (n_items, k)
        The initial vectors, which are changed in place.

    has_biases : bool
        Whether the last entry of a vector is a bias, which is added to the product of
        the others.

    lambda_u : float
        The penalty of a user's vector.

    lambda_v : Tensor of shape (n_items,)
        The penalty of an item's distance from its prior mean.

    prior : ItemPrior
        The means of the items' vectors.

    user_prior : ItemPrior or None
        The means of the users' vectors. None means zero.
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
        lambda_u: float,
        lambda_v: Tensor,
        prior: ItemPrior,
        user_prior: ItemPrior | None = None,
    ):
        order = pattern.order
        self.users, self.items = users, items
        self.has_biases = has_biases
        self.lambda_u = users.new_full((len(users),), lambda_u)
        self.lambda_v = lambda_v
        self.prior = prior
        self.user_prior = ItemPrior() if user_prior is None else user_prior
        self.is_unrated = pattern.transposed.crow.diff() == 0
        # The two sides: rows to be solved for, and ratings in their order.
        self.by_user = _Side(pattern, ratings, weights)
        self.by_item = _Side(
            pattern.transposed,
            ratings[order],
            None if weights is None else weights[order],
        )

    def parameters(self) -> list[Tensor]:
        priors = [*self.prior.parameters(), *self.user_prior.parameters()]
        return [self.users, self.items, *priors]

    def sweep(self) -> float:
        """Improve users, items and priors in turn; return the objective."""
        self.improve_users()
        self.improve_items()
        self.prior.fit(self.items, self.lambda_v)
        self.user_prior.fit(self.users, self.lambda_u)
        means = self.prior.means()
        if means is not None:
            # The next half step would do no other; the last one has none after it.
            self.items[self.is_unrated] = means[self.is_unrated]
        return self.objective()

    def improve_users(self) -> None:
        """Solve for all users, given the items and the users' prior."""
        solved = self._solve(
            self.by_user,
            self.users,
            self.items,
            self.lambda_u,
            self.user_prior.means(),
        )
        self.users.copy_(solved)

    def improve_items(self) -> None:
        """Solve for all items, given the users and the prior."""
        solved = self._solve(
            self.by_item, self.items, self.users, self.lambda_v, self.prior.means()
        )
        self.items.copy_(solved)

    def objective(self) -> float:
        """Half the weighted squared errors and penalties, and the priors' own."""
        pattern, ratings, weights = self.by_user
        error = ratings - products(pattern, self.users, self.items, self.has_biases)
        weighted = error if weights is None else error * weights
        total = 0.5 * float(torch.dot(error, weighted))
        for vectors, weights, prior in [
            (self.users, self.lambda_u, self.user_prior),
            (self.items, self.lambda_v, self.prior),
        ]:
            means = prior.means()
            distance = vectors if means is None else vectors - means
            total += 0.5 * float(torch.dot(weights, distance.square().sum(1)))
            total += prior.penalty()
        return total

    def _solve(self, side, rows, others, penalty, means):
        ratings = side.ratings
        if self.has_biases:
            ratings = ratings - others[:, -1].index_select(0, side.pattern.col)
            others = with_ones(others)
        return improve_rows(
            side.pattern,
            ratings,
            others,
            penalty,
            rows,
            weights=side.weights,
            prior=means,
        )


class _Side(NamedTuple):
    pattern: Pattern
    ratings: Tensor
    weights: Tensor | None


def products(pattern, users, items, has_biases) -> Tensor:
    """The sums that predict the entries of a pattern, less the intercept."""
    if not has_biases:
        return sddmm(pattern, users, items)
    sums = sddmm(pattern, users, with_ones(items))
    return sums + items[:, -1].index_select(0, pattern.col)


def _validation_score(alternation, pattern, ratings, weights) -> float:
    """R² of the predictions of held-out ratings."""
    predicted = products(
        pattern, alternation.users, alternation.items, alternation.has_biases
    )
    weights = None if weights is None else weights.cpu()
    return r2_score(ratings.cpu(), predicted.cpu(), sample_weight=weights)


class BaseFactorization(BaseRecommender):
    """Base of the factorizations: factors of users and items that meet in a product.

    A subclass has the parameters `n_factors`, `lambda_u`, `lambda_v` and
    `fit_intercept`, says whether there are biases, and makes the item prior.
    """

    _lambda_u: float
    _biased: bool
    _divergence_remedy = "Use dtype='float64', or bring the ratings to a smaller scale"

    _parameter_constraints: ClassVar[dict[str, list[Any]]] = {
        **BaseRecommender._parameter_constraints,
        "n_factors": [Interval(Integral, 1, None, closed="left")],
        "lambda_u": [Interval(Real, 0, None, closed="left")],
        "lambda_v": [Interval(Real, 0, None, closed="left")],
        "fit_intercept": ["boolean"],
    }

    @abstractmethod
    def _has_biases(self) -> bool:
        """Whether users and items have biases."""

    def _item_penalties(self, ratings) -> np.ndarray:
        """The penalty of each item's vector, of shape (n_items,)."""
        return np.full(len(ratings.items), float(self.lambda_v))

    def _describe_prior(self, prior) -> dict[str, Any]:
        """The fitted attributes that come from the prior."""
        return {}

    def _make_prior(self, ratings, random_state, device) -> ItemPrior:
        """The item prior, where `_alternate` is not given another.

        Zero without biases, as PMF has it, and otherwise the mean item.
        """
        if not self._has_biases():
            return ItemPrior()
        is_rated = torch.zeros(len(ratings.items), dtype=torch.bool, device=device)
        is_rated[torch.tensor(ratings.indices, device=device)] = True
        size = len(ratings.items), self.n_factors + 1
        means = torch.zeros(size, dtype=getattr(torch, self.dtype), device=device)
        return MeanPrior(is_rated, means)

    def _make_user_prior(self, ratings, pattern) -> ItemPrior:
        """The users' prior, for ratings whose pattern is on the device."""
        return ItemPrior()

    def _alternate(self, X, y, metadata, ratings, known, make_prior=None):
        """Alternate until the objective settles; store what `fit` should.

        Parameters
        ----------
        X, y, metadata
            The arguments of `fit`, for the callbacks.

        ratings : Ratings
            What is fitted.

        known : dict
            The fitted attributes that are known already.

        make_prior : callable
            As `_make_prior`, which is the default.
        """
        device = resolve_device(self.device)
        random_state = check_random_state(self.random_state)
        training, held_out = self._hold_out(ratings, random_state)
        self._refuse_singular(training)
        known["_lambda_u"], known["_biased"] = float(self.lambda_u), self._has_biases()
        known["intercept_"] = known["global_mean_"] if self.fit_intercept else 0.0
        prior = (make_prior or self._make_prior)(training, random_state, device)
        alternation = self._make_alternation(
            training, known["intercept_"], prior, random_state, device
        )

        def fitted():
            return known | self._describe(alternation, known)

        validate = None
        if held_out is not None:
            held = self._to_tensors(held_out, known["intercept_"], device)
            validate = functools.partial(_validation_score, alternation, *held)

        def step(epoch, keep):
            objective = alternation.sweep()
            keep()
            return objective

        reports = EpochReports(self, X, y, metadata, fitted)
        history = iterate(
            step,
            alternation.parameters(),
            Stopping(self.max_iter, self.tol, self.n_iter_no_change),
            validate=validate,
            begin_epoch=reports.begin_epoch,
            end_epoch=reports.end_epoch,
        )
        state = fitted() | {"device_": str(device)}
        self._conclude(state, history, reports, settles=prior.settles, stacklevel=6)
        return self

    def _refuse_singular(self, ratings):
        """Refuse a penalty of 0 where a user or item has too few ratings for it."""
        n_unknowns = self.n_factors + self._has_biases()
        for name, positions in [
            ("lambda_u", ratings.rows),
            ("lambda_v", ratings.indices),
        ]:
            counts = np.unique(positions, return_counts=True)[1]
            if getattr(self, name) == 0 and counts.min() < n_unknowns:
                raise ValueError(
                    f"{name}=0 needs at least {n_unknowns} ratings of each "
                    f"{'user' if name == 'lambda_u' else 'item'}, as many as unknowns, "
                    f"but there is one of {counts.min()}: use {name} > 0."
                )

    def _make_alternation(self, ratings, offset, prior, random_state, device):
        generator = make_generator(random_state.randint(np.iinfo(np.int32).max))
        dtype = getattr(torch, self.dtype)
        sides = []
        for ids, side in [(ratings.users, "user"), (ratings.items, "item")]:
            size = len(ids), self.n_factors + self._has_biases()
            vectors = torch.empty(size, dtype=dtype)
            vectors.normal_(0, INITIAL_STD, generator=generator)
            if self._has_biases():
                vectors[:, -1] = 0
            if self.warm_start and hasattr(self, "user_factors_"):
                self._continue_from_fit(vectors, ids, side)
            sides.append(vectors.to(device))
        penalties = self._item_penalties(ratings)
        pattern, values, weights = self._to_tensors(ratings, offset, device)
        users, items = sides
        return Alternation(
            pattern,
            values,
            weights,
            users,
            items,
            has_biases=self._has_biases(),
            lambda_u=self.lambda_u,
            lambda_v=torch.tensor(penalties, dtype=dtype, device=device),
            prior=prior,
            user_prior=self._make_user_prior(ratings, pattern),
        )

    def _continue_from_fit(self, vectors, ids, side):
        """Overwrite initial vectors by those of the last fit, where there are any."""
        factors = getattr(self, f"{side}_factors_")
        if factors.shape[1] != self.n_factors:
            raise ValueError(
                f"warm_start=True cannot continue a fit of {factors.shape[1]} factors "
                f"with n_factors={self.n_factors}: use warm_start=False."
            )
        positions = positions_of(ids, getattr(self, f"{side}s_"), side)
        new = np.flatnonzero(positions >= 0)
        vectors[new, : self.n_factors] = as_tensor(factors[positions[new]]).to(
            vectors.dtype
        )
        if self._has_biases():
            biases = getattr(self, f"{side}_biases_")[positions[new]]
            vectors[new, -1] = as_tensor(biases).to(vectors.dtype)

    def _describe(self, alternation, known) -> dict[str, Any]:
        """The fitted attributes that the present vectors amount to."""
        described = self._describe_prior(alternation.prior)
        for side in ("user", "item"):
            vectors = getattr(alternation, f"{side}s").cpu().numpy().copy()
            biases = np.zeros(len(vectors), vectors.dtype)
            if alternation.has_biases:
                biases, vectors = vectors[:, -1].copy(), vectors[:, :-1].copy()
            described |= {f"{side}_factors_": vectors, f"{side}_biases_": biases}
        return described

    def _fold_in(self, rows):
        solutions = self._solve_users(rows, rows.data - self._offsets(rows))
        coef = solutions.coef.cpu().numpy().astype(self.user_factors_.dtype)
        if not self._biased:
            return coef, np.zeros(len(coef), coef.dtype)
        return coef[:, :-1].copy(), coef[:, -1].copy()

    def _leave_one_out(self, rows):
        offsets = self._offsets(rows)
        left_out = self._solve_users(rows, rows.data - offsets, True).left_out
        return left_out.cpu().numpy() + offsets

    def _offsets(self, rows):
        """What is added to the product of vectors at each rating."""
        return self.intercept_ + self.item_biases_[rows.indices].astype(np.float64)

    def _solve_users(self, rows, targets, leave_one_out=False):
        """Vectors of new users whose products are to be near the targets."""
        device = inference_device(self.device)
        factors = as_tensor(self._item_design(), device=device)
        return solve_rows(
            as_tensor(rows.indptr, device=device),
            as_tensor(rows.indices, device=device),
            as_tensor(targets, device=device),
            factors,
            positive_penalty(self._lambda_u, factors),
            intercept=False,
            leave_one_out=leave_one_out,
        )

    def _item_design(self):
        """What the vectors of users meet: the factors of items, and 1 for a bias."""
        factors = self.item_factors_.astype(np.float64)
        if not self._biased:
            return factors
        return np.column_stack([factors, np.ones(len(factors))])
