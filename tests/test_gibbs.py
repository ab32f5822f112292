import numpy as np
import pytest
import torch
from helpers import random_sparse

from skrec._core.conjugate_gradients import solve_columns
from skrec._core.gibbs import GibbsSampler, Rngs
from skrec._core.normal_rows import condition, implicit_means, leave_out, parts
from skrec._core.prior_means import NormalPrior
from skrec._core.sparse import Pattern
from skrec._core.variational import Factorization, Vectors

K = 3


def to_pattern(R):
    return Pattern(torch.tensor(R.indptr), torch.tensor(R.indices), R.shape)


def positive_definite(rng, k=K):
    A = rng.standard_normal((k, k))
    return A @ A.T + np.eye(k)


@pytest.fixture
def problem(rng):
    """Arguments of `condition` as arrays."""
    R = random_sparse(rng, (12, 9), 0.4)
    return R, {
        "ratings": R.data,
        "vectors": rng.standard_normal((9, K)),
        "prior": rng.standard_normal((12, K)),
        "prior_precision": positive_definite(rng),
        "rating_precisions": rng.uniform(0.5, 2, R.nnz),
    }


def tensors(arrays):
    return {name: torch.tensor(array) for name, array in arrays.items()}


def dense_posterior(items, ratings, noise, prior, vectors, precision):
    Z = vectors[items]
    A = precision + Z.T @ (noise[:, None] * Z)
    return np.linalg.solve(A, precision @ prior + Z.T @ (noise * ratings)), A


def test_row_posteriors_equal_the_dense_formula(problem):
    R, arrays = problem
    posterior = condition(to_pattern(R), **tensors(arrays))
    for u in range(R.shape[0]):
        at = slice(R.indptr[u], R.indptr[u + 1])
        mean, A = dense_posterior(
            R.indices[at],
            R.data[at],
            arrays["rating_precisions"][at],
            arrays["prior"][u],
            arrays["vectors"],
            arrays["prior_precision"],
        )
        np.testing.assert_allclose(posterior.mean[u], mean)
        np.testing.assert_allclose(posterior.cholesky[u] @ posterior.cholesky[u].T, A)


def test_a_singular_row_is_nan_without_affecting_other_rows(problem):
    R, arrays = problem
    arrays["rating_precisions"][: R.indptr[1]] = -1e3
    mean = condition(to_pattern(R), **tensors(arrays)).mean
    assert mean[0].isnan().all()
    assert mean[1:].isfinite().all()


def test_draws_have_the_posterior_covariance(problem):
    R, arrays = problem
    posterior = condition(to_pattern(R), **tensors(arrays))
    # The draws of unit vectors are the columns of a root of the covariance.
    roots = [
        posterior.draw(unit.expand(len(R.indptr) - 1, -1)) - posterior.mean
        for unit in torch.eye(K, dtype=torch.float64)
    ]
    root = torch.stack(roots, -1)
    precision = posterior.cholesky @ posterior.cholesky.mT
    torch.testing.assert_close(root @ root.mT, torch.linalg.inv(precision))


def test_parts_cover_all_rows_in_order(problem, monkeypatch):
    R, arrays = problem
    whole = condition(to_pattern(R), **tensors(arrays))
    monkeypatch.setattr("skrec._core.chunks.CHUNK", 5 * K**2)
    found = []
    for rows, pattern, entries in parts(to_pattern(R), K**2):
        part = tensors(arrays) | {"prior": torch.tensor(arrays["prior"])[rows]}
        part |= {name: part[name][entries] for name in ("ratings", "rating_precisions")}
        found.append(condition(pattern, **part).mean)
    assert [len(mean) for mean in found] == [5, 5, 2]
    torch.testing.assert_close(torch.cat(found), whole.mean)


