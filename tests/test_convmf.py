import numpy as np
import pytest
import torch
from helpers import make_factorization as make
from helpers import standardized
from sklearn.base import clone
from sklearn.exceptions import ConvergenceWarning
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.model_selection import GridSearchCV, KFold
from sklearn.pipeline import make_pipeline

from skrec import BiasedMFRegressor, ConvMFRegressor
from skrec._core.ridge import solve_rows
from skrec._fitting import Fit
from skrec._texts.network_prior import read
from skrec.datasets import make_ratings
from skrec.model_selection import ratings_to_samples
from skrec.text import ItemTexts, SequenceVectorizer, WordVectors

N_USERS, N_ITEMS = 200, 150


@pytest.fixture(scope="module")
def data():
    """Ratings that the texts of the items predict well."""
    return make_ratings(
        N_USERS, N_ITEMS, density=0.15, n_factors=2, noise=0.2, text_words=60,
        random_state=0,
    )  # fmt: skip


@pytest.fixture(scope="module")
def pairs(data):
    return ratings_to_samples(data.R)


@pytest.fixture(scope="module")
def texts(data):
    return dict(enumerate(data.item_texts))


@pytest.fixture(scope="module")
def model(data):
    return fit_on(data.R, data.item_texts)


def fit_on(X, item_texts, y=None, sample_weight=None, **params):
    defaults = {"n_filters": 20, "embedding_dim": 20, "n_hidden": 20}
    defaults |= {"n_factors": 3, "lambda_v": 5.0, "network_epochs": 10, "max_iter": 20}
    defaults |= {"word_dropout": 0.0, "learning_rate_init": 0.001}
    model = make(ConvMFRegressor, **(defaults | params))
    return model.fit(X, y, item_texts=item_texts, sample_weight=sample_weight)


def read_texts(model, texts):
    sequences = model.vectorizer_.transform(texts)
    return read(model.text_weights_, sequences, torch.device("cpu"))


def test_factors_of_a_cold_start_item_are_those_of_its_text(pairs, texts):
    X, y = pairs
    rated = X[:, 1] >= 5
    model = fit_on(X[rated], texts, y[rated])
    assert model.items_.tolist() == list(range(N_ITEMS))
    for i in range(5):
        np.testing.assert_allclose(
            model.item_factors_[i], model.text_factors_[i], atol=1e-5
        )
    ratings = model.predict([[user, 0] for user in range(20)])
    assert np.ptp(ratings) > 0.1


@pytest.mark.parametrize("fit_biases", [True, False])
def test_cold_start_items_get_the_users_mean_difference_from_texts(
    pairs, texts, fit_biases
):
    """Users rate items they chose higher than the texts alone predict."""
    X, y = pairs
    weights = np.tile([1, 2], len(X))[: len(X)]
    rated = X[:, 1] >= 5
    model = fit_on(
        X[rated], texts | {7: None}, y[rated], fit_biases=fit_biases, clip=False,
        sample_weight=weights[rated],
    )  # fmt: skip
    sums = model.user_factors_ @ (model.item_factors_ - model.text_factors_).T
    sums += model.item_biases_ - model.text_biases_
    # Some of the five items without ratings may be ones that nobody chooses.
    is_new = model._predictor().model.distances.probability
    assert 0.5 < is_new < 1
    for user in (0, 1):
        own = rated & (X[:, 0] == user) & (X[:, 1] != 7)
        w = weights[own]
        expected = is_new * (w @ sums[user, X[own, 1]]) / (w.sum() + 5)
        assert model.user_text_biases_[user] == pytest.approx(expected, abs=1e-5)
        plain = model.user_factors_[user] @ model.text_factors_[0] + model.intercept_
        plain += model.user_biases_[user] + model.text_biases_[0]
        ratings = model.predict([[user, 0]]), model.recommend([user], N_ITEMS)
        table = ratings[1].set_index("item")["rating"]
        for rating in ratings[0], table[0]:
            found = standardized(model, rating)
            assert found == pytest.approx(plain + expected, abs=1e-5)


def test_an_item_without_text_is_shrunk_toward_the_mean_of_texts(data):
    texts = list(data.item_texts)
    texts[3] = None
    model = fit_on(data.R, texts)
    others = np.delete(model.text_factors_, 3, axis=0)
    np.testing.assert_allclose(model.text_factors_[3], others.mean(axis=0), atol=1e-6)
    assert np.ptp(others, axis=0).min() > 0.01


