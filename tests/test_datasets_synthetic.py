"""Synthetic ratings and texts."""

import tracemalloc

import numpy as np
import pytest
import scipy.sparse as sp
from sklearn.feature_extraction.text import ENGLISH_STOP_WORDS, TfidfVectorizer
from sklearn.linear_model import RidgeCV
from sklearn.metrics import r2_score
from sklearn.model_selection import cross_val_predict

from skrec.datasets import _synthetic, _synthetic_texts, make_ratings

SIZES = [
    {},
    {"n_users": 1, "n_items": 1, "density": 1.0},
    {"n_users": 1, "n_items": 30, "density": 1.0},
    {"n_users": 30, "n_items": 1, "density": 0.5},
    {"n_users": 7, "n_items": 300, "density": 0.15},
    {"n_users": 300, "n_items": 7, "density": 0.15},
    {"n_users": 40, "n_items": 30, "density": 1.0},
    {"n_users": 40, "n_items": 30, "density": 0.97, "skew": 4.0},
    {"n_users": 40, "n_items": 30, "density": 0.3, "skew": 0.0},
    {"n_users": 40, "n_items": 30, "density": 1 / 30, "skew": 100.0},
    {"n_users": 40, "n_items": 30, "density": 0.01},
]


def gini(counts):
    """Gini coefficient: 0 if all counts are equal, near 1 if one has everything."""
    shares = np.cumsum(np.sort(counts)) / np.sum(counts)
    return 1 - 2 * np.mean(shares) + 1 / len(counts)


def activity(R):
    return np.diff(R.indptr), np.bincount(R.indices, minlength=R.shape[1])


@pytest.mark.parametrize("size", SIZES)
def test_shapes_and_number_of_ratings(size):
    dataset = make_ratings(**size, random_state=0)
    n_users, n_items = size.get("n_users", 200), size.get("n_items", 100)
    assert isinstance(dataset.R, sp.csr_array)
    assert dataset.R.shape == dataset.R_expected.shape == (n_users, n_items)
    assert dataset.R.dtype == np.float64
    assert dataset.R.nnz == round(size.get("density", 0.2) * n_users * n_items)
    assert dataset.user_factors.shape == (n_users, 5)
    assert dataset.item_factors.shape == (n_items, 5)
    assert dataset.user_biases.shape == (n_users,)
    assert dataset.item_biases.shape == (n_items,)
    assert len(dataset.item_texts) == n_items


@pytest.mark.parametrize("size", SIZES)
def test_cells_are_distinct_and_sorted(size):
    R = make_ratings(**size, random_state=0).R
    cells = np.repeat(np.arange(R.shape[0]), np.diff(R.indptr)) * R.shape[1] + R.indices
    assert np.all(np.diff(cells) > 0)
    assert R.indices.min() >= 0
    assert R.indices.max() < R.shape[1]


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("seed", range(5))
def test_no_row_or_column_is_empty_if_there_are_enough_ratings(size, seed):
    R = make_ratings(**size, random_state=seed).R
    for counts in activity(R):
        assert counts.min() >= (R.nnz >= len(counts))


def test_ratings_are_levels():
    dataset = make_ratings(random_state=0)
    assert set(dataset.R.data) == {1, 2, 3, 4, 5}
    assert 3 < dataset.R.data.mean() < 4
    dataset = make_ratings(levels=np.arange(0.5, 5.5, 0.5), random_state=0)
    assert set(dataset.R.data) == set(np.arange(0.5, 5.5, 0.5))


def test_level_zero_is_stored():
    R = make_ratings(levels=[0, 1], random_state=0).R
    assert R.nnz == 4000
    assert set(R.data) == {0, 1}


def test_same_seed_gives_the_same_data():
    first, second, other = (make_ratings(random_state=seed) for seed in (0, 0, 1))
    assert np.array_equal(first.R.toarray(), second.R.toarray())
    assert first.item_texts == second.item_texts
    assert not np.array_equal(first.R.toarray(), other.R.toarray())
    assert first.item_texts != other.item_texts


def test_random_state_instance_is_advanced():
    rng = np.random.RandomState(0)
    first, second = (make_ratings(random_state=rng) for _ in range(2))
    assert first.item_texts != second.item_texts


