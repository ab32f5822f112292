"""Trainer of Bayesian matrix factorization, which collects posterior samples."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from .._core.device import make_generator, to_array
from .._core.gibbs import GibbsSampler, Rng, Rngs, Side
from .._core.training import Stopping, run_sweeps
from .._fitting import Fit, Trainer
from .described import described_mean_ratings
from .knowledge import Knowledge
from .variational_trainer import start_factorization

# Stopping criterion of the variational fit. The decrease of the loss may pause before a
# factor is found, as in BiasedMFRegressor.
_STOPPING = Stopping(max_iter=50, tol=1e-3, n_iter_no_change=2)


class Sample(NamedTuple):
    """State of the Markov chain.

    Attributes
    ----------
    users, items : Tensor of shape (n_users, k + 1) and (n_items, k + 1)
        Vectors: factors followed by the bias.

    links : Tensor of shape (n_items, k + 1) or (0, k + 1)
        Contribution of each rated item to the prior mean of a user.
    """

    users: Tensor
    items: Tensor
    links: Tensor

    @classmethod
    def take(cls, sampler: GibbsSampler) -> Sample:
        """Copy the state of a sampler, on its device."""
        users, items = sampler.users, sampler.items
        tensors = users.vectors, items.vectors, users.prior.links
        return cls(*(tensor.clone() for tensor in tensors))


class GibbsTrainer(Trainer):
    """Trainer that runs the sampler from a variational fit and collects samples.

    Parameters
    ----------
    fit : Fit
        Fit of a `BayesianMFRegressor`.
    """

    may_settle = must_settle = False

    def __init__(self, fit: Fit):
        params = self.params = fit.estimator
        self.n_epochs = params.max_iter
        self.known, self.knowledge = fit.known, Knowledge.of(fit)
        self.rating_weights = fit.rating_weights()
        start = start_factorization(
            fit,
            self.knowledge,
            params.n_factors,
            user_links=params.implicit,
            item_links=params.implicit,
        )
        run_sweeps(start, _STOPPING, group=fit.group)
        self.rngs = make_rngs(fit)
        self.sampler = GibbsSampler(start, self.rngs)
        self.samples: list[Sample] = []

    def parameters(self):
        return self.sampler.state()

    def generators(self):
        users, items = self.rngs
        return [users] if users is items else [users, items]

    def extras(self):
        return {"samples": self.samples}

    def step(self, epoch, keep):
        error = self.sampler.sweep()
        keep()
        after = epoch - self.params.burn_in
        if after >= 0 and after % self.params.thinning == 0 and np.isfinite(error):
            self.samples.append(Sample.take(self.sampler))
        return error

    def attributes(self) -> dict[str, Any]:
        samples = self.samples or [Sample.take(self.sampler)]
        users, items, links = (_stack(parts) for parts in zip(*samples, strict=True))
        user_side, item_side = self.sampler.users, self.sampler.items
        _replace_draws_of_unrated(users, user_side)
        _replace_draws_of_unrated(items, item_side)
        user_prior, item_prior = user_side.prior, item_side.prior
        user_biases, item_biases = users[:, :, -1].T, items[:, :, -1].T
        attributes = {
            "intercept_": 0.0,
            # Dividing makes the product of all samples the mean of their products.
            "user_factors_": _side_by_side(users) / len(samples),
            "item_factors_": _side_by_side(items),
            "user_bias_samples_": user_biases.copy(),
            "item_bias_samples_": item_biases.copy(),
            "user_biases_": user_biases.mean(axis=1),
            "item_biases_": item_biases.mean(axis=1),
            "user_prior_mean_": to_array(user_prior.center),
            "user_prior_covariance_": to_array(user_prior.covariance),
            "item_prior_mean_": to_array(item_prior.center),
            "item_prior_covariance_": to_array(item_prior.covariance),
            **self.knowledge.attributes(user_prior, item_prior),
            "user_links_": links if links.size else None,
            "noise_variance_": self.sampler.noise_variance,
            "_rating_weights": self.rating_weights,
        }
        return attributes | described_mean_ratings(vars(self.known) | attributes)


def make_rngs(fit: Fit) -> Rngs:
    """Make the generators of the sampler: for items, the same on all ranks."""
    rng = make_rng(fit.draw_seed(), fit.device)
    if fit.group.size == 1:
        return Rngs(rng, rng)
    return Rngs(make_rng(fit.draw_seed() + fit.group.rank, fit.device), rng)


def make_rng(seed: int, device: torch.device) -> Rng:
    """Make the generator of the sampler, which draws on its device."""
    if device.type == "cpu":
        return np.random.default_rng(seed)
    return make_generator(seed, device)


def _stack(tensors: Sequence[Tensor]) -> np.ndarray:
    """Array of tensors of one shape."""
    return np.stack([tensor.cpu().numpy() for tensor in tensors])


def _replace_draws_of_unrated(vectors: np.ndarray, side: Side) -> None:
    """Replace draws from the prior with its mean, in place.

    The vectors, of shape (n_samples, n, k + 1), of rows without ratings are independent
    of everything else. Their means have no sampling error; `BayesianModel` adds their
    variance.
    """
    is_unrated = to_array(side.coefficients.counts == 0)
    vectors[:, is_unrated] = to_array(side.prior_means())[is_unrated]


def _side_by_side(vectors: np.ndarray) -> np.ndarray:
    """Turn samples of shape (n_samples, n, k + 1) into factors (n, n_samples * k)."""
    return vectors[:, :, :-1].swapaxes(0, 1).reshape(vectors.shape[1], -1)
