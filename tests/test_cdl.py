import numpy as np
import pytest
from helpers import standardized
from sklearn.feature_extraction.text import TfidfVectorizer

from skrec import CDLRegressor
from skrec.datasets import make_ratings


@pytest.fixture(scope="module")
def data():
    return make_ratings(60, 40, density=0.3, text_words=40, random_state=0)


def fit_on(data, **params):
    defaults = {"n_factors": 4, "hidden_layer_sizes": (8,), "batch_size": 16}
    defaults |= {"max_iter": 10, "random_state": 0}
    model = CDLRegressor(**(defaults | params))
    return model.fit(data.R, item_texts=data.item_texts)


def network_of(model, texts):
    """Codes and reconstructions by dense products with the fitted weights."""
    x = model.vectorizer_.transform(texts).toarray()
    w, hidden, layers = model.text_weights_, x, []
    n_layers = sum(name.startswith("layers.") for name in w)
    for i in range(n_layers):
        hidden = np.tanh(hidden @ w[f"layers.{i}"] + w[f"biases.{i}"])
        layers.append(hidden)
    return layers[n_layers // 2], x, hidden @ w["decoder"].T + w["decoder_bias"]


@pytest.mark.parametrize("fit_biases", [True, False])
@pytest.mark.parametrize("hidden_layer_sizes", [(), (8,), (8, 6)])
def test_the_objective_equals_the_notes(data, fit_biases, hidden_layer_sizes):
    model = fit_on(
        data, fit_biases=fit_biases, hidden_layer_sizes=hidden_layer_sizes,
        lambda_u=2.0, lambda_v=3.0, lambda_n=4.0, lambda_w=0.5, dtype="float64",
    )  # fmt: skip
    codes, x, reconstructed = network_of(model, data.item_texts)
    np.testing.assert_allclose(model.text_factors_, codes[:, :4])
    if fit_biases:
        np.testing.assert_allclose(model.text_biases_, codes[:, 4])
    U, V = model.user_factors_, model.item_factors_
    sums = U @ V.T + model.intercept_
    sums += model.user_biases_[:, None] + model.item_biases_
    errors = (standardized(model, data.R.toarray()) - sums)[data.R.toarray() != 0]
    squares = (U**2).sum() + (model.user_biases_**2).sum()
    distances = ((V - model.text_factors_) ** 2).sum()
    distances += ((model.item_biases_ - model.text_biases_) ** 2).sum()
    weights = sum(
        (w**2).sum() for name, w in model.text_weights_.items() if "bias" not in name
    )
    expected = errors @ errors + 2 * squares + 3 * distances
    expected += 4 * ((x - reconstructed) ** 2).sum() + 0.5 * weights
    assert model.loss_curve_[-1] == pytest.approx(expected / 2)


def test_the_network_learns_the_texts_and_the_items(data):
    model = fit_on(data, lambda_n=1.0, lambda_w=0.01, network_epochs=20, max_iter=15)
    codes, x, reconstructed = network_of(model, data.item_texts)
    assert ((x - reconstructed) ** 2).sum() < 0.8 * ((x - x.mean(axis=0)) ** 2).sum()
    correlation = np.corrcoef(model.item_factors_.ravel(), codes[:, :4].ravel())
    assert correlation[0, 1] > 0.5


def test_default_bags_of_words_are_normalized_counts(data):
    model = fit_on(data, max_iter=1)
    bags = TfidfVectorizer(stop_words="english", max_df=0.5, use_idf=False)
    expected = bags.fit_transform(data.item_texts).toarray()
    found = model.vectorizer_.transform(data.item_texts).toarray()
    np.testing.assert_array_equal(found, expected)
    np.testing.assert_allclose((found**2).sum(axis=1), 1)


def test_input_dropout_changes_what_is_learned(data):
    plain, noisy = (fit_on(data, input_dropout=rate) for rate in (0.0, 0.5))
    assert abs(plain.text_factors_ - noisy.text_factors_).max() > 1e-4


@pytest.mark.parametrize(
    ("params", "match"),
    [
        ({"hidden_layer_sizes": (0,)}, "hidden_layer_sizes must be"),
        ({"hidden_layer_sizes": (2.5,)}, "hidden_layer_sizes must be"),
        ({"input_dropout": 1.0}, "input_dropout"),
        ({"lambda_n": -1}, "lambda_n"),
    ],
)
def test_bad_parameters_are_refused(data, params, match):
    with pytest.raises(ValueError, match=match):
        fit_on(data, **params)


def test_warm_start_refuses_another_network(data):
    model = fit_on(data, warm_start=True, max_iter=2)
    with pytest.raises(ValueError, match="warm_start=True cannot continue a fit whose"):
        model.set_params(hidden_layer_sizes=(3,)).fit(
            data.R, item_texts=data.item_texts
        )
