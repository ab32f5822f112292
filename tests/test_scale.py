"""Predictions are the same whatever the unit of the ratings."""

import inspect

import numpy as np
import pytest
from helpers import (
    MODELS,
    TEXT_CLASSES,
    TEXTS,
    fit,
    name_of,
    small,
    without_columns,
)
from sklearn.base import clone

from skrec import (
    BayesianMFRegressor,
    BiasedMFRegressor,
    CTRRegressor,
    PMFRegressor,
    SVDppRegressor,
)
from skrec._data.ratings import Scale

pytestmark = pytest.mark.filterwarnings("ignore:.* stopped at max_iter")

# Factors and offsets that turn 1 to 5 stars into other units: 0 to 100, -10 to 10, half
# steps, small differences and large numbers.
UNITS = [(25, -25), (5, -15), (0.5, 0), (1e-3, 1), (1e6, 0)]

each_model = pytest.mark.parametrize("recommender", MODELS, ids=name_of)


def in_unit(R, factor, offset):
    R = R.copy()
    R.data = factor * R.data + offset
    return R


def default_penalties(recommender):
    parameters = inspect.signature(type(recommender)).parameters
    names = [n for n in parameters if n.startswith(("lambda_", "alpha"))]
    return {name: parameters[name].default for name in names}


def answers(model, R):
    """Predictions of known, cold and unseen users and items, and of rows."""
    users, items = np.meshgrid([*range(0, 80, 5), 999], [*range(50), 999])
    pairs = np.column_stack([users.ravel(), items.ravel()])
    found = [model.predict(pairs), model.predict(R).ravel()]
    if isinstance(model, TEXT_CLASSES):
        model.extend_items({50: TEXTS[0]})
        found.append(model.predict([[0, 50]]))
    return np.concatenate(found)


@pytest.mark.parametrize("case", ["given", "default", "weighted", "stopped"])
@each_model
def test_predictions_follow_the_unit_of_the_ratings(recommender, case, R):
    params, weights = {"dtype": "float64"}, None
    if case == "default":
        params |= default_penalties(recommender)
    elif case == "weighted":
        weights = np.random.default_rng(0).uniform(0.5, 2, R.shape[0])
    elif case == "stopped":
        if "early_stopping" not in recommender.get_params():
            pytest.skip("has no early_stopping")
        params["early_stopping"] = True
    if "dtype" not in recommender.get_params():
        del params["dtype"]
    trained = without_columns(R, range(45, 50))  # these items have texts only

    def fitted(factor, offset):
        model, rows = clone(recommender), in_unit(trained, factor, offset)
        return fit(model.set_params(**params), rows, sample_weight=weights)

    model = fitted(1, 0)
    score, expected = model.score(R), answers(model, R)
    for factor, offset in UNITS:
        model, rows = fitted(factor, offset), in_unit(R, factor, offset)
        assert model.score(rows) == pytest.approx(score, abs=1e-6)
        found = (answers(model, rows) - offset) / factor
        np.testing.assert_allclose(found, expected, atol=1e-6 * expected.std())


@pytest.mark.parametrize("factor", [25, 1e-3])
@pytest.mark.parametrize("implicit", [True, False])
def test_standard_deviations_follow_the_unit_of_the_ratings(R, implicit, factor):
    model = small(BayesianMFRegressor, implicit=implicit, dtype="float64")
    pairs = [[0, 1], [2, 30], [0, 999]]
    for X in (pairs, R):
        _, expected = clone(model).fit(R).predict(X, return_std=True)
        scaled = in_unit(R, factor, 7)
        rows = scaled if X is R else X
        _, std = clone(model).fit(scaled).predict(rows, return_std=True)
        np.testing.assert_allclose(std, factor * expected, rtol=1e-6)


@each_model
def test_a_large_offset_costs_only_the_precision_of_the_ratings(recommender, R):
    model = fit(clone(recommender), R)
    moved = fit(clone(recommender), in_unit(R, 1, 1e9))
    difference = moved.predict(in_unit(R, 1, 1e9)) - 1e9 - model.predict(R)
    assert np.abs(difference).max() < 1e-3 * model.rating_std_