@pytest.mark.parametrize("implicit", [False, True])
def test_leaving_out_equals_conditioning_without_the_rating(problem, rng, implicit):
    R, arrays = problem
    links = rng.standard_normal((9, K)) if implicit else np.zeros((9, K))
    mean = arrays["prior"][0]

    def prior(items):
        return mean + links[items].sum(axis=0) / np.sqrt(len(items))

    rows = [R.indices[a:b] for a, b in zip(R.indptr, R.indptr[1:], strict=False)]
    arrays["prior"] = np.stack([prior(items) for items in rows])
    predicted = leave_out(
        to_pattern(R),
        **tensors(arrays),
        links=torch.tensor(links) if implicit else None,
    )
    n_checked = 0
    for u, items in enumerate(rows):
        at = np.arange(R.indptr[u], R.indptr[u + 1])
        if len(at) == 1:
            continue
        for j, item in enumerate(items):
            others = np.delete(at, j)
            w, _ = dense_posterior(
                R.indices[others], R.data[others], arrays["rating_precisions"][others],
                prior(R.indices[others]), arrays["vectors"], arrays["prior_precision"],
            )  # fmt: skip
            expected = arrays["vectors"][item] @ w
            assert float(predicted[at[j]]) == pytest.approx(expected)
            n_checked += 1
    assert n_checked > 20


def test_implicit_means_divide_by_the_root_of_the_count(problem, rng):
    R, _ = problem
    links = rng.standard_normal((9, K))
    is_rated = R.toarray() != 0
    expected = is_rated @ links / np.sqrt(is_rated.sum(axis=1, keepdims=True))
    np.testing.assert_allclose(
        implicit_means(to_pattern(R), torch.tensor(links)), expected
    )


def make_sampler(rng, R, k, *, implicit, weights=None):
    """Sampler with random vectors and priors."""

    def prior(n_links):
        links = torch.zeros(n_links, k, dtype=torch.float64)
        link_precision = torch.tensor(rng.uniform(0.5, 2, k))
        center = torch.tensor(rng.standard_normal(k) / 2)
        covariance = torch.tensor(np.linalg.inv(positive_definite(rng, k)))
        prior = NormalPrior.of(center, covariance, links)
        return prior._replace(link_precision=link_precision)

    vectors = [
        Vectors(torch.tensor(rng.standard_normal((n, k))), torch.empty(n, 0))
        for n in R.shape
    ]
    priors = [prior(n * implicit) for n in reversed(R.shape)]
    ratings = to_pattern(R), torch.tensor(R.data)
    return GibbsSampler(
        Factorization(*ratings, weights, *vectors, *priors), Rngs(rng, rng)
    )


def test_link_draws_have_the_posterior_of_the_dense_formula(rng):
    R = random_sparse(rng, (12, 5), 0.5)
    side = make_sampler(rng, R, K, implicit=True).users
    F = (R.toarray() != 0) / np.sqrt(np.diff(R.indptr))[:, None]
    P = np.linalg.inv(side.prior.covariance.numpy())
    Q = np.diag(side.prior.link_precision.numpy())
    # The concatenated rows of the links are normal with this precision.
    A = np.kron(F.T @ F, P) + np.kron(np.eye(5), Q)
    target = F.T @ (side.vectors - side.prior.center).numpy() @ P
    mean, covariance = np.linalg.solve(A, target.ravel()), np.linalg.inv(A)
    draws = np.stack([side.draw_links().numpy().ravel() for _ in range(2000)])
    spread = np.sqrt(np.diag(covariance))
    np.testing.assert_allclose((draws.mean(axis=0) - mean) / spread, 0, atol=0.1)
    found = np.cov(draws.T) / np.outer(spread, spread)
    np.testing.assert_allclose(found, covariance / np.outer(spread, spread), atol=0.12)


def test_conjugate_gradients_solve_each_column(rng):
    A = positive_definite(rng, 30) + 30 * np.eye(30)
    shifts = torch.tensor([0.1, 5.0])
    right = torch.tensor(rng.standard_normal((30, 2)))
    matrix = torch.tensor(A)
    solution = solve_columns(
        lambda x: matrix @ x + shifts * x,
        right,
        matrix.diagonal().unsqueeze(1) + shifts,
        torch.zeros_like(right),
        tolerance=1e-8,
    )
    for column, shift in enumerate(shifts.numpy()):
        expected = np.linalg.solve(A + shift * np.eye(30), right[:, column])
        np.testing.assert_allclose(solution[:, column], expected, atol=1e-6)


