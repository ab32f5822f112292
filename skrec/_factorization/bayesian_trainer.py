"""Trainer of Bayesian matrix factorization, which collects posterior samples."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np

from .._core.gibbs import GibbsSampler
from .._data.ratings import Scale
from .._fitting import Fit, Trainer


class Sample(NamedTuple):
    """State of the Markov chain, on the scale of the ratings.

    Attributes
    ----------
    users, items : ndarray of shape (n_users, k + 1) and (n_items, k + 1)
        Vectors: factors followed by the bias. The vectors of the users and the biases
        of the items are on the scale of the ratings; the factors of the items are not.
        Products are therefore on the scale of the ratings.

    mean : ndarray of shape (k + 1,)
        Prior mean of the users' vectors.

    precision : ndarray of shape (k + 1, k + 1)
        Precision matrix of that prior.

    links : ndarray of shape (n_items, k + 1) or None
        Contribution of each rated item to the prior mean.

    noise_variance : float
        Variance of the noise of the ratings.
    """

    users: np.ndarray
    items: np.ndarray
    mean: np.ndarray
    precision: np.ndarray
    links: np.ndarray | None
    noise_variance: float

    @classmethod
    def take(cls, sampler: GibbsSampler, scale: float) -> Sample:
        """Copy the state of a sampler whose ratings were divided by `scale`."""
        users, items = sampler.users, sampler.items
        item_vectors = items.vectors.cpu().numpy().copy()
        item_vectors[:, -1] *= scale
        return cls(
            users.vectors.cpu().numpy() * scale,
            item_vectors,
            users.mean.cpu().numpy() * scale,
            users.precision.cpu().numpy() / scale**2,
            None if users.links is None else users.links.cpu().numpy() * scale,
            scale**2 / float(sampler.rating_precision),
        )

    def at_zero(self) -> Sample:
        """Return the sample with vectors of zeros, which predict the mean."""
        users, items = np.zeros_like(self.users), np.zeros_like(self.items)
        return self._replace(users=users, items=items)


class GibbsTrainer(Trainer):
    """Trainer that runs the sampler and collects samples.

    Parameters
    ----------
    fit : Fit
        Fit of a `BayesianMFRegressor`.
    """

    may_settle = must_settle = False

    def __init__(self, fit: Fit):
        params = self.params = fit.estimator
        self.n_epochs = params.max_iter
        self.intercept = fit.mean
        # The priors of the sampler assume ratings with a standard deviation of 1.
        self.scale = fit.known.rating_std_ or 1.0
        values = Scale(self.intercept, self.scale).standardize(fit.ratings.values)
        self.sampler = GibbsSampler(
            *fit.tensors(replace(fit.ratings, values=values)),
            params.n_factors,
            np.random.default_rng(fit.draw_seed()),
            implicit=params.implicit,
        )
        self.samples: list[Sample] = []
        self.has_swept = False

    def parameters(self):
        return self.sampler.state()

    def generators(self):
        return [self.sampler.rng]

    def extras(self):
        return {"samples": self.samples, "has_swept": self.has_swept}

    def step(self, epoch, keep):
        error = self.sampler.sweep() * self.scale**2
        keep()
        self.has_swept = True
        after = epoch - self.params.burn_in
        if after >= 0 and after % self.params.thinning == 0 and np.isfinite(error):
            self.samples.append(Sample.take(self.sampler, self.scale))
        return error

    def attributes(self) -> dict[str, Any]:
        samples = self.samples
        if not samples:
            last = Sample.take(self.sampler, self.scale)
            samples = [last if self.has_swept else last.at_zero()]
        links = [sample.links for sample in samples if sample.links is not None]
        users = np.stack([sample.users for sample in samples], axis=1)
        items = np.stack([sample.items for sample in samples], axis=1)
        user_biases, item_biases = users[:, :, -1].copy(), items[:, :, -1].copy()
        return {
            "intercept_": self.intercept,
            # Dividing makes the product of all samples the mean of their products.
            "user_factors_": users[:, :, :-1].reshape(len(users), -1) / len(samples),
            "item_factors_": items[:, :, :-1].reshape(len(items), -1),
            "user_bias_samples_": user_biases,
            "item_bias_samples_": item_biases,
            "user_biases_": user_biases.mean(axis=1),
            "item_biases_": item_biases.mean(axis=1),
            "user_prior_means_": np.stack([sample.mean for sample in samples]),
            "user_prior_precisions_": np.stack([s.precision for s in samples]),
            "user_links_": np.stack(links) if links else None,
            "noise_variances_": np.array([s.noise_variance for s in samples]),
        }
