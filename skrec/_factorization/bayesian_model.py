"""Fitted Bayesian matrix factorization, which consists of posterior samples."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from .._core.chunks import row_chunks
from .._core.normal_rows import condition, implicit_means, leave_out, parts
from .models import FactorModel, FactorState


class BayesianModel(FactorModel):
    """Samples side by side, whose product is the mean of the predictions."""

    def __init__(self, fitted, device):
        super().__init__(fitted, device)
        self.n_samples = fitted.user_bias_samples_.shape[1]
        self.k = len(fitted.user_prior_mean_)
        self.prior_mean = self._double(fitted.user_prior_mean_)
        self.prior_precision = torch.linalg.inv(
            self._double(fitted.user_prior_covariance_)
        )

    def fold_in(self, rows):
        pattern, ratings = self.pattern(rows), self._double(rows.data)
        dtype = self.item_factors.dtype
        vectors = self.item_factors.new_empty(rows.shape[0], self.n_samples, self.k)
        for at, part, entries in parts(pattern, self.k**2):
            for s in range(self.n_samples):
                mean = condition(**self._problem(s, part, ratings[entries])).mean
                vectors[at, s] = mean.to(dtype)
        factors = vectors[:, :, :-1].flatten(1) / self.n_samples
        biases = vectors[:, :, -1].cpu().numpy().mean(axis=1)
        return FactorState.of(factors, self.tensor(biases))

    def left_out(self, rows):
        pattern, ratings = self.pattern(rows), self._double(rows.data)
        predicted = torch.zeros_like(ratings)
        for _, part, entries in parts(pattern, self.k**2):
            for s in range(self.n_samples):
                problem = self._problem(s, part, ratings[entries])
                offsets = ratings[entries] - problem["ratings"]
                left_out = leave_out(**problem, links=self._links(s))
                predicted[entries] += (left_out + offsets) / self.n_samples
        return predicted.cpu().numpy()

    def std_at(self, user, item):
        fitted, std = self.fitted, np.empty(len(user))
        for part in row_chunks(len(user), fitted.user_factors_.shape[1]):
            u, i = user[part], item[part]
            p, q = (
                factors.astype(np.float64).reshape(len(u), self.n_samples, self.k - 1)
                for factors in (fitted.user_factors_[u], fitted.item_factors_[i])
            )
            sums = np.einsum("nsk,nsk->ns", p, q) * self.n_samples
            sums += fitted.user_bias_samples_[u] + fitted.item_bias_samples_[i]
            std[part] = np.sqrt(sums.var(axis=1) + fitted.noise_variance_)
        return std

    def std(self, rows):
        n_samples = self.n_samples
        pattern, ratings = self.pattern(rows), self._double(rows.data)
        std = np.empty(rows.shape)
        for at, part, entries in parts(pattern, rows.shape[1] * self.k):
            sums, squares, inner = torch.zeros(3, *part.shape, dtype=torch.float64)
            for s in range(n_samples):
                problem = self._problem(s, part, ratings[entries])
                mean, cholesky = condition(**problem)
                vectors = problem["vectors"]
                centers = (mean @ vectors.T).cpu() + self._item_biases(s).cpu()
                half = torch.linalg.solve_triangular(cholesky, vectors.T, upper=False)
                sums += centers
                squares += centers.square()
                inner += half.square().sum(1).cpu()
            # Variance of the conditional means, plus mean of the conditional variances
            between = squares / n_samples - (sums / n_samples).square()
            variance = between.clamp(min=0) + inner / n_samples
            std[at] = np.sqrt(variance.numpy() + self.fitted.noise_variance_)
        return std

    def _problem(self, s: int, pattern, ratings) -> dict[str, Any]:
        """Return the arguments of `condition` for users in some rows, sample s."""
        fitted = self.fitted
        factors = np.split(fitted.item_factors_, self.n_samples, axis=1)[s]
        vectors = self._double(np.column_stack([factors, np.ones(len(factors))]))
        prior = self.prior_mean.expand(pattern.shape[0], -1)
        links = self._links(s)
        if links is not None:
            prior = prior + implicit_means(pattern, links)
        return {
            "pattern": pattern,
            "ratings": ratings - self._item_biases(s).index_select(0, pattern.col),
            "vectors": vectors,
            "prior": prior,
            "prior_precision": self.prior_precision,
            "rating_precisions": torch.full_like(ratings, 1 / fitted.noise_variance_),
        }

    def _item_biases(self, s: int) -> Tensor:
        return self._double(self.fitted.item_bias_samples_[:, s])

    def _links(self, s: int) -> Tensor | None:
        links = self.fitted.user_links_
        return None if links is None else self._double(links[s])

    def _double(self, array: np.ndarray) -> Tensor:
        return self.tensor(np.ascontiguousarray(array, dtype=np.float64))
