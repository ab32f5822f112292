import numpy as np
import pytest
import torch
from helpers import random_sparse
from scipy import sparse
from scipy.optimize import minimize
from sklearn.decomposition import LatentDirichletAllocation

from skrec._core.sparse import Pattern
from skrec._core.topics import (
    expected,
    fit_topics,
    improve_proportions,
    infer_proportions,
    log_likelihood,
    maximize_on_simplex,
)

K = 3


@pytest.fixture
def parts(rng):
    """Counts, proportions, topics, vectors and penalties of six texts."""
    counts = random_sparse(rng, (6, 20), 0.3)
    counts.data = rng.integers(1, 4, counts.nnz).astype(float)
    proportions = rng.dirichlet(np.ones(K), 6)
    topics = rng.dirichlet(np.ones(20), K).T
    return counts, proportions, topics, rng.normal(0, 1, (6, K)), rng.uniform(0, 20, 6)


def tensors(counts, *arrays):
    pattern = Pattern(
        torch.tensor(counts.indptr), torch.tensor(counts.indices), counts.shape
    )
    return pattern, torch.tensor(counts.data), *map(torch.tensor, arrays)


def dense(counts, proportions, topics, vectors, penalty):
    """The objective of each text by its formula."""
    words = (counts.toarray() * np.log(proportions @ topics.T)).sum(axis=1)
    return words - penalty / 2 * ((vectors - proportions) ** 2).sum(axis=1)


def test_the_likelihood_equals_the_dense_formula(parts):
    found = log_likelihood(*tensors(*parts[:3]))
    np.testing.assert_allclose(found, dense(*parts[:4], np.zeros(6)))


def test_steps_converge_to_the_best_proportions_monotonically(parts):
    counts, proportions, topics, vectors, penalty = parts
    objectives = [dense(*parts)]
    for _ in range(300):
        step = improve_proportions(
            *tensors(counts, proportions, topics, vectors, penalty)
        )
        proportions = step.numpy()
        objectives.append(dense(counts, proportions, topics, vectors, penalty))
    assert np.diff(objectives, axis=0).min() > -1e-9
    np.testing.assert_allclose(proportions.sum(axis=1), 1)
    for i in range(6):

        def loss(t, i=i):
            row = slice(i, i + 1)
            text = counts[[i]], t[np.newaxis], topics, vectors[row], penalty[row]
            return -dense(*text)[0]

        best = minimize(
            loss, np.full(K, 1 / K), bounds=[(1e-9, 1)] * K, method="SLSQP", tol=1e-9,
            constraints={"type": "eq", "fun": lambda t: t.sum() - 1},
        )  # fmt: skip
        assert -objectives[-1][i] == pytest.approx(best.fun, abs=1e-4)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("penalty", [0.0, 1e-3, 1.0, 1e4])
def test_the_maximum_on_the_simplex_has_equal_slopes(rng, dtype, penalty):
    counts = torch.tensor(rng.gamma(0.5, 10, (50, 6)) + 1e-3, dtype=dtype)
    vectors = torch.tensor(rng.normal(0, 1, (50, 6)), dtype=dtype)
    weights = torch.full((50,), penalty, dtype=dtype)
    t = maximize_on_simplex(counts, vectors, weights)
    assert t.min() >= 0
    np.testing.assert_allclose(t.sum(1), 1, atol=1e-5)
    terms = counts / t, weights[:, None] * (t - vectors)
    spread = (terms[0] - terms[1]).max(1).values - (terms[0] - terms[1]).min(1).values
    size = (terms[0].abs() + terms[1].abs()).max(1).values
    assert (spread / size).max() < 1e-4


def test_a_topic_without_words_may_become_zero_and_return():
    counts = torch.tensor([[3.0, 0.0]])
    penalty = torch.tensor([10.0])
    gone = maximize_on_simplex(counts, torch.tensor([[1.0, -1.0]]), penalty)
    assert gone.tolist() == [[1.0, 0.0]]
    back = maximize_on_simplex(counts, torch.tensor([[0.0, 1.0]]), penalty)
    assert back[0, 1] > 0.5


def test_inference_of_proportions_equals_that_of_scikit_learn(rng):
    counts = random_sparse(rng, (30, 40), 0.2)
    counts.data = rng.integers(1, 6, counts.nnz).astype(float)
    lda = LatentDirichletAllocation(K, random_state=0).fit(counts)
    words = lda.exp_dirichlet_component_.T.copy()
    found = infer_proportions(*tensors(counts, words), 1 / K)
    np.testing.assert_allclose(found, lda.transform(counts), rtol=1e-7)


def test_topics_are_found_in_texts_of_one_topic_each(rng):
    words = rng.integers(0, 10, (60, 15)) + 10 * np.arange(60)[:, None] % 30
    counts = np.zeros((60, 30))
    np.add.at(counts, (np.arange(60)[:, None], words), 1)
    start = torch.tensor(rng.gamma(100, 0.01, (30, K)))
    topics = fit_topics(*tensors(sparse.csr_array(counts)), start, 1 / K, 20)
    shares = expected(topics, 0).reshape(3, 10, K).sum(1)
    assert sorted(shares.argmax(1).tolist()) == [0, 1, 2]
    assert shares.max(1).values.min() > 0.95


def test_topics_survive_probabilities_that_underflow(rng):
    counts = random_sparse(rng, (20, 50), 0.2)
    counts.data = np.ones(counts.nnz)
    pattern, values = tensors(counts)
    start = torch.tensor(rng.gamma(100, 0.01, (50, 200)), dtype=torch.float32)
    topics = fit_topics(pattern, values.float(), start, 1 / 200, 20)
    found = infer_proportions(pattern, values.float(), expected(topics, 0), 1 / 200)
    assert topics.isfinite().all()
    np.testing.assert_allclose(found.sum(1), 1, rtol=1e-5)
