"""ConvMF by variational Bayes: the paths from texts to items, and features."""

import numpy as np
import pandas as pd
import pytest
from sklearn.base import clone
from sklearn.metrics import root_mean_squared_error
from sklearn.model_selection import GroupKFold

from skrec import BiasedMFRegressor, ConvMFRegressor
from skrec.datasets import make_ratings
from skrec.model_selection import ratings_to_samples
from skrec.text import ItemTexts, SequenceVectorizer

pytestmark = [
    pytest.mark.filterwarnings("ignore:.* have an unseen (user|item)"),
    pytest.mark.filterwarnings("ignore:.*stopped at max_iter"),
    pytest.mark.filterwarnings("ignore:There are no item_texts"),
]
PATHS = ["both", "linear", "network"]


@pytest.fixture(scope="module")
def data():
    """Ratings that the texts of the items predict well."""
    return make_ratings(
        200, 150, density=0.15, n_factors=2, noise=0.2, text_words=60, random_state=0
    )


@pytest.fixture(scope="module")
def pairs(data):
    return ratings_to_samples(data.R)


@pytest.fixture(scope="module")
def texts(data):
    return dict(enumerate(data.item_texts))


def make(**params):
    small = {
        "n_factors": 4, "embedding_dim": 16, "n_filters": 12, "n_hidden": 16,
        "window_sizes": (1, 2), "lambda_w": 1.0, "word_dropout": 0.0,
        "learning_rate_init": 0.01, "network_epochs": 3, "random_state": 0,
    }  # fmt: skip
    return ConvMFRegressor(**(small | params))


@pytest.mark.parametrize("path", PATHS)
def test_texts_predict_items_without_ratings(pairs, texts, path):
    X, y = pairs
    train, test = next(GroupKFold(3).split(X, groups=X[:, 1]))
    model = make(text_prior=path).fit(X[train], y[train], item_texts=texts)
    plain = BiasedMFRegressor(n_factors=4, random_state=0).fit(X[train], y[train])
    error, means = (
        root_mean_squared_error(y[test], m.predict(X[test])) for m in (model, plain)
    )
    assert error < 0.85 * means
    assert bool(model.text_weights_) == (path != "linear")
    assert (model.item_feature_weights_ is None) == (path == "network")


def test_the_network_descends_the_objective(pairs, texts):
    """On top of the linear path, it explains what that leaves."""
    X, y = pairs
    losses = {
        path: make(text_prior=path, tol=0, max_iter=30, dtype="float64")
        .fit(X, y, item_texts=texts)
        .loss_curve_[-1]
        for path in ("both", "linear")
    }
    assert losses["both"] < losses["linear"] - 1


def test_a_strong_penalty_leaves_the_linear_path(pairs, texts):
    X, y = pairs
    both = make(lambda_w=1e6, dtype="float64").fit(X, y, item_texts=texts)
    linear = make(text_prior="linear", dtype="float64").fit(X, y, item_texts=texts)
    # They start from other random vectors.
    assert root_mean_squared_error(both.predict(X), linear.predict(X)) < 0.05


@pytest.mark.parametrize("path", PATHS)
def test_text_factors_are_what_texts_predict(pairs, texts, path):
    """The vectors of items without ratings; new items get them by extension."""
    X, y = pairs
    rated = X[:, 1] < 140
    known = {i: text for i, text in texts.items() if i < 145}
    model = make(text_prior=path, dtype="float64")
    model.fit(X[rated], y[rated], item_texts=known)
    cold = slice(140, 145)
    for kind in ("factors", "biases"):
        found = getattr(model, f"text_{kind}_")[cold]
        np.testing.assert_allclose(found, getattr(model, f"item_{kind}_")[cold])
    # The same texts again, as other items
    again = {200 + i: texts[i] for i in range(140, 145)}
    model.extend_items(again)
    np.testing.assert_array_equal(model.items_[145:], np.arange(340, 345))
    for name in ("text_factors_", "item_factors_", "text_biases_", "item_biases_"):
        values = getattr(model, name)
        np.testing.assert_allclose(values[145:], values[cold], atol=1e-8)
    predicted = model.predict([[0, 140], [0, 340]])
    assert predicted[0] == pytest.approx(predicted[1])
    assert np.isfinite(model.predict([[0, 340]], return_std=True)).all()


def test_texts_and_features(data, pairs, texts):
    X, y = pairs
    rng = np.random.default_rng(0)
    noisy = data.item_factors + rng.normal(0, 0.1, data.item_factors.shape)
    table = pd.DataFrame(noisy, columns=["a", "b"])[:120]
    some = {i: text for i, text in texts.items() if i >= 30}
    rated = (X[:, 1] >= 10) & (X[:, 1] < 140)
    model = make(dtype="float64")
    model.fit(X[rated], y[rated], item_texts=ItemTexts(some), item_features=table)
    assert list(model.item_feature_blocks_) == ["a", "b", "item_texts"]
    assert len(model.items_) == 150
    assert model._is_described.all()
    # Only features, only a text, and neither of a new item
    cold = np.r_[0:10, 140:150]
    assert root_mean_squared_error(
        y[~rated], model.predict(X[~rated])
    ) < 0.85 * root_mean_squared_error(y[~rated], np.full((~rated).sum(), y.mean()))
    np.testing.assert_allclose(
        model.text_factors_[cold], model.item_factors_[cold], atol=1e-8
    )
    rows = table[:5].set_axis(range(500, 505))
    model.extend_items(item_features=rows)
    model.extend_items(
        {600: texts[0], 601: texts[1]}, item_features=rows[:1].set_axis([601])
    )
    np.testing.assert_allclose(
        model.item_factors_[model.items_ == 500], model.item_factors_[:1], atol=1e-8
    )
    with pytest.raises(ValueError, match="Give item_texts or item_features"):
        model.extend_items()


