import numpy as np
import pytest
from scipy.special import logit
from sklearn.experimental import enable_halving_search_cv  # noqa: F401
from sklearn.metrics import root_mean_squared_error
from sklearn.model_selection import (
    GroupKFold,
)

from skrec import AutoRecRegressor
from skrec.datasets import make_ratings
from skrec.model_selection import ratings_to_samples

KINDS = ["item", "user"]
DEVICES = ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)]


def make(kind="item", **params):
    """A model that is fitted in a moment and, by default, has no dropout."""
    defaults = {
        "hidden_layer_sizes": (8,),
        "alpha": 5.0,
        "learning_rate_init": 0.02,
        "max_iter": 100,
        "input_dropout": 0.0,
        "random_state": 0,
    }
    return AutoRecRegressor(kind=kind, **(defaults | params))


@pytest.fixture(scope="module")
def pairs(R):
    return ratings_to_samples(R)


@pytest.fixture(scope="module", params=KINDS)
def model(request, R):
    return make(request.param, device="cpu").fit(R)


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


# Texts


@pytest.fixture(scope="module")
def dataset():
    """Ratings of which much can be told from the texts of the items."""
    return make_ratings(
        200, 150, density=0.15, n_factors=2, noise=0.2, text_words=60, random_state=0
    )


def test_texts_tell_ratings_of_items_that_nobody_has_rated(dataset):
    X, y = ratings_to_samples(dataset.R)
    train, test = next(GroupKFold(4).split(X, groups=X[:, 1]))
    texts = dict(enumerate(dataset.item_texts))
    model = make(hidden_layer_sizes=(50,), alpha=20.0, text_components=10)
    without = model.fit(X[train], y[train]).predict(X[test])
    with_texts = model.fit(X[train], y[train], item_texts=texts).predict(X[test])
    errors = [root_mean_squared_error(y[test], p) for p in (with_texts, without)]
    assert errors[0] < errors[1] - 0.1


def test_texts_are_a_further_input(dataset):
    texts = list(dataset.item_texts)
    texts[3] = None
    model = make(input_scaling=0.0, text_components=7)
    model.fit(dataset.R, item_texts=texts)
    (V,), (mu,) = model.encoder_coefs_, model.encoder_intercepts_
    assert model.text_coefs_.shape == (7, 8)
    side = np.linalg.lstsq(
        model.text_coefs_.T,
        (logit(model.item_factors_.astype(float)) - dataset.R.T @ V - mu).T,
    )[0].T
    np.testing.assert_allclose(side[3], 0, atol=1e-3)
    assert np.square(side).mean() == pytest.approx(149 / 150, abs=0.01)


def test_without_texts_the_model_is_the_plain_one(R):
    model = make().fit(R)
    assert model.text_coefs_ is None
    assert make(text_components=3).fit(R).loss_curve_ == model.loss_curve_


def test_texts_go_through_batches_and_layers(dataset):
    model = make(batch_size=16, hidden_layer_sizes=(6, 5), max_iter=5, warm_start=True)
    model.fit(dataset.R, item_texts=dataset.item_texts)
    model.fit(dataset.R, item_texts=dataset.item_texts)
    assert np.isfinite(model.predict(dataset.R)).all()


@pytest.mark.parametrize(
    ("kind", "item_texts", "match"),
    [
        ("user", ["a"] * 50, "kind='item'"),
        ("item", ["a"] * 49, "49 texts, but X has 50 columns"),
        ("item", ["the"] * 50, "no words to learn from"),
    ],
)
def test_bad_texts_are_refused(R, kind, item_texts, match):
    with pytest.raises(ValueError, match=match):
        make(kind).fit(R, item_texts=item_texts)