@pytest.mark.parametrize("recommender", MODELS, ids=name_of)
def test_equal_ratings_are_predicted_as_they_are(recommender, R):
    rows = in_unit(R, 0, 3.7)
    model = fit(clone(recommender), rows)
    assert model.rating_std_ == 0
    np.testing.assert_allclose(model.predict(rows), 3.7)
    np.testing.assert_allclose(model.predict([[0, 1], [999, 1]]), 3.7)
    if isinstance(model, PMFRegressor | BiasedMFRegressor | SVDppRegressor):
        model.clip = False  # all targets are 0
        np.testing.assert_allclose(model.predict(rows), 3.7, atol=1e-4)


@pytest.mark.parametrize(
    "recommender",
    [small(cls) for cls in (PMFRegressor, BiasedMFRegressor, SVDppRegressor)],
    ids=name_of,
)
def test_warm_starts_continue_in_another_unit(recommender, R):
    model = clone(recommender).set_params(warm_start=True).fit(R)
    last = model.loss_curve_[-1]
    model.fit(in_unit(R, 25, -25))
    # The precisions of links are those of other axes, which have other priors.
    assert model.loss_curve_[0] <= last * (1 + 1e-4)


@pytest.mark.parametrize("fit_intercept", [True, False])
def test_without_normalize_y_users_solve_ridge_regressions_of_the_ratings(
    R, fit_intercept
):
    model = PMFRegressor(
        n_factors=3, lambda_u=4.0, lambda_v=3.0, fit_intercept=fit_intercept,
        normalize_y=False, tol=1e-9, max_iter=5000, dtype="float64", random_state=0,
    ).fit(R)  # fmt: skip
    assert model.intercept_ == (model.global_mean_ if fit_intercept else 0)
    for u in range(10):
        row = R[[u]].tocsr()
        V = model.item_factors_[row.indices]
        targets = V.T @ (row.data - model.intercept_)
        expected = np.linalg.solve(V.T @ V + 4.0 * np.eye(3), targets)
        np.testing.assert_allclose(model.user_factors_[u], expected, atol=1e-3)
    everyone = model.user_factors_ @ model.item_factors_.T + model.intercept_
    expected = np.clip(everyone, *model.rating_range_)
    np.testing.assert_allclose(model.predict(R), expected, atol=1e-2)


@pytest.mark.parametrize(
    ("cls", "params", "powers"),
    [
        (PMFRegressor, {}, {"lambda_u": 1, "lambda_v": 1}),
        (
            CTRRegressor,
            {"refine": False, "lda_max_iter": 2},
            {"lambda_u": 0, "lambda_v": 2},
        ),
    ],
)
def test_penalties_for_ratings_as_they_are_can_be_converted(R, cls, params, powers):
    """Penalties times powers of the standard deviation have the same effect."""
    params = params | dict.fromkeys(powers, 3.0)
    model = small(cls, tol=1e-9, max_iter=5000, dtype="float64", **params)
    R = in_unit(R, 4, 0)
    normalized = fit(clone(model), R)
    std = normalized.rating_std_
    raw = {name: 3.0 * std**power for name, power in powers.items()}
    expected = fit(clone(model).set_params(normalize_y=False, **raw), R)
    atol = 1e-3 * std
    np.testing.assert_allclose(normalized.predict(R), expected.predict(R), atol=atol)


def test_standardized_ratings_are_the_same_numbers_in_all_units(pairs):
    _, y = pairs
    expected = Scale(y.mean(), y.std()).standardize(y)
    for factor, offset in UNITS:
        values = factor * y + offset
        found = Scale(values.mean(), values.std()).standardize(values)
        np.testing.assert_allclose(found, expected, rtol=0, atol=2.0**-29)
    assert expected.std() == pytest.approx(1)
