import joblib
import numpy as np
import pytest
import torch
from helpers import make_factorization as make
from sklearn import config_context
from sklearn.base import clone
from sklearn.exceptions import ConvergenceWarning
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.metrics import root_mean_squared_error
from sklearn.model_selection import GridSearchCV, GroupKFold, KFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer

from skrec import BiasedMFRegressor, ConvMFRegressor
from skrec._core.ridge import solve_rows
from skrec._fitting import Fit
from skrec._texts.network_prior import read
from skrec.datasets import make_ratings
from skrec.model_selection import ratings_to_samples, samples_to_ratings
from skrec.text import ItemTexts, SequenceVectorizer, WordVectors

N_USERS, N_ITEMS = 200, 150


@pytest.fixture(scope="module")
def data():
    """Ratings of which much can be told from the texts of the items."""
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
    defaults = {"n_filters": 20, "embedding_dim": 20, "hidden_dim": 20}
    defaults |= {"n_factors": 3, "lambda_v": 5.0, "cnn_epochs": 10, "max_iter": 20}
    defaults |= {"word_dropout": 0.0, "learning_rate_init": 0.001}
    model = make(ConvMFRegressor, **(defaults | params))
    return model.fit(X, y, item_texts=item_texts, sample_weight=sample_weight)


def read_texts(model, texts):
    sequences = model.vectorizer_.transform(texts)
    return read(model.text_weights_, sequences, torch.device("cpu"))


def cold_error(pairs, texts):
    """RMSE on items without any rating, and that of the users' means."""
    X, y = pairs
    train, test = next(GroupKFold(4).split(X, groups=X[:, 1]))
    model = fit_on(X[train], texts, y[train])
    baseline = BiasedMFRegressor(n_factors=3, random_state=0).fit(X[train], y[train])
    errors = [root_mean_squared_error(y[test], m.predict(X[test]))
              for m in (model, baseline)]  # fmt: skip
    return np.array(errors)


def test_texts_predict_ratings_of_cold_start_items(pairs, texts):
    with_texts, without = cold_error(pairs, texts)
    assert with_texts < without - 0.1


def test_texts_of_other_items_tell_nothing(pairs, texts):
    """Shuffled among the items, the same texts gain nothing."""
    order = np.random.default_rng(0).permutation(N_ITEMS)
    shuffled = {i: texts[j] for i, j in enumerate(order.tolist())}
    with_texts, without = cold_error(pairs, shuffled)
    assert with_texts > without - 0.02


def test_a_cold_item_is_predicted_as_its_text_says(pairs, texts):
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
def test_an_item_of_the_text_alone_is_liked_beyond_it(pairs, texts, fit_biases):
    """By as much as the items that the user has rated are, on average."""
    X, y = pairs
    weights = np.tile([1, 2], len(X))[: len(X)]
    rated = X[:, 1] >= 5
    model = fit_on(
        X[rated], texts | {7: None}, y[rated], fit_biases=fit_biases, clip=False,
        sample_weight=weights[rated],
    )  # fmt: skip
    sums = model.user_factors_ @ (model.item_factors_ - model.text_factors_).T
    sums += model.item_biases_ - model.text_biases_
    for user in (0, 1):
        own = rated & (X[:, 0] == user) & (X[:, 1] != 7)
        w = weights[own]
        expected = (w @ sums[user, X[own, 1]]) / (w.sum() + 5)
        assert model.user_text_biases_[user] == pytest.approx(expected, abs=1e-5)
        plain = model.user_factors_[user] @ model.text_factors_[0] + model.intercept_
        plain += model.user_biases_[user] + model.text_biases_[0]
        ratings = model.predict([[user, 0]]), model.recommend([user], N_ITEMS)
        assert ratings[0] == pytest.approx(plain + expected, abs=1e-5)
        table = ratings[1].set_index("item")["rating"]
        assert table[0] == pytest.approx(plain + expected, abs=1e-5)


@pytest.mark.parametrize("fit_biases", [True, False])
def test_leaving_out_a_rating_of_a_cold_item_is_exact(data, fit_biases):
    R = data.R.tolil()
    R[:, :20] = 0
    known = R.tocsr()
    known.eliminate_zeros()
    model = fit_on(known, data.item_texts, fit_biases=fit_biases, dtype="float64")
    rows = data.R[:8]
    left_out = model._predictor().predict_left_out(rows)
    for entry, (u, i) in enumerate(zip(*rows.nonzero(), strict=True)):
        others = rows[[u]].copy()
        others.data[others.indices == i] = 0
        others.eliminate_zeros()
        expected = model.predict(others)[0, i]
        assert left_out[entry] == pytest.approx(expected, abs=1e-6)


def test_an_item_without_text_is_drawn_to_the_mean_of_texts(data):
    texts = list(data.item_texts)
    texts[3] = None
    model = fit_on(data.R, texts)
    others = np.delete(model.text_factors_, 3, axis=0)
    np.testing.assert_allclose(model.text_factors_[3], others.mean(axis=0), atol=1e-6)
    assert np.ptp(others, axis=0).min() > 0.01