@pytest.mark.parametrize("weighted", [False, True])
def test_the_error_is_the_weighted_mean_of_the_squares(rng, weighted):
    R = random_sparse(rng, (6, 5), 0.6)
    weights = torch.tensor(rng.uniform(0.5, 2, R.nnz)) if weighted else None
    sampler = make_sampler(rng, R, 3, implicit=False, weights=weights)
    u, v = sampler.users.vectors.numpy(), sampler.items.vectors.numpy()
    sums = u[:, :2] @ v[:, :2].T + u[:, 2:] + v[:, 2]
    errors = (R.data - sums[R.nonzero()]) ** 2
    expected = np.average(errors, weights=weights)
    assert sampler.error() == pytest.approx(expected)


@pytest.mark.parametrize("weighted", [False, True])
def test_the_precision_of_a_rating_is_its_weight_over_the_noise(rng, weighted):
    R = random_sparse(rng, (6, 5), 0.6)
    weights = torch.tensor(rng.uniform(0.5, 2, R.nnz)) if weighted else None
    sampler = make_sampler(rng, R, 3, implicit=False, weights=weights)
    found = sampler.users._rating_precisions(slice(2, 5))
    some = weights[2:5] if weighted else torch.ones(3, dtype=torch.float64)
    torch.testing.assert_close(found, some / sampler.noise_variance)


def test_large_eigenvalues_are_deflated_where_ratings_are_many(rng):
    R = random_sparse(rng, (40, 5), 0.8)
    side = make_sampler(rng, R, K, implicit=True).users
    F = (R.toarray() != 0) / np.sqrt(np.diff(R.indptr))[:, None]
    V, values = side.deflation.vectors.numpy(), side.deflation.eigenvalues
    np.testing.assert_allclose(V.T @ V, np.eye(5), atol=1e-9)
    own = np.diag(V.T @ F.T @ F @ V)
    np.testing.assert_allclose(values, own[:, None] + side.penalty.numpy())
    np.testing.assert_allclose(
        side.diagonal[:, 0], np.diag(F.T @ F) + side.penalty[0].item()
    )
    few = random_sparse(rng, (12, 5), 0.5)
    assert make_sampler(rng, few, K, implicit=True).users.deflation is None


@pytest.mark.parametrize("implicit", [False, True])
def test_the_chain_preserves_the_joint_distribution(rng, implicit):
    """Drawing ratings and parameters in turn preserves their prior distributions."""
    R = random_sparse(rng, (6, 5), 0.6)
    weights = torch.tensor(rng.uniform(0.5, 2, R.nnz))
    sampler = make_sampler(rng, R, 2, implicit=implicit, weights=weights)
    users, items = sides = sampler.users, sampler.items
    pattern = users.pattern
    found = [([], []), ([], [])]
    for _ in range(2500):
        u, v = users.vectors, items.vectors
        sums = u[:, :1] @ v[:, :1].T + u[:, 1:] + v[:, 1]
        drawn = sums[pattern.row.long(), pattern.col.long()]
        errors = torch.tensor(rng.standard_normal(R.nnz))
        drawn += errors * (sampler.noise_variance / weights).sqrt()
        users.ratings.copy_(drawn)
        items.ratings.copy_(drawn[pattern.order.long()])
        sampler.sweep()
        for side, (deviations, links) in zip(sides, found, strict=True):
            deviations.append(side.vectors - side.prior.means(side.pattern))
            links.append(side.prior.links.clone())
    for side, (deviations, links) in zip(sides, found, strict=True):
        root = np.linalg.cholesky(np.linalg.inv(side.prior.covariance.numpy()))
        standard = [torch.cat(deviations).numpy() @ root]
        if implicit:
            root = np.sqrt(side.prior.link_precision.numpy())
            standard.append(torch.cat(links).numpy() * root)
        for values in standard:
            np.testing.assert_allclose(values.mean(axis=0), 0, atol=0.15)
            np.testing.assert_allclose(np.cov(values.T), np.eye(2), atol=0.15)