def test_features_without_texts(data, pairs):
    X, y = pairs
    table = pd.DataFrame(data.item_factors, columns=["a", "b"])
    params = {"n_factors": 4, "random_state": 0, "dtype": "float64"}
    expected = BiasedMFRegressor(**params).fit(X, y, item_features=table)
    model = make(**params).fit(X, y, item_features=table)
    np.testing.assert_allclose(model.predict(X), expected.predict(X))
    assert model.text_factors_ is None


def test_both_forms_of_ratings_agree(data, pairs, texts):
    X, y = pairs
    model = make(dtype="float64", max_iter=5)
    of_pairs = clone(model).fit(X, y, item_texts=texts)
    of_matrix = clone(model).fit(data.R, item_texts=data.item_texts)
    np.testing.assert_array_equal(of_matrix.predict(X), of_pairs.predict(X))


@pytest.mark.parametrize("path", PATHS)
def test_left_out_is_a_refit_of_the_row(data, path):
    R = data.R.tolil()
    R[:, :30] = 0
    R = R.tocsr()
    R.eliminate_zeros()
    model = make(text_prior=path, dtype="float64", clip=False, max_iter=5)
    model.fit(R[:100], item_texts=data.item_texts)
    rows = data.R[100:103].tocsr()
    assert (rows.indices < 30).any()
    left_out = model._predictor().predict_left_out(rows)
    for entry in range(0, rows.nnz, 2):
        row = np.searchsorted(rows.indptr, entry, side="right") - 1
        others = rows[[row]].tolil()
        others[0, rows.indices[entry]] = 0
        others = others.tocsr()
        others.eliminate_zeros()
        expected = model.predict(others)[0, rows.indices[entry]]
        assert left_out[entry] == pytest.approx(expected, rel=1e-7)


@pytest.mark.parametrize("path", PATHS)
def test_warm_start_continues(pairs, texts, path):
    X, y = pairs
    model = make(text_prior=path, dtype="float64", tol=0, max_iter=15)
    model.fit(X, y, item_texts=texts)
    last = model.loss_curve_[-1]
    cold_start = model.loss_curve_[0]
    model.set_params(warm_start=True, max_iter=3).fit(X, y, item_texts=texts)
    # The network continues with the weights, and without the moments of Adam.
    assert abs(model.loss_curve_[0] - last) < 0.2 * abs(cold_start - last)


def test_numbers_are_the_model_of_the_paper(pairs, texts):
    X, y = pairs
    model = make(lambda_u=2.0, lambda_v=3.0, max_iter=3).fit(X, y, item_texts=texts)
    assert not hasattr(model, "item_feature_weights_")
    with pytest.raises(ValueError, match="needs the covariances"):
        model.predict(X, return_std=True)
    with pytest.raises(ValueError, match="both be 'auto' or both be numbers"):
        make(lambda_u=2.0).fit(X, y, item_texts=texts)
    table = pd.DataFrame({"a": np.arange(150)})
    with pytest.raises(ValueError, match="item_features needs lambda_u='auto'"):
        model.fit(X, y, item_texts=texts, item_features=table)
    with pytest.raises(ValueError, match="fitted without item_features"):
        model.extend_items(item_features=table)
    with pytest.raises(ValueError, match="fit_biases=False needs"):
        make(fit_biases=False).fit(X, y, item_texts=texts)
    with pytest.raises(ValueError, match="item_weight needs a lambda_v"):
        make(item_weight="sqrt").fit(X, y, item_texts=texts)


def test_new_texts_need_texts(data, pairs):
    X, y = pairs
    table = pd.DataFrame(data.item_factors, columns=["a", "b"])
    model = make().fit(X, y, item_features=table)
    with pytest.raises(ValueError, match="fitted without texts"):
        model.extend_items({400: "A text."})


def test_texts_with_the_same_words_have_no_linear_path(data):
    texts = [None] * 148 + ["red blue green", "green blue red"]
    model = make(vectorizer=SequenceVectorizer(max_df=1.0), max_iter=2)
    model.fit(data.R, item_texts=texts)
    assert model.item_feature_weights_ is None


def test_a_column_may_have_the_name_of_the_texts(data, texts):
    table = pd.DataFrame({"item_texts": [f"a{i % 4}" for i in range(150)]})
    model = make(text_prior="linear", max_iter=2)
    model.fit(data.R, item_texts=data.item_texts, item_features=table)
    assert list(model.item_feature_blocks_) == ["item_texts", "item_texts_"]
    new = table[:1].set_axis([150])
    model.extend_items({150: texts[0]}, item_features=new)
    np.testing.assert_allclose(
        model.text_factors_[150], model.text_factors_[0], atol=1e-5
    )


def test_corrections_follow_new_users_and_items(data, texts):
    X, y = ratings_to_samples(data.R[:, :100])
    some = {i: text for i, text in texts.items() if i < 100}
    people = pd.DataFrame(data.user_factors, columns=["a", "b"])
    model = make(max_iter=3).fit(X, y, item_texts=some, user_features=people)
    assert not model.user_text_biases_.any()
    model.extend_items({i: texts[i] for i in range(100, 150)})
    assert model.user_text_biases_.any()
    model.extend_users(people[:2].set_axis([500, 501]))
    assert len(model.user_text_biases_) == 202


def test_failed_joins_are_about_rated_items(data, texts):
    """Items that have only features are not expected to have texts."""
    X, y = ratings_to_samples(data.R[:, :30])
    table = pd.DataFrame({"a": np.arange(300)})
    own = {i: texts[i] for i in range(30)} | {1000 + i: texts[i] for i in range(40)}
    make(max_iter=2).fit(X, y, item_texts=own, item_features=table)