def test_item_factors_solve_a_ridge_regression_around_their_texts(data):
    """The last half step, with the prior of one network epoch before."""
    model = fit_on(
        data.R, data.item_texts, max_iter=1, network_epochs=1, learning_rate_init=1e-12,
        fit_biases=False, dtype="float64",
    )  # fmt: skip
    by_item = data.R.T.tocsr()
    expected = solve_rows(
        torch.tensor(by_item.indptr),
        torch.tensor(by_item.indices),
        torch.tensor(standardized(model, by_item.data)),
        torch.tensor(model.user_factors_),
        5.0,
        prior=torch.tensor(model.text_factors_),
        intercept=False,
    )
    np.testing.assert_allclose(model.item_factors_, expected.coef, atol=1e-4)


def test_text_factors_correlate_with_item_factors(model):
    rated = model.item_factors_, model.text_factors_
    correlation = np.corrcoef(rated[0].ravel(), rated[1].ravel())[0, 1]
    assert correlation > 0.5


@pytest.mark.filterwarnings("error")
def test_without_texts_it_is_a_plain_factorization(data):
    with pytest.warns(UserWarning, match="There are no item_texts"):
        model = make(ConvMFRegressor, tol=1e-4, n_iter_no_change=2).fit(data.R)
    plain = make(BiasedMFRegressor, tol=1e-4).fit(data.R)
    np.testing.assert_array_equal(model.item_factors_, plain.item_factors_)
    assert model.text_factors_ is None
    with pytest.raises(ValueError, match="fitted without texts"):
        model.extend_items({N_ITEMS: "a text"})


def test_item_weights_are_square_roots_of_counts(data):
    model = make(ConvMFRegressor, item_weight="sqrt", lambda_v=4.0)
    fit = Fit(model, data.R, None)
    counts = np.diff(data.R.tocsc().indptr)
    expected = 4 * np.sqrt(counts) / np.sqrt(counts).mean()
    np.testing.assert_allclose(model._item_penalties(fit), expected)


def test_item_weights_change_the_fit(data, model):
    weighted = fit_on(data.R, data.item_texts, item_weight="sqrt")
    assert abs(weighted.item_factors_ - model.item_factors_).max() > 1e-3


def test_word_vectors_initialize_the_words(data):
    vectorizer = SequenceVectorizer().fit(data.item_texts)
    words = list(vectorizer.vocabulary_)[:10]
    vectors = np.random.default_rng(0).normal(0, 3, (10, 5)).astype(np.float32)
    model = fit_on(
        data.R, data.item_texts, word_vectors=WordVectors(words, vectors), max_iter=1,
        network_epochs=1, learning_rate_init=1e-12,
    )  # fmt: skip
    learned = model.text_weights_["vectors"]
    assert learned.shape == (len(vectorizer.vocabulary_) + 1, 5)
    places = [vectorizer.vocabulary_[word] for word in words]
    np.testing.assert_allclose(
        learned[places], vectors * (0.1 / np.sqrt((vectors**2).mean())), rtol=1e-4
    )


# Further items


@pytest.mark.parametrize("fit_biases", [True, False])
def test_extend_items_gives_new_items_the_factors_of_their_texts(
    pairs, texts, fit_biases
):
    X, y = pairs
    rated = X[:, 1] >= 5
    known = {i: text for i, text in texts.items() if i >= 5}
    model = fit_on(X[rated], known, y[rated], fit_biases=fit_biases)
    before = model.predict(X[rated])
    outputs = read_texts(model, [texts[i] for i in range(5)])
    model.extend_items({i: texts[i] for i in (3, 0, 1, 2, 4)})
    assert model.items_.tolist() == list(range(N_ITEMS))
    np.testing.assert_allclose(model.item_factors_[:5], outputs[:, :3], atol=1e-6)
    np.testing.assert_array_equal(model.predict(X[rated]), before)
    assert np.ptp(model.predict([[user, 0] for user in range(20)])) > 0.1
    assert set(model.recommend([0], n_items=N_ITEMS)["item"]) > set(range(5))


def test_the_fitted_network_reads_texts_like_fit(model, data):
    outputs = read_texts(model, data.item_texts)
    np.testing.assert_allclose(outputs[:, :3], model.text_factors_, atol=1e-5)


def test_extend_items_adds_columns_after_a_fit_on_a_matrix(data):
    model = fit_on(data.R, data.item_texts)
    model.extend_items({N_ITEMS + 1: data.item_texts[1], N_ITEMS: data.item_texts[0]})
    assert model.n_features_in_ == N_ITEMS + 2
    R = data.R.copy()
    R.resize(N_USERS, N_ITEMS + 2)
    assert model.predict(R[:3]).shape == (3, N_ITEMS + 2)
    with pytest.raises(ValueError, match=f"columns {N_ITEMS + 2} to {N_ITEMS + 2}"):
        model.extend_items({N_ITEMS + 5: data.item_texts[2]})


