"""Fitted factorizations by variational Bayes."""

from __future__ import annotations

import functools
from collections.abc import Iterator

import numpy as np
import scipy.sparse as sp
import torch
from torch import Tensor

from .._core.chunks import row_chunks
from .._core.normal_rows import parts, with_ones
from .._core.prior_means import NormalPrior
from .._core.variational import (
    Conditional,
    Moments,
    Vectors,
    fold_in,
    leave_out,
)
from .._data.ratings import row_numbers
from .._explanation import Parts, solve_parts
from .described import DescribedModel, ones_at
from .models import FactorState, completed_by_fit, rating_weights


class VariationalModel(DescribedModel):
    """Factor model that folds in new users by their posterior, given all items."""

    def fold_in(self, rows):
        ratings = self._ratings(rows)
        vectors = fold_in(
            self.moments,
            self.prior,
            self.fitted.noise_variance_,
            self.pattern(rows),
            ratings,
            torch.ones_like(ratings),
        ).to(self.item_factors.dtype)
        return self._corrected(FactorState.split(vectors), ones_at(rows))

    def left_out(self, rows):
        vectors, predicted = zip(*self._without_each(rows), strict=True)
        left_out = torch.cat(predicted).cpu().numpy()
        is_cold = self.is_cold[rows.indices]
        if self.distances is not None and is_cold.any():
            # A cold item is not among those whose differences are averaged.
            means = self.distances.means(ones_at(rows))[row_numbers(rows)[is_cold]]
            others = with_ones(torch.cat(vectors)).cpu().numpy()[is_cold]
            left_out[is_cold] += (means * others).sum(1)
        return left_out

    def with_raters(self, parts, item):
        links = getattr(self.fitted, "user_links_", None)
        if links is None:
            return parts
        seen = self.fitted._seen
        raters = row_numbers(seen)[seen.indices == item]
        moved = links[raters].sum(axis=0) / np.sqrt(max(1, len(raters)))
        labels = [*parts.labels, ("raters", "")]
        return Parts(labels, np.vstack([parts.vectors, moved]))

    def user_parts(self, case):
        fitted, moments, indices = self.fitted, self.moments, case.rows.indices
        weights = rating_weights(fitted, case)[:, np.newaxis] / fitted.noise_variance_
        at = self.tensor(indices)
        z, z_bias, products = (
            table[at].cpu().numpy().astype(np.float64)
            for table in (moments.z, moments.z_bias, moments.products)
        )
        G = moments.triangle.unpack(
            torch.as_tensor(weights * products).sum(0, keepdim=True)
        )
        precision = torch.linalg.inv(self.prior.covariance).cpu().numpy()
        own = weights * (case.rows.data[:, np.newaxis] * z - z_bias)
        found = solve_parts(
            precision + G[0].numpy(),
            ("rated item", fitted.items_[indices], own),
            *(
                (kind, names, means @ precision)
                for kind, names, means in self.user_prior_parts(case)
            ),
        )
        return completed_by_fit(found, case)

    def std_at(self, user, item):
        users, row = np.unique(user, return_inverse=True)
        weights = self.fitted._rating_weights
        seen = self.fitted._seen
        if weights is not None:
            seen = sp.csr_array((weights, seen.indices, seen.indptr), shape=seen.shape)
        rows = seen[users]
        if weights is not None:
            weights = self.tensor(rows.data).to(self.item_factors.dtype)
        covariances = self._covariances(self.pattern(rows), weights)
        triangle = self.moments.triangle
        vectors = with_ones(self.users.joined()[self.tensor(users)])
        variance = torch.empty(len(user), dtype=torch.float64)
        for part in row_chunks(len(user), 4 * covariances.shape[1]):
            u, i = self.tensor(row[part]), self.tensor(item[part])
            own = covariances[u] * self.moments.products[i]
            others = triangle.outer(vectors[u]) * self.item_covariances[i]
            variance[part] = ((own + others) @ self._counts).cpu().double()
        return self._std(variance)

    def std(self, rows):
        state, pattern = self.fold_in(rows), self.pattern(rows)
        triangle, std = self.moments.triangle, np.empty(rows.shape)
        outer = triangle.outer(with_ones(state.joined())) * self._counts
        for at, part, _ in parts(pattern, rows.shape[1] + 4 * triangle.k**2):
            covariances = self._covariances(part, None) * self._counts
            variance = covariances @ self.moments.products.T
            variance += outer[at] @ self.item_covariances.T
            std[at] = self._std(variance.cpu().double())
        return std

    @functools.cached_property
    def item_covariances(self) -> Tensor:
        """Upper triangles of the covariances of the items."""
        return self.tensor(self.fitted._item_covariances)

    @functools.cached_property
    def moments(self) -> Moments:
        """Moments of the items."""
        means = FactorState.of(self.item_factors, self.item_biases).joined()
        return Moments(Vectors(means, self.item_covariances))

    @functools.cached_property
    def prior(self) -> NormalPrior:
        """Prior of the users, in double precision."""
        fitted = self.fitted
        center = self.tensor(fitted.user_prior_mean_).double()
        links = center.new_zeros(0, len(center))
        item_links = getattr(fitted, "item_links_", None)
        if item_links is not None:
            links = self.tensor(item_links).double()
        covariance = self.tensor(fitted.user_prior_covariance_).double()
        return NormalPrior.of(center, covariance, links)

    @property
    def _counts(self) -> Tensor:
        return self.moments.triangle.counts(self.item_factors.dtype)

    def _without_each(self, rows) -> Iterator[tuple[Tensor, Tensor]]:
        """Vectors and predictions of new users without each rating, in batches."""
        ratings = self._ratings(rows)
        for _, part, entries in parts(
            self.pattern(rows), 4 * len(self.prior.center) ** 2
        ):
            some = ratings[entries]
            yield leave_out(
                self.moments,
                self.prior,
                self.fitted.noise_variance_,
                part,
                some,
                torch.ones_like(some),
            )

    def _ratings(self, rows) -> Tensor:
        return self.tensor(rows.data).double()

    def _covariances(self, pattern, weights) -> Tensor:
        """Upper triangles of the covariances of users with ratings at some entries."""
        triangle, found = self.moments.triangle, []
        precision = torch.linalg.inv(self.prior.covariance)
        for _, part, entries in parts(pattern, 4 * triangle.k**2):
            ones = self.item_factors.new_ones(part.nnz)
            given = Conditional.of(
                self.moments,
                part,
                ones,  # the covariances do not depend on the ratings
                ones if weights is None else weights[entries],
                precision,
                self.fitted.noise_variance_,
            )
            found.append(triangle.pack(given.covariance).to(ones.dtype))
        return torch.cat(found)

    def _std(self, variance) -> np.ndarray:
        return np.sqrt(variance.numpy() + self.fitted.noise_variance_)
