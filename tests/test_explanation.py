"""Predictions as sums of contributions."""

import copy

import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
import torch
from helpers import MODELS, fit, name_of, small
from sklearn.base import clone

from skrec import (
    AutoRecRegressor,
    BaselineRegressor,
    BayesianMFRegressor,
    BiasedMFRegressor,
    CDLRegressor,
    ConvMFRegressor,
    LLORMARegressor,
    PMFRegressor,
    RBMRegressor,
    SVDppRegressor,
)
from skrec._texts.split_text import split_text
from skrec.datasets import make_ratings
from skrec.model_selection import ratings_to_samples

pytestmark = [
    pytest.mark.filterwarnings("ignore:.* stopped at max_iter"),
    pytest.mark.filterwarnings("ignore:There are no item_texts"),
]
SIDES = ["user", "item"]
# Models whose users' vectors are not linear in their ratings, or are not split.
WHOLE = AutoRecRegressor, BaselineRegressor, LLORMARegressor, RBMRegressor


@pytest.fixture(scope="module", params=MODELS, ids=name_of)
def model(request, R):
    return fit(clone(request.param).set_params(clip=False), R)


@pytest.fixture(scope="module")
def data():
    return make_ratings(100, 60, density=0.3, n_factors=2, noise=0.2, random_state=0)


@pytest.fixture(scope="module")
def items(data):
    frame = pd.DataFrame(data.item_factors, columns=["a", "b"])
    return frame.assign(genres=np.where(frame["a"] > 0, "x|y", "y|z"))


@pytest.fixture(scope="module")
def users(data):
    return pd.DataFrame(data.user_factors, columns=["c", "d"])


@pytest.fixture(
    scope="module",
    params=[BiasedMFRegressor, SVDppRegressor, BayesianMFRegressor, ConvMFRegressor],
)
def described(request, data, items, users):
    """A model of items and users with features; items from 50 on have no rating."""
    X, y = ratings_to_samples(data.R)
    rated = (X[:, 1] < 50) & (X[:, 0] < 90)
    model = small(request.param, clip=False, n_factors=3)
    known = {"item_features": items, "user_features": users}
    if request.param is ConvMFRegressor:
        known["item_texts"] = dict(enumerate(data.item_texts))
    return model.fit(X[rated], y[rated], **known)


def predict(model, user, item):
    """Return the prediction of a user, an id or a row, for an item."""
    if sp.issparse(user):
        return model.predict(user)[0, item]
    return model.predict([[user, item]])[0]


@pytest.mark.parametrize("by", SIDES)
def test_contributions_sum_to_the_prediction(model, R, by):
    for user in (0, 5, 10**6, R[[4]], R[[4]] * 0):
        for item in (3, 7):
            found = model.explain(user, item, by=by)
            assert found.sum() == pytest.approx(predict(model, user, item), abs=1e-5)
            assert found.index.is_unique
    for user in (0, 10**6):
        found = model.explain(user, 10**6, by=by)
        assert found.sum() == pytest.approx(predict(model, user, 10**6))


@pytest.mark.parametrize("by", SIDES)
def test_contributions_of_features_and_texts_sum_to_the_prediction(described, by):
    for user in (0, 5, 95):
        for item in (3, 55):
            found = described.explain(user, item, by=by)
            expected = predict(described, user, item)
            assert found.sum() == pytest.approx(expected, abs=1e-5)
            assert set(found["item feature"].index) == {"a", "b", "genres"}
            assert set(found["user feature"].index) == {"c", "d"}
            assert ("text" in found) == isinstance(described, ConvMFRegressor)
            assert ("rated item" in found) == (by == "user" and user < 90)
            assert ("item ratings" in found) == (by == "item" and item < 50)


def test_predictions_before_clipping_are_explained(R):
    model = small(BiasedMFRegressor).fit(R)
    free = copy.copy(model).set_params(clip=False)
    found = free.predict(R)
    user, item = np.argwhere(found > model.rating_range_[1] + 0.01)[0]
    assert model.explain(R[[user]], item).sum() == pytest.approx(found[user, item])


def test_a_rating_changes_its_own_contribution_only(model, R):
    """By brute force: the vector of a new user is linear in the ratings."""
    if isinstance(model, WHOLE):
        pytest.skip("ratings have no contributions of their own")
    row = R[[4]].tocsr()
    before, changed = model.explain(row, 3), row.copy()
    rated = int(row.indices[2])
    changed.data[2] += 0.5
    after = model.explain(changed, 3)
    own = [("rated item", rated), ("user bias", "")]
    assert set(after.index) == set(before.index)
    difference = after.reindex(before.index) - before
    np.testing.assert_allclose(difference.drop(own, errors="ignore"), 0, atol=1e-6)
    assert difference[own[0]] != 0
    moved = predict(model, changed, 3) - predict(model, row, 3)
    assert difference.sum() == pytest.approx(moved, abs=1e-5)


