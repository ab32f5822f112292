"""Behavior that all factorizations with texts share."""

import joblib
import numpy as np
import pytest
from helpers import left_out, without_columns
from helpers import make_factorization as make
from sklearn import config_context
from sklearn.base import clone
from sklearn.feature_extraction.text import HashingVectorizer
from sklearn.metrics import root_mean_squared_error
from sklearn.model_selection import GridSearchCV, GroupKFold

from skrec import (
    BiasedMFRegressor,
    CDLRegressor,
    ConvMFRegressor,
    CTRRegressor,
    PMFRegressor,
)
from skrec.datasets import make_ratings
from skrec.model_selection import ratings_to_samples, samples_to_ratings
from skrec.text import ItemTexts, SequenceVectorizer

# Models without texts are compared on unseen items, and folds may have unseen users.
pytestmark = pytest.mark.filterwarnings("ignore:.* have an unseen (user|item)")

N_USERS, N_ITEMS = 200, 150
CLASSES = [ConvMFRegressor, CTRRegressor, CDLRegressor]
PARAMS = {
    ConvMFRegressor: {
        "n_filters": 20, "embedding_dim": 20, "n_hidden": 20, "network_epochs": 10,
        "max_iter": 20, "word_dropout": 0.0,
    },
    CTRRegressor: {"n_factors": 6, "lambda_u": 0.2, "lambda_v": 50.0, "tol": 1e-3},
    CDLRegressor: {
        "hidden_layer_sizes": (20,), "network_epochs": 10, "batch_size": 50,
        "max_iter": 15,
    },
}  # fmt: skip


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


@pytest.fixture(params=CLASSES, ids=lambda cls: cls.__name__)
def cls(request):
    return request.param


@pytest.fixture(params=CLASSES[1:], ids=lambda cls: cls.__name__)
def bag_cls(request):
    return request.param


def fit_on(cls, X, item_texts, y=None, **params):
    model = make(cls, **({"n_factors": 3, "lambda_v": 5.0} | PARAMS[cls] | params))
    return model.fit(X, y, item_texts=item_texts)


def cold_error(cls, pairs, texts):
    """RMSE on items without ratings, with and without texts."""
    X, y = pairs
    train, test = next(GroupKFold(4).split(X, groups=X[:, 1]))
    baseline = BiasedMFRegressor(n_factors=3, random_state=0).fit(X[train], y[train])
    model = fit_on(cls, X[train], texts, y[train])
    return [root_mean_squared_error(y[test], m.predict(X[test]))
            for m in (model, baseline)]  # fmt: skip


def test_texts_predict_ratings_of_cold_start_items(cls, pairs, texts):
    with_texts, without = cold_error(cls, pairs, texts)
    assert with_texts < without - 0.1


def test_texts_of_other_items_do_not_help(cls, pairs, texts):
    order = np.random.default_rng(0).permutation(N_ITEMS)
    shuffled = {i: texts[j] for i, j in enumerate(order.tolist())}
    with_texts, without = cold_error(cls, pairs, shuffled)
    assert with_texts > without - 0.02


@pytest.mark.parametrize("fit_biases", [True, False])
def test_extend_items_gives_the_same_factors_as_fit(cls, pairs, texts, fit_biases):
    """Items with the same text get the same factors, in fit or after it."""
    X, y = pairs
    rated = X[:, 1] >= 5
    model = fit_on(cls, X[rated], texts, y[rated], fit_biases=fit_biases)
    before = model.predict(X[rated])
    model.extend_items({N_ITEMS + i: texts[i] for i in (3, 0, 1, 2, 4)})
    assert model.items_.tolist() == list(range(N_ITEMS + 5))
    for name in ("item_factors_", "item_biases_", "text_factors_", "text_biases_"):
        values = getattr(model, name)
        np.testing.assert_allclose(values[-5:], values[:5], atol=1e-5)
    np.testing.assert_array_equal(model.predict(X[rated]), before)
    users = np.arange(50)
    ratings = [model.predict(np.column_stack([users, np.full(50, item)]))
               for item in (2, N_ITEMS + 2)]  # fmt: skip
    np.testing.assert_allclose(*ratings, atol=1e-4)
    assert np.ptp(ratings[0]) > 0.1


@pytest.mark.parametrize("fit_biases", [True, False])
def test_leaving_out_a_rating_of_a_cold_start_item_is_exact(cls, data, fit_biases):
    known, params = without_columns(data.R, range(20)), {"fit_biases": fit_biases}
    model = fit_on(cls, known, data.item_texts, dtype="float64", **params)
    rows = data.R[:4]
    found = model._predictor().predict_left_out(rows)
    np.testing.assert_allclose(found, left_out(model, rows), atol=1e-5)