def test_items_solve_for_their_texts_and_ratings(data):
    """The last half step: a ridge regression with the prior of one fit before."""
    model = fit_on(
        data.R, data.item_texts, max_iter=1, cnn_epochs=1, learning_rate_init=1e-12,
        fit_biases=False, dtype="float64",
    )  # fmt: skip
    by_item = data.R.T.tocsr()
    expected = solve_rows(
        torch.tensor(by_item.indptr),
        torch.tensor(by_item.indices),
        torch.tensor(by_item.data - model.intercept_),
        torch.tensor(model.user_factors_),
        5.0,
        prior=torch.tensor(model.text_factors_),
        intercept=False,
    )
    np.testing.assert_allclose(model.item_factors_, expected.coef, atol=1e-4)


def test_the_network_learns_the_items(model):
    rated = model.item_factors_, model.text_factors_
    correlation = np.corrcoef(rated[0].ravel(), rated[1].ravel())[0, 1]
    assert correlation > 0.5


@pytest.mark.filterwarnings("error")
def test_without_texts_it_is_a_plain_factorization(data):
    with pytest.warns(UserWarning, match="There are no item_texts"):
        model = make(ConvMFRegressor, tol=1e-4, n_iter_no_change=2).fit(data.R)
    plain = make(BiasedMFRegressor).fit(data.R)
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


def test_word_vectors_are_where_the_words_start(data):
    vectorizer = SequenceVectorizer().fit(data.item_texts)
    words = list(vectorizer.vocabulary_)[:10]
    vectors = np.random.default_rng(0).normal(0, 3, (10, 5)).astype(np.float32)
    model = fit_on(
        data.R, data.item_texts, word_vectors=WordVectors(words, vectors), max_iter=1,
        cnn_epochs=1, learning_rate_init=1e-12,
    )  # fmt: skip
    learned = model.text_weights_["vectors"]
    assert learned.shape == (len(vectorizer.vocabulary_) + 1, 5)
    places = [vectorizer.vocabulary_[word] for word in words]
    np.testing.assert_allclose(
        learned[places], vectors * (0.1 / np.sqrt((vectors**2).mean())), rtol=1e-4
    )


# Further items


@pytest.mark.parametrize("fit_biases", [True, False])
def test_extend_items_predicts_as_if_they_had_been_there(pairs, texts, fit_biases):
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


def test_the_fitted_network_reads_texts_as_in_fit(model, data):
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
        ({"up": "a text"}, TypeError, "strings"),
    ],
)
def test_bad_further_items_are_refused(model, item_texts, error, match):
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
def test_word_vectors_that_say_nothing_are_refused(data, vectors):
    with pytest.raises(ValueError, match="none of the words in the texts, or zeros"):
        fit_on(data.R, data.item_texts, word_vectors=vectors)


def test_a_text_without_a_known_word_is_none(pairs, texts):
    X, y = pairs
    rated = X[:, 1] != 3
    silent = fit_on(X[rated], texts | {3: "the of and"}, y[rated])
    mean = np.delete(silent.text_factors_, 3, axis=0).mean(axis=0)
    np.testing.assert_allclose(silent.text_factors_[3], mean, atol=1e-6)
    expected = silent.user_means_[0]
    assert silent.predict([[0, 3]])[0] == pytest.approx(expected)
    with pytest.raises(ValueError, match="text of item 999 has no word"):
        silent.extend_items({999: "zzz the"})


def test_short_texts(data):
    titles = [f"Movie{j} Two{j}" for j in range(N_ITEMS)]
    model = fit_on(data.R, titles, max_iter=2)
    model.extend_items({N_ITEMS: "movie1", N_ITEMS + 1: "movie2 two3"})
    assert np.isfinite(model.predict(model._seen[:2].astype(float))).all()


def test_a_network_that_diverges_keeps_finite_weights(data):
    with pytest.warns(ConvergenceWarning, match="Lower learning_rate_init"):
        model = fit_on(data.R, data.item_texts, learning_rate_init=1e38)
    assert all(np.isfinite(w).all() for w in model.text_weights_.values())
    assert np.isfinite(model.predict(data.R)).all()


def test_an_extended_model_is_a_model_like_any_other(pairs, texts, tmp_path):
    X, y = pairs
    rated = X[:, 1] >= 5
    known = {i: text for i, text in texts.items() if i >= 5}
    model = fit_on(X[rated], known, y[rated], warm_start=True)
    model.extend_items({0: texts[0]}).extend_items({i: texts[i] for i in (2, 1)})
    joblib.dump(model, tmp_path / "model")
    copy = joblib.load(tmp_path / "model", mmap_mode="r")
    np.testing.assert_array_equal(copy.predict(X[:50]), model.predict(X[:50]))
    copy.extend_items({3: texts[3], 4: texts[4]})
    R = samples_to_ratings(X, y, items=copy.items_)[0]
    assert copy.score(R) > 0.2
    assert copy.transform(R).shape == (N_USERS, 3)
    assert copy.fit(X, y, item_texts=texts).predict(X).shape == y.shape


def test_texts_are_routed_unasked(pairs, texts):
    X, y = pairs
    pipeline = make_pipeline(FunctionTransformer(), make(ConvMFRegressor, max_iter=2))
    with config_context(enable_metadata_routing=True):
        search = GridSearchCV(pipeline, {"convmfregressor__lambda_u": [1.0, 1e4]}, cv=2)
        search.fit(X, y, item_texts=ItemTexts(texts))
    best = search.best_estimator_[-1]
    assert best.text_factors_.any()
    assert best.lambda_u == 1.0