def test_the_contribution_of_a_rating_is_its_share_of_the_normal_equations(R):
    model = small(PMFRegressor, dtype="float64", clip=False).fit(R)
    row = R[[4]].tocsr()
    Z = model.item_factors_[row.indices]
    ratings = (row.data - model.global_mean_) / model.rating_std_
    inverse = np.linalg.inv(Z.T @ Z + model.lambda_u * np.eye(2))
    expected = Z * ratings[:, np.newaxis] @ inverse @ model.item_factors_[3]
    found = model.explain(row, 3)["rated item"].loc[list(row.indices)]
    np.testing.assert_allclose(found, expected * model.rating_std_)


@pytest.mark.parametrize("cls", [BiasedMFRegressor, SVDppRegressor])
def test_features_of_an_item_change_their_own_contributions_only(cls, data, items):
    model = small(cls, clip=False).fit(data.R, item_features=items)
    new = items.iloc[[0, 0]].set_axis([60, 61])
    new.loc[61, "b"] += 1
    model.extend_items(new)
    one, other = (model.explain(3, item, by="item") for item in (60, 61))
    own = ("item feature", "b")
    np.testing.assert_allclose(one.drop(own), other.drop(own), atol=1e-6)
    moved = predict(model, 3, 61) - predict(model, 3, 60)
    assert abs(moved) > 1e-3
    assert other[own] - one[own] == pytest.approx(moved, abs=1e-5)


def test_features_of_a_user_change_their_own_contributions_only(data, users):
    model = small(BiasedMFRegressor, clip=False).fit(data.R, user_features=users)
    new = users.iloc[[0, 0]].set_axis([100, 101])
    new.loc[101, "d"] += 1
    model.extend_users(new)
    one, other = (model.explain(user, 3) for user in (100, 101))
    own = ("user feature", "d")
    np.testing.assert_allclose(one.drop(own), other.drop(own), atol=1e-6)
    moved = predict(model, 101, 3) - predict(model, 100, 3)
    assert other[own] - one[own] == pytest.approx(moved, abs=1e-5)


def test_new_items_of_convmf_are_explained(data, items):
    texts = dict(enumerate(data.item_texts))
    model = small(ConvMFRegressor, clip=False)
    model.fit(data.R, item_texts=texts, item_features=items)
    new = items.iloc[:2].set_axis([60, 61])
    model.extend_items({60: texts[0]}, item_features=new)
    for item in (60, 61):
        found = model.explain(2, item, by="item")
        assert found.sum() == pytest.approx(predict(model, 2, item), abs=1e-5)
        assert ("text", "words") in found or item == 61
    found = model.explain(2, 60, by="item", item_text=texts[0])
    assert found.sum() == pytest.approx(predict(model, 2, 60), abs=1e-5)
    assert found.index.is_unique
    assert {"text word", "text window"} < set(found.index.get_level_values("kind"))
    with pytest.raises(ValueError, match="not the text that item 61 had"):
        model.explain(2, 61, by="item", item_text=texts[0])


PENALTIES = {"lambda_u": 2.0, "lambda_v": 2.0}


@pytest.fixture(
    scope="module",
    params=[
        {},
        {"text_prior": "network"},
        {"text_prior": "linear"},
        PENALTIES,
        PENALTIES | {"fit_biases": False},
    ],
    ids=str,
)
def reader(request, data, items):
    """A ConvMF, and the texts of its items, of which those from 50 on are not rated."""
    texts = dict(enumerate(data.item_texts))
    known = {} if "lambda_u" in request.param else {"item_features": items}
    model = small(ConvMFRegressor, clip=False, max_iter=8, **request.param)
    X, y = ratings_to_samples(data.R[:, :50])
    return model.fit(X, y, item_texts=texts, **known), texts


@pytest.mark.parametrize("by", SIDES)
def test_a_text_is_split_into_words_and_windows(reader, by):
    model, texts = reader
    for item in (3, 55):
        whole = model.explain(5, item, by=by)
        found = model.explain(5, item, by=by, item_text=texts[item])
        assert found.index.is_unique
        assert found.sum() == pytest.approx(predict(model, 5, item), abs=1e-5)
        is_text = found.index.get_level_values("kind").str.startswith("text")
        assert found[is_text].sum() == pytest.approx(np.sum(whole.get("text", 0)))
        others = whole.drop("text", level=0, errors="ignore")
        pd.testing.assert_series_equal(found[~is_text], others)
        kinds = set(found.index.get_level_values("kind"))
        if by == "item" or model.fit_biases:
            is_auto = model.lambda_u == "auto"
            reads = is_auto and model.text_prior != "network"
            assert ("text word" in kinds) == reads
            assert ("text window" in kinds) == (model.text_prior != "linear")