@pytest.mark.parametrize(
    ("cls", "plain_cls"),
    [(CTRRegressor, PMFRegressor), (CDLRegressor, BiasedMFRegressor)],
)
def test_without_texts_it_is_a_plain_factorization(cls, plain_cls, data):
    with pytest.warns(UserWarning, match="There are no item_texts"):
        model = make(cls, max_iter=40, tol=1e-4, n_iter_no_change=2).fit(data.R)
    plain = make(plain_cls, tol=1e-4, max_iter=model.max_iter).fit(data.R)
    np.testing.assert_array_equal(model.item_factors_, plain.item_factors_)
    assert model.text_factors_ is None
    with pytest.raises(ValueError, match="fitted without texts"):
        model.extend_items({N_ITEMS: "a text"})


def test_a_text_without_known_words_is_ignored(cls, pairs, texts):
    X, y = pairs
    rated = X[:, 1] != 3
    model = fit_on(cls, X[rated], texts | {3: "the of and"}, y[rated])
    mean = np.delete(model.text_factors_, 3, axis=0).mean(axis=0)
    np.testing.assert_allclose(model.text_factors_[3], mean, atol=1e-6)
    assert model.predict([[0, 3]])[0] == pytest.approx(model.user_means_[0])
    with pytest.raises(ValueError, match="text of item 999 has no word"):
        model.extend_items({999: "zzz the"})


@pytest.mark.parametrize(
    ("vectorizer", "match"),
    [(SequenceVectorizer(), "SequenceVectorizer that returns ndarray"),
     (HashingVectorizer(), "HashingVectorizer that returns negative entries")],
)  # fmt: skip
def test_a_vectorizer_of_another_kind_is_refused(bag_cls, data, vectorizer, match):
    with pytest.raises(TypeError, match=match):
        fit_on(bag_cls, data.R, data.item_texts, vectorizer=vectorizer)


def test_texts_without_words_are_refused(bag_cls, data):
    with pytest.raises(ValueError, match="cannot learn from the 150 texts"):
        fit_on(bag_cls, data.R, ["the of"] * N_ITEMS)
    hashing = HashingVectorizer(stop_words="english", alternate_sign=False)
    with pytest.raises(ValueError, match="no word that the HashingVectorizer knows"):
        fit_on(bag_cls, data.R, ["the of"] * N_ITEMS, vectorizer=hashing)


def test_warm_start_keeps_what_was_learned_from_texts(bag_cls, data):
    model = fit_on(bag_cls, data.R, data.item_texts, warm_start=True)
    words, codes = model.vectorizer_, model.text_factors_
    model.fit(data.R, item_texts=[*data.item_texts[:-1], "quite other words"])
    assert model.vectorizer_ is words
    correlation = np.corrcoef(codes[:-1].ravel(), model.text_factors_[:-1].ravel())
    assert correlation[0, 1] > 0.9
    with pytest.raises(ValueError, match="use warm_start=False"):
        model.set_params(n_factors=7).fit(data.R, item_texts=data.item_texts)


def test_an_extended_model_can_be_saved_scored_and_refitted(
    cls, pairs, texts, tmp_path
):
    X, y = pairs
    rated = X[:, 1] >= 5
    known = {i: text for i, text in texts.items() if i >= 5}
    model = fit_on(cls, X[rated], known, y[rated], warm_start=True)
    model.extend_items({0: texts[0]}).extend_items({i: texts[i] for i in (2, 1)})
    joblib.dump(model, tmp_path / "model")
    copy = joblib.load(tmp_path / "model", mmap_mode="r")
    np.testing.assert_array_equal(copy.predict(X[:50]), model.predict(X[:50]))
    copy.extend_items({3: texts[3], 4: texts[4]})
    R = samples_to_ratings(X, y, items=copy.items_)[0]
    assert copy.score(R) > 0.2
    assert copy.transform(R).shape == (N_USERS, copy.n_factors)
    assert copy.fit(X, y, item_texts=texts).predict(X).shape == y.shape


def test_texts_are_routed_without_a_request(cls, pairs, texts):
    X, y = pairs
    model = make(cls, **PARAMS[cls])
    with config_context(enable_metadata_routing=True):
        search = GridSearchCV(model, {"lambda_u": [1.0, 1e4]}, cv=2)
        search.fit(X, y, item_texts=ItemTexts(texts))
    assert search.best_estimator_.text_factors_.any()
    assert search.best_params_ == {"lambda_u": 1.0}


def test_memory_keeps_vectorized_texts(cls, pairs, texts, tmp_path):
    plain = make(cls, **PARAMS[cls]).set_params(max_iter=2, tol=1e9, n_iter_no_change=1)
    kept = clone(plain).set_params(memory=str(tmp_path))
    for lambda_u in (1.0, 2.0):
        models = [m.set_params(lambda_u=lambda_u) for m in (plain, kept)]
        a, b = (m.fit(*pairs, item_texts=texts).item_factors_ for m in models)
        np.testing.assert_array_equal(a, b)
    assert len(list(tmp_path.rglob("output.pkl"))) == 1
    kept.set_params(vectorizer=clone(kept.vectorizer_).set_params(max_features=20))
    kept.fit(*pairs, item_texts=texts)
    assert len(list(tmp_path.rglob("output.pkl"))) == 2