def test_global_random_state_does_not_change():
    # The generator that NPY002 forbids is the one that must not change.
    before = np.random.get_state()  # noqa: NPY002
    make_ratings(random_state=0)
    after = np.random.get_state()  # noqa: NPY002
    assert np.array_equal(before[1], after[1])
    assert before[2:] == after[2:]


# -- activity ------------------------------------------------------------------------


def test_tails_get_longer_with_skew():
    by_skew = [
        [
            gini(counts)
            for counts in activity(
                make_ratings(
                    n_users=600, n_items=400, density=0.04, skew=skew, random_state=0
                ).R
            )
        ]
        for skew in (0.0, 0.5, 1.0, 1.5)
    ]
    users, items = np.transpose(by_skew)
    assert users[0] < 0.05
    assert items[0] < 0.15
    assert np.all(np.diff(users) > 0.05)
    assert np.all(np.diff(items) > 0.02)


def test_default_skew_is_like_movielens():
    R = make_ratings(943, 1682, density=0.063, random_state=0).R
    users, items = map(gini, activity(R))
    assert users == pytest.approx(0.47, abs=0.1)
    assert items == pytest.approx(0.63, abs=0.1)


def test_no_user_rates_nearly_everything():
    R = make_ratings(100, 80, density=0.1, skew=3.0, random_state=0).R
    assert activity(R)[0].max() == 0.55 * 80