def test_windows_have_the_integrated_gradients_of_the_network(data):
    """By brute force, with 2000 steps from the empty text to the text."""
    model = small(ConvMFRegressor, text_prior="network", max_iter=8, n_filters=3)
    model.fit(data.R, item_texts=data.item_texts)
    weights = {n: torch.tensor(w).double() for n, w in model.text_weights_.items()}
    sequence = model.vectorizer_.transform(data.item_texts[:1])[0]
    sequence = sequence[sequence != 0].tolist()
    names = {place: word for word, place in model.vectorizer_.vocabulary_.items()}
    empty, text, phrases = [], [], []
    for i, size in enumerate(model.window_sizes):
        filters, bias = weights[f"filters.{i}"], weights[f"filter_biases.{i}"]
        padded = [*sequence, *[0] * size]
        windows = [padded[at : at + size] for at in range(len(sequence) + 1)]
        vectors = torch.stack([weights["vectors"][w].flatten() for w in windows])
        best, place = (vectors @ filters.flatten(0, 1)).max(0)
        empty.append(torch.relu(bias))
        text.append(torch.relu(best + bias))
        phrases += [" ".join(names[i] for i in windows[at] if i) for at in place]
    empty, text = torch.cat(empty), torch.cat(text)
    steps = (torch.arange(2000) + 0.5).unsqueeze(1) / 2000
    path = (empty + steps * (text - empty)).requires_grad_()
    hidden = torch.tanh(path @ weights["hidden"] + weights["hidden_bias"])
    gradients = [
        torch.autograd.grad(output.sum(), path, retain_graph=True)[0].mean(0)
        for output in (hidden @ weights["output"]).T
    ]
    shares = torch.stack(gradients, 1) * (text - empty).unsqueeze(1)
    expected = pd.DataFrame(shares.numpy(), phrases).groupby(level=0).sum()
    (parts,) = split_text(model, 0, data.item_texts[0]).values()
    found = pd.DataFrame(parts.vectors, [name for _, name in parts.labels])
    assert set(found.index) == set(expected.index) - {""}
    expected = expected.loc[found.index]
    assert expected.abs().max().min() > 1e-4
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-8)


def test_only_the_text_of_the_fit_is_split(reader, R):
    model, texts = reader
    with pytest.raises(ValueError, match="item_text is not the text that item 3 had"):
        model.explain(5, 3, item_text=texts[4])
    with pytest.raises(ValueError, match="has no item 99"):
        model.explain(5, 99, item_text=texts[4])
    with pytest.raises(TypeError, match="item_text must be a str, got int"):
        model.explain(5, 3, item_text=4)
    with pytest.raises(TypeError, match="PMFRegressor cannot split item_text"):
        # Also where the prediction is a mean
        small(PMFRegressor).fit(R).explain(10**6, 3, item_text="x")
    with pytest.raises(TypeError, match="PMFRegressor cannot split item_text"):
        small(PMFRegressor).fit(R).explain(0, 3, item_text="x")
    with pytest.raises(ValueError, match="a model that was fitted with item_texts"):
        small(ConvMFRegressor).fit(R).explain(0, 3, item_text="x")


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("params", [{}, {"lambda_u": 2.0, "lambda_v": 2.0}], ids=str)
def test_little_remains_of_a_converged_fit(R, pairs, params, weighted):
    X, y = pairs
    weights = np.where(X[:, 1] % 2, 0.2, 3.0) if weighted else None
    model = BiasedMFRegressor(
        n_factors=2, random_state=0, max_iter=500, tol=1e-8, dtype="float64", **params
    ).fit(X, y, sample_weight=weights)
    for user in (0, 1):
        found = model.explain(user, 3)
        assert (
            abs(found.get(("remainder", ""), 0))
            < 0.02 * found["rated item"].abs().sum()
        )


def test_ids_of_any_kind_are_explained():
    X = [("ann", ("Up", 1)), ("ann", ("Heat", 2)), ("bob", ("Up", 1))]
    frame = pd.DataFrame(X, columns=["user", "film"])
    model = small(BiasedMFRegressor).fit(frame, [5, 2, 4])
    found = model.explain("ann", ("Heat", 2))
    assert set(found["rated item"].index) == {("Up", 1), ("Heat", 2)}


def test_bad_arguments_are_refused(R):
    model = small(PMFRegressor).fit(R)
    with pytest.raises(ValueError, match="by must be 'user' or 'item', got 'text'"):
        model.explain(0, 1, by="text")
    with pytest.raises(ValueError, match="user must be one user, got 2 rows"):
        model.explain(R[:2], 1)
    with pytest.raises(ValueError, match="row numbers, which are non-negative"):
        model.explain("ann", 1)
    with pytest.raises(ValueError, match="non-negative integers"):
        model.explain(0, -1)


def test_only_effects_of_a_nonlinear_output_are_not_split(R):
    model = small(AutoRecRegressor, baseline=False, out_activation="sigmoid").fit(R)
    found = model.explain(0, 3)
    assert found.index.get_level_values("kind").tolist() == ["mean", "network"]
    assert found.sum() == pytest.approx(predict(model, 0, 3), abs=1e-5)


def test_cdl_without_texts_is_explained(R):
    model = small(CDLRegressor, clip=False).fit(R)
    found = model.explain(0, 3, by="item")
    assert "text" not in found
    assert found.sum() == pytest.approx(predict(model, 0, 3), abs=1e-5)
