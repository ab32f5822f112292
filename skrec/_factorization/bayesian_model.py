"""Fitted Bayesian matrix factorization, which consists of posterior samples.

The samples of users and items without ratings are their prior means. With the prior
covariance C, and the vector z of the other side with 1 in place of the bias, such a row
adds to the variance of a rating

    (1)  z' C z

If the other vector is not a sample, but has the covariance S as well, it also adds

    (2)  trace(S C), without the rows and columns of the biases
"""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
import scipy.sparse as sp
import torch
from torch import Tensor

from .._core.chunks import row_chunks
from .._core.normal_rows import condition, implicit_means, leave_out, parts, with_ones
from .._core.symmetric import inverse_of
from .._data.ratings import row_numbers, select_entries
from .._explanation import Parts, solve_parts
from .described import DescribedModel, ones_at
from .models import FactorState, completed_by_fit, rating_weights


class BayesianModel(DescribedModel):
    """Samples side by side, whose product is the mean of the predictions."""

    def __init__(self, fitted, device):
        super().__init__(fitted, device)
        self.n_samples = fitted.user_bias_samples_.shape[1]
        self.k = len(fitted.user_prior_mean_)
        self.prior_mean = self._double(fitted.user_prior_mean_)
        self.user_covariance = self._double(fitted.user_prior_covariance_)
        self.item_covariance = self._double(fitted.item_prior_covariance_)
        self.prior_precision = torch.linalg.inv(self.user_covariance)
        # An item without ratings adds the variance for the average user to the noise.
        self.is_unrated = self.tensor(~fitted._is_rated)
        spread = self._spread(self.prior_mean, self.user_covariance)
        self.noise = fitted.noise_variance_ + spread * self.is_unrated

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
        state = FactorState.of(factors, self.tensor(biases))
        return self._corrected(state, ones_at(rows))

    def left_out(self, rows):
        pattern, ratings = self.pattern(rows), self._double(rows.data)
        predicted = torch.zeros_like(ratings)
        for _, part, entries in parts(pattern, self.k**2):
            for s in range(self.n_samples):
                problem = self._problem(s, part, ratings[entries])
                offsets = ratings[entries] - problem["ratings"]
                left_out = leave_out(**problem, links=self._links(s))
                predicted[entries] += (left_out + offsets) / self.n_samples
        cold = np.flatnonzero(self.is_cold[rows.indices])
        if self.distances is not None and len(cold):
            for chunk in row_chunks(len(cold), self.n_samples * self.k):
                state = self.fold_in(_without_each(rows, cold[chunk]))
                predicted[cold[chunk]] += state.cold_biases
        return predicted.cpu().numpy()

    def user_parts(self, case):
        fitted, indices = self.fitted, case.rows.indices
        weights = rating_weights(fitted, case) / self.noise.cpu().numpy()[indices]
        precision = self.prior_precision.cpu().numpy()
        found = []
        for s in range(self.n_samples):
            z = np.split(fitted.item_factors_[indices], self.n_samples, axis=1)[s]
            z = np.column_stack([z, np.ones(len(z))]).astype(np.float64)
            targets = case.rows.data - fitted.item_bias_samples_[indices, s]
            own = (weights * targets)[:, np.newaxis] * z
            found.append(
                solve_parts(
                    precision + z.T @ (weights[:, np.newaxis] * z),
                    ("rated item", fitted.items_[indices], own),
                    *(
                        (kind, names, means @ precision)
                        for kind, names, means in self.user_prior_parts(case, s)
                    ),
                )
            )
        vectors = np.stack([parts.vectors for parts in found]) / self.n_samples
        factors, biases = vectors[:, :, :-1], vectors[:, :, -1].sum(0)
        joined = np.column_stack([*factors, biases])
        return completed_by_fit(Parts(found[0].labels, joined), case)

    def seen_item_links(self, items, sample):
        links = self.fitted.user_links_
        return None if links is None else links[sample, items]

    def std_at(self, user, item):
        fitted, std = self.fitted, np.empty(len(user))
        C_U = self.user_covariance.cpu().numpy()
        C_V = self.item_covariance.cpu().numpy()
        is_unrated_user = np.diff(fitted._seen.indptr) == 0
        for part in row_chunks(len(user), fitted.user_factors_.shape[1]):
            u, i = user[part], item[part]
            p, q = (
                factors.astype(np.float64).reshape(len(u), self.n_samples, self.k - 1)
                for factors in (fitted.user_factors_[u], fitted.item_factors_[i])
            )
            sums = np.einsum("nsk,nsk->ns", p, q) * self.n_samples
            sums += fitted.user_bias_samples_[u] + fitted.item_bias_samples_[i]
            variance = sums.var(axis=1)
            new_user, new_item = is_unrated_user[u], ~fitted._is_rated[i]
            variance[new_user] += _mean_square(q[new_user], C_U)
            variance[new_item] += _mean_square(p[new_item] * self.n_samples, C_V)
            variance[new_user & new_item] += np.sum((C_U * C_V)[:-1, :-1])
            std[part] = np.sqrt(variance + fitted.noise_variance_)
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
                if self.is_cold.any():
                    spread = self._spread(mean, inverse_of(cholesky))
                    inner += torch.outer(spread, self.is_unrated.double()).cpu()
            # Variance of the conditional means, plus mean of the conditional variances
            between = squares / n_samples - (sums / n_samples).square()
            variance = between.clamp(min=0) + inner / n_samples
            std[at] = np.sqrt(variance.numpy() + self.fitted.noise_variance_)
        return std

    def _problem(self, s: int, pattern, ratings) -> dict[str, Any]:
        """Return the arguments of `condition` for users in some rows, sample s."""
        factors = self.item_factors.tensor_split(self.n_samples, 1)[s].double()
        vectors = torch.cat([factors, torch.ones_like(factors[:, :1])], 1)
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
            "rating_precisions": 1 / self.noise.index_select(0, pattern.col),
        }

    def _spread(self, means: Tensor, covariances: Tensor) -> Tensor:
        """Sum of (1) and (2) for an item without ratings and uncertain users."""
        C = self.item_covariance
        z = with_ones(means.view(-1, self.k))
        inner = (covariances * C)[..., :-1, :-1].sum((-2, -1))
        return ((z @ C) * z).sum(1) + inner

    def _item_biases(self, s: int) -> Tensor:
        return self._samples[0][:, s].double()

    def _links(self, s: int) -> Tensor | None:
        links = self._samples[1]
        return None if links is None else links[s].double()

    @functools.cached_property
    def _samples(self) -> tuple[Tensor, Tensor | None]:
        """Samples of the items' biases and of the links, which stay on the device."""
        links = self.fitted.user_links_
        return (
            self.tensor(self.fitted.item_bias_samples_),
            None if links is None else self.tensor(links),
        )

    def _double(self, array: np.ndarray) -> Tensor:
        return self.tensor(np.ascontiguousarray(array, dtype=np.float64))


def _mean_square(factors: np.ndarray, covariance: np.ndarray) -> np.ndarray:
    """Mean of (1) over samples of factors, of shape (n, n_samples, k - 1)."""
    z = np.concatenate([factors, np.ones_like(factors[:, :, :1])], axis=2)
    return ((z @ covariance) * z).sum(axis=2).mean(axis=1)


def _without_each(rows: sp.csr_array, entries: np.ndarray) -> sp.csr_array:
    """Rows without a stored entry, one row for each of some entries."""
    row = row_numbers(rows)[entries]
    copies = rows[row]
    kept = np.ones(copies.nnz, bool)
    kept[copies.indptr[:-1] + entries - rows.indptr[row]] = False
    return select_entries(copies, kept)