@pytest.mark.parametrize("count", [1, 5, 17, 20])
def test_items_are_drawn_in_proportion_to_weights_up_to_certainty(count):
    rng = np.random.RandomState(0)
    weights = _synthetic._draw_weights(20, 1.5, rng)
    shares = np.zeros(20)
    while not np.isclose(shares.sum(), count):
        free = shares < 1
        shares[free] = weights[free] / weights[free].sum() * (count - np.sum(~free))
        shares = np.minimum(shares, 1)
    n_users = 20_000
    counts = np.full(n_users, count)
    cells = _synthetic._draw_by_weight(counts, weights, rng)
    drawn = np.bincount(cells % 20, minlength=20) / n_users
    # An item at the border of two strata may be drawn twice, which counts once.
    assert np.all(drawn <= shares + 0.015)
    assert np.all(drawn >= 0.75 * shares - 0.015)
    complete = _synthetic._complete(cells, counts, 20, rng)
    assert np.array_equal(np.bincount(complete // 20), counts)
    assert np.all(np.diff(complete) > 0)


def test_free_items_are_equally_likely_to_complete_a_row():
    n_users, rated = 30_000, np.array([0, 3, 4, 9])
    cells = (np.arange(n_users)[:, None] * 10 + rated).ravel()
    counts = np.full(n_users, 6)
    complete = _synthetic._complete(cells, counts, 10, np.random.RandomState(0))
    shares = np.bincount(complete % 10) / n_users
    np.testing.assert_allclose(shares[rated], 1)
    np.testing.assert_allclose(np.delete(shares, rated), 2 / 6, atol=0.02)


@pytest.mark.parametrize("total", [0, 1, 9, 10, 11, 35, 49, 50])
@pytest.mark.parametrize("skew", [0.0, 1.0, 50.0])
def test_allocation_is_exact_and_within_bounds(total, skew):
    weights = _synthetic._draw_weights(10, skew, np.random.RandomState(0))
    counts = _synthetic._allocate(total, weights, 5)
    assert counts.sum() == total
    assert counts.min() >= (total >= 10)
    assert counts.max() <= 5
    # Nearly proportional: only rounding may favor the smaller of two weights.
    assert np.all(np.diff(counts[np.argsort(weights)]) >= -1)


# -- ratings -------------------------------------------------------------------------


def test_expected_ratings_follow_from_the_model():
    dataset = make_ratings(random_state=0)
    dense = (
        dataset.mean
        + dataset.user_biases[:, None]
        + dataset.item_biases
        + dataset.user_factors @ dataset.item_factors.T
    )
    rows, columns = dataset.R_expected.nonzero()
    np.testing.assert_allclose(dataset.R_expected.data, dense[rows, columns])
    assert np.array_equal(dataset.R.indices, dataset.R_expected.indices)


def test_without_noise_ratings_are_rounded_expectations():
    dataset = make_ratings(noise=0, random_state=0)
    rounded = np.clip(np.rint(dataset.R_expected.data), 1, 5)
    assert np.array_equal(dataset.R.data, rounded)


def test_noise_has_the_requested_deviation():
    levels = np.linspace(0, 16, 1601)
    dataset = make_ratings(noise=0.5, levels=levels, random_state=0)
    inside = np.abs(dataset.R_expected.data - 8) < 5
    errors = (dataset.R.data - dataset.R_expected.data)[inside]
    assert errors.std() == pytest.approx(0.5, rel=0.05)
    assert errors.mean() == pytest.approx(0, abs=0.03)


@pytest.mark.parametrize("n_factors", [1, 5, 30])
def test_spread_of_ratings_does_not_depend_on_n_factors(n_factors):
    dataset = make_ratings(500, 500, n_factors=n_factors, random_state=0)
    interactions = (dataset.user_factors @ dataset.item_factors.T).std()
    assert interactions == pytest.approx(0.8, rel=0.15)


# -- texts ---------------------------------------------------------------------------


def cross_validated_r2(texts, factors):
    features = TfidfVectorizer().fit_transform(texts)
    ridge = RidgeCV(alphas=np.logspace(-2, 2, 9))
    return r2_score(factors, cross_val_predict(ridge, features, factors, cv=5))


@pytest.mark.parametrize("n_factors", [2, 10])
def test_texts_predict_the_factors(n_factors):
    dataset = make_ratings(n_items=200, n_factors=n_factors, random_state=0)
    assert cross_validated_r2(dataset.item_texts, dataset.item_factors) > 0.4
    shuffled = np.random.RandomState(0).permutation(dataset.item_factors)
    assert cross_validated_r2(dataset.item_texts, shuffled) < 0.05


def test_texts_are_words_that_tokenizers_keep():
    texts = make_ratings(text_words=40, random_state=0).item_texts
    assert all(isinstance(text, str) for text in texts)
    tokenize = TfidfVectorizer(stop_words="english").build_analyzer()
    assert all(tokenize(text) == text.split(" ") for text in texts)
    assert np.mean([len(text.split()) for text in texts]) == pytest.approx(40, abs=2)


def test_no_word_can_be_a_stop_word():
    syllables = set(_synthetic_texts._SYLLABLES)
    for word in ENGLISH_STOP_WORDS:
        assert not {word[:2], word[2:4], word[4:]} <= syllables, word


def test_shortest_texts_have_one_word():
    texts = make_ratings(text_words=1, random_state=0).item_texts
    assert all(len(text.split()) == 1 for text in texts)


# -- size ----------------------------------------------------------------------------


def test_memory_grows_with_the_ratings_not_with_the_cells():
    n_ratings = 200_000
    tracemalloc.start()
    dataset = make_ratings(
        40_000, 40_000, density=n_ratings / 40_000**2, text_words=1, random_state=0
    )
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert dataset.R.nnz == n_ratings
    # A tenth of a byte per cell.
    assert peak < 40_000**2 / 10


def test_indices_are_small_where_they_can_be():
    R = make_ratings(random_state=0).R
    assert R.indices.dtype == R.indptr.dtype == np.int32


# -- errors --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("parameter", "value"),
    [
        ("n_users", 0),
        ("n_items", 1.5),
        ("density", 0.0),
        ("density", 1.1),
        ("n_factors", 0),
        ("noise", -0.1),
        ("text_words", 0),
        ("skew", -1),
        ("levels", "12345"),
        ("random_state", "seed"),
    ],
)
def test_wrong_parameters_are_refused(parameter, value):
    with pytest.raises(ValueError, match=f"The '{parameter}' parameter of make_rat"):
        make_ratings(**{parameter: value})


@pytest.mark.parametrize(
    ("levels", "message"),
    [
        ([3], "at least two finite numbers, got \\[3.0\\]"),
        ([1, np.inf], "at least two finite numbers"),
        ([[1, 2]], "at least two finite numbers"),
        ([1, 3, 2], "strictly increasing order, got .*Sort"),
        ([1, 1], "strictly increasing order"),
    ],
)
def test_wrong_levels_are_refused(levels, message):
    with pytest.raises(ValueError, match=f"levels must be .*{message}"):
        make_ratings(levels=levels)


def test_density_without_any_rating_is_refused():
    with pytest.raises(ValueError, match=r"density=1e-05 gives no ratings .* 0\.01"):
        make_ratings(10, 10, density=1e-5)