@pytest.mark.parametrize(
    ("item_texts", "error", "match"),
    [
        ({0: "known"}, ValueError, "knows already"),
        ({N_ITEMS: ""}, ValueError, "has no text for item"),
        (["a text"], TypeError, "is a sequence"),
        ({"up": "a text"}, TypeError, "of type str"),
    ],
)
def test_bad_items_to_extend_by_are_refused(model, item_texts, error, match):
    with pytest.raises(error, match=match):
        model.extend_items(item_texts)


# Forms of texts


def test_texts_come_in_every_form(data, pairs, texts, model):
    mapping = fit_on(data.R, texts)
    of_pairs = fit_on(pairs[0], ItemTexts(texts), pairs[1])
    for other in (mapping, of_pairs):
        np.testing.assert_array_equal(other.item_factors_, model.item_factors_)


def test_a_search_passes_wrapped_texts_whole(pairs, texts):
    X, y = pairs[0][:N_ITEMS], pairs[1][:N_ITEMS]  # as many samples as texts
    search = GridSearchCV(
        make(ConvMFRegressor),
        {"lambda_u": [1.0, 2.0]},
        cv=KFold(2),
        error_score="raise",
    )
    search.fit(X, y, item_texts=ItemTexts(texts))
    assert len(search.best_estimator_.items_) == N_ITEMS
    with pytest.raises((TypeError, KeyError)):
        clone(search).fit(X, y, item_texts=texts)


# Parameters


@pytest.mark.parametrize(
    ("params", "match"),
    [
        ({"window_sizes": ()}, "window_sizes must be"),
        ({"window_sizes": (0, 3)}, "window_sizes must be"),
        ({"lambda_w": -1}, "lambda_w"),
        ({"dropout": 1.0}, "dropout"),
        ({"item_weight": "log"}, "item_weight"),
        ({"vectorizer": "tfidf"}, "vectorizer"),
        ({"word_vectors": 3}, "source"),
    ],
)
def test_bad_parameters_are_refused(data, params, match):
    with pytest.raises((ValueError, TypeError), match=match):
        make(ConvMFRegressor, **params).fit(data.R, item_texts=data.item_texts)


def test_warm_start_keeps_what_the_network_has_learned(data):
    params = {"warm_start": True, "max_iter": 5, "tol": 1.0}
    model = fit_on(data.R, data.item_texts, **params)
    texts = model.text_factors_
    model.fit(data.R, item_texts=data.item_texts[::-1][::-1])
    correlation = np.corrcoef(texts.ravel(), model.text_factors_.ravel())[0, 1]
    assert correlation > 0.9


def test_warm_start_refuses_another_network(data):
    model = fit_on(data.R, data.item_texts, warm_start=True)
    with pytest.raises(ValueError, match="warm_start=True cannot continue a fit whose"):
        model.set_params(n_filters=3).fit(data.R, item_texts=data.item_texts)


@pytest.mark.parametrize(
    ("vectorizer", "match"),
    [(TfidfVectorizer(), "TfidfVectorizer that returns"),
     (make_pipeline(SequenceVectorizer()), "Pipeline that returns ndarray")],
)  # fmt: skip
def test_a_vectorizer_of_another_kind_is_refused(data, vectorizer, match):
    with pytest.raises(TypeError, match=match):
        fit_on(data.R, data.item_texts, vectorizer=vectorizer)


@pytest.mark.parametrize("vectors", [{"nope": np.ones(3)}, {"zero": np.zeros(3)}])
def test_word_vectors_of_no_word_are_refused(data, vectors):
    with pytest.raises(ValueError, match="none of the words in the texts, or zeros"):
        fit_on(data.R, data.item_texts, word_vectors=vectors)


def test_texts_shorter_than_a_window_work(data):
    titles = [f"Movie{j} Two{j}" for j in range(N_ITEMS)]
    model = fit_on(data.R, titles, max_iter=2)
    model.extend_items({N_ITEMS: "movie1", N_ITEMS + 1: "movie2 two3"})
    rows = data.R[:2].copy()
    rows.resize(2, N_ITEMS + 2)
    assert np.isfinite(model.predict(rows)).all()


def test_a_network_that_diverges_keeps_finite_weights(data, without_limits):
    with pytest.warns(ConvergenceWarning, match="Lower learning_rate_init"):
        model = fit_on(data.R, data.item_texts, learning_rate_init=1e38)
    assert all(np.isfinite(w).all() for w in model.text_weights_.values())
    assert np.isfinite(model.predict(data.R)).all()
