"""Factorizations with features of items and users."""

import pickle

import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
from sklearn import config_context
from sklearn.base import clone
from sklearn.compose import ColumnTransformer
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.metrics import root_mean_squared_error
from sklearn.model_selection import (
    GridSearchCV,
    GroupKFold,
    KFold,
    cross_val_score,
)
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, StandardScaler

from skrec import BayesianMFRegressor, BiasedMFRegressor, SVDppRegressor
from skrec._factorization.described import probability_of_new
from skrec.datasets import make_ratings
from skrec.features import FeatureEncoder, Features
from skrec.model_selection import ratings_to_samples

N_USERS, N_ITEMS = 150, 90
pytestmark = [
    pytest.mark.filterwarnings("ignore:.* have an unseen (user|item)"),
    pytest.mark.filterwarnings("ignore:.*stopped at max_iter"),
]
CLASSES = [BiasedMFRegressor, SVDppRegressor, BayesianMFRegressor]


@pytest.fixture(scope="module")
def data():
    return make_ratings(
        N_USERS, N_ITEMS, density=0.3, n_factors=2, noise=0.3, skew=0.0, random_state=0
    )


@pytest.fixture(scope="module")
def pairs(data):
    return ratings_to_samples(data.R)


@pytest.fixture(scope="module")
def items(data):
    """Factors of the items with errors, and a category."""
    rng = np.random.default_rng(0)
    factors = data.item_factors + rng.normal(0, 0.1, data.item_factors.shape)
    kind = np.where(data.item_biases > 0, "good", "bad")
    return pd.DataFrame({"a": factors[:, 0], "b": factors[:, 1], "kind": kind})


@pytest.fixture(scope="module")
def users(data):
    return pd.DataFrame(data.user_factors, columns=["a", "b"])


def make(cls=BiasedMFRegressor, **params):
    if issubclass(cls, BayesianMFRegressor):
        params = {"max_iter": 60} | params
    return cls(**({"n_factors": 4, "random_state": 0} | params))


def split_items(X):
    return next(GroupKFold(3).split(X, groups=X[:, 1]))


@pytest.mark.parametrize("cls", CLASSES)
def test_features_predict_items_without_ratings(cls, pairs, items):
    (X, y), (train, test) = pairs, split_items(pairs[0])
    model = make(cls).fit(X[train], y[train], item_features=items)
    error = root_mean_squared_error(y[test], model.predict(X[test]))
    plain = make(cls).fit(X[train], y[train])
    means = root_mean_squared_error(y[test], plain.predict(X[test]))
    assert error < 0.75 * means
    assert len(model.items_) == N_ITEMS
    # A ranking of items without ratings is one of what users like.
    best = model.recommend(np.arange(20), n_items=5, exclude_seen=False)
    assert set(best["item"]) - set(X[train][:, 1])


@pytest.mark.parametrize("cls", [BiasedMFRegressor, BayesianMFRegressor])
def test_features_predict_users_without_ratings(cls, pairs, users):
    (X, y) = pairs
    train, test = next(GroupKFold(3).split(X, groups=X[:, 0]))
    model = make(cls).fit(X[train], y[train], user_features=users)
    error = root_mean_squared_error(y[test], model.predict(X[test]))
    plain = make(cls).fit(X[train], y[train])
    means = root_mean_squared_error(y[test], plain.predict(X[test]))
    assert error < 0.85 * means
    std = model.predict(X[test], return_std=True)[1]
    assert std.mean() < plain.predict(X[test], return_std=True)[1].mean()
    assert len(model.transform(X[test][:3]).any(axis=1)) == 3


@pytest.mark.parametrize("cls", CLASSES)
def test_features_that_say_nothing_hardly_matter(cls, pairs):
    X, y = pairs
    noise = pd.DataFrame(np.random.default_rng(1).normal(size=(N_ITEMS, 10)))
    train, test = next(KFold(5, shuffle=True, random_state=0).split(X))
    errors = [
        root_mean_squared_error(
            y[test],
            make(cls).fit(X[train], y[train], item_features=table).predict(X[test]),
        )
        for table in (None, noise)
    ]
    assert errors[1] < 1.02 * errors[0]


@pytest.mark.parametrize("cls", CLASSES)
def test_both_forms_of_ratings_agree(cls, data, pairs, items, users):
    params = {"dtype": "float64"}
    X, y = pairs
    of_pairs = make(cls, **params).fit(X, y, item_features=items, user_features=users)
    shuffled = items.sample(frac=1, random_state=0)
    of_matrix = make(cls, **params).fit(
        data.R, item_features=shuffled, user_features=users.set_axis(range(5, 155))
    )
    np.testing.assert_array_equal(of_matrix.predict(X), of_pairs.predict(X))
    vectors = dict(enumerate(items[["a", "b"]].to_numpy()))
    arrays = [
        make(cls, **params).fit(data.R, item_features=table)
        for table in (items[["a", "b"]].to_numpy(), vectors, Features(vectors))
    ]
    for model in arrays:
        np.testing.assert_array_equal(model.predict(X), arrays[0].predict(X))


def test_sparse_and_dense_features_agree(monkeypatch, data):
    rng = np.random.default_rng(0)
    table = sp.csr_array(np.where(rng.random((N_ITEMS, 9)) < 0.2, 1.0, 0.0))
    pass_through = FunctionTransformer(accept_sparse=True)
    model = make(dtype="float64", item_encoder=pass_through)
    dense = clone(model).fit(data.R, item_features=table)
    monkeypatch.setattr("skrec._data.side_information._LARGE", 0)
    monkeypatch.setattr("skrec._data.side_information._DENSITY", 1)
    sparse = clone(model).fit(data.R, item_features=table)
    np.testing.assert_allclose(sparse.predict(data.R), dense.predict(data.R), rtol=1e-4)


@pytest.mark.parametrize("cls", CLASSES)
def test_left_out_is_a_refit_of_the_row(cls, data, items):
    """Also for ratings of items that were not rated in `fit`."""
    R = data.R.tolil()
    R[:, :20] = 0
    R = R.tocsr()
    R.eliminate_zeros()
    model = make(cls, dtype="float64", clip=False).fit(R[:100], item_features=items)
    rows = data.R[100:105].tocsr()
    assert (rows.indices < 20).any()
    left_out = model._predictor().predict_left_out(rows)
    for entry in range(0, rows.nnz, 2):
        row = np.searchsorted(rows.indptr, entry, side="right") - 1
        others = rows[[row]].tolil()
        others[0, rows.indices[entry]] = 0
        others = others.tocsr()
        others.eliminate_zeros()
        expected = model.predict(others)[0, rows.indices[entry]]
        assert left_out[entry] == pytest.approx(expected, rel=1e-7)


def test_parts_of_a_prediction_add_up(pairs, items):
    """The attributes explain the vector of an item that has features alone."""
    X, y = pairs
    train = X[:, 1] >= 10
    model = make(dtype="float64").fit(X[train], y[train], item_features=items)
    encoded = model.item_encoder_.transform(items)
    vectors = np.tile(model.item_prior_mean_, (N_ITEMS, 1))
    for block in model.item_feature_blocks_.values():
        centered = encoded[:, block] - model.item_feature_center_[block]
        vectors += centered @ model.item_feature_weights_[block]
    assert list(model.item_feature_blocks_) == ["a", "b", "kind"]
    np.testing.assert_allclose(vectors[:10, :-1], model.item_factors_[:10], atol=1e-8)
    np.testing.assert_allclose(vectors[:10, -1], model.item_biases_[:10], atol=1e-8)
    assert len(model.item_feature_names_) == encoded.shape[1]


@pytest.mark.parametrize("cls", CLASSES)
def test_extend_items(cls, pairs, items):
    (X, y), new = pairs, np.arange(80, 90)
    train = X[:, 1] < 80
    model = make(cls).fit(X[train], y[train], item_features=items[:80])
    whole = make(cls).fit(X[train], y[train], item_features=items)
    before = model.predict(X[train])
    assert model.extend_items(items[80:]) is model
    np.testing.assert_array_equal(model.items_, np.arange(90))
    np.testing.assert_allclose(model.predict(X[train]), before)
    # Encoder and centers know the new items only if they were in `fit`.
    error, expected = (
        root_mean_squared_error(y[~train], m.predict(X[~train])) for m in (model, whole)
    )
    assert error < 1.1 * expected
    found = model.recommend([0, 1], n_items=90, exclude_seen=False)
    assert set(new) <= set(found["item"])
    std = model.predict(X[~train], return_std=True)[1]
    assert np.isfinite(std).all()
    if cls is not BayesianMFRegressor:
        model.set_params(warm_start=True).fit(X, y, item_features=items)
        assert model.score(X, y) > 0.5


def test_extend_a_matrix(data, items):
    model = make().fit(data.R[:, :80], item_features=items[:80])
    model.extend_items(items[80:])
    assert model.predict(data.R[:3]).shape == (3, 90)
    assert model.n_features_in_ == 90
    with pytest.raises(ValueError, match="new items are columns 90 to 91"):
        model.extend_items(items[:2].set_axis([0, 91]).drop(0).reindex([91, 95]))


@pytest.mark.parametrize("cls", CLASSES)
def test_extend_users(cls, pairs, users):
    X, y = pairs
    train = X[:, 0] < 140
    model = make(cls).fit(X[train], y[train], user_features=users[:140])
    before, std = model.predict(X[train], return_std=True)
    model.extend_users(users[140:])
    np.testing.assert_array_equal(model.users_, np.arange(150))
    after = model.predict(X[train], return_std=True)
    np.testing.assert_allclose(after[0], before)
    np.testing.assert_allclose(after[1], std)
    plain = make(cls).fit(X[train], y[train])
    error, means = (
        root_mean_squared_error(y[~train], m.predict(X[~train])) for m in (model, plain)
    )
    assert error < 0.9 * means
    assert len(model.recommend([149])) == 10


def test_extending_is_refused(pairs, items, users):
    X, y = pairs
    model = make().fit(X, y)
    with pytest.raises(ValueError, match="fitted without item_features"):
        model.extend_items(items)
    model.fit(X, y, item_features=items, user_features=users)
    with pytest.raises(ValueError, match="item_features has 0, which the model knows"):
        model.extend_items(items)
    with pytest.raises(ValueError, match="user_features has 149, which the model"):
        model.extend_users(users[-1:])
    with pytest.raises(TypeError, match="what the new items are called"):
        model.extend_items(items[["a", "b"]].to_numpy())
    with pytest.raises(TypeError, match=r"of type str, but the item ids .* type int"):
        model.extend_items(items.set_axis([f"i{i}" for i in range(N_ITEMS)]))


def test_search_and_cross_validation(data, pairs, items, users):
    """Items and users that belong to no sample stay whole; rows are split."""
    X, y = pairs
    encoder = ColumnTransformer(
        [("numbers", StandardScaler(), ["a", "b"])], remainder="drop"
    )
    model = make(max_iter=10, tol=1e-2, item_encoder=encoder)
    grid = {"item_encoder__numbers__with_std": [True, False], "n_factors": [2]}
    search = GridSearchCV(model, grid, cv=KFold(2, shuffle=True, random_state=0))
    search.fit(X, y, item_features=Features(items))
    assert len(search.best_estimator_.items_) == N_ITEMS
    folds = GroupKFold(3)
    scores = [
        cross_val_score(
            make(), X, y, cv=folds, groups=X[:, 1], params={"item_features": table}
        ).mean()
        for table in (Features(items), None)
    ]
    assert scores[0] > scores[1] + 0.1
    scores = cross_val_score(
        make(), data.R, cv=3, params={"user_features": users, "item_features": items}
    )
    assert len(scores) == 3


def test_encoders(pairs, items):
    X, y = pairs
    texts = pd.Series(np.where(items["kind"] == "good", "fine film", "dull thing"))
    encoder = make_pipeline(
        FunctionTransformer(lambda table: table["feature"]), TfidfVectorizer()
    )
    model = make(item_encoder=encoder).fit(X, y, item_features=texts)
    assert model.item_feature_weights_.shape[0] == 4
    assert list(model.item_feature_blocks_) == ["features"]
    assert encoder.steps[1][1] is not model.item_encoder_.steps[1][1]
    model = make(item_encoder=FeatureEncoder(n_knots=4)).fit(X, y, item_features=items)
    assert pickle.loads(pickle.dumps(model)).predict(X[:2]).shape == (2,)


def test_memory_caches_the_encoder(pairs, items, tmp_path, monkeypatch):
    X, y = pairs
    model = make(memory=str(tmp_path), n_factors=2)
    first = model.fit(X, y, item_features=items).predict(X)
    refit = clone(model).fit(X, y, item_features=items)
    np.testing.assert_array_equal(refit.predict(X), first)
    assert any(tmp_path.rglob("*.pkl"))


def test_warm_start_continues_the_weights(pairs, items):
    X, y = pairs
    params = {"dtype": "float64", "tol": 0, "max_iter": 20}
    whole = make(**params).fit(X, y, item_features=items)
    model = make(**params).set_params(max_iter=10).fit(X, y, item_features=items)
    model.set_params(warm_start=True).fit(X, y, item_features=items)
    np.testing.assert_allclose(model.loss_curve_, whole.loss_curve_[10:], rtol=1e-3)
    # Other features are another model.
    model.fit(X, y, item_features=items[["a"]])
    model.fit(X, y)
    assert model.item_feature_weights_ is None


def test_early_stopping(pairs, items):
    X, y = pairs
    model = make(early_stopping=True).fit(X, y, item_features=items)
    assert model.validation_scores_[-1] > 0.3


@pytest.mark.parametrize(("scale", "shift"), [(20.0, 0.0), (0.01, -7.0)])
def test_the_unit_of_the_ratings_is_irrelevant(pairs, items, scale, shift):
    (X, y), (train, test) = pairs, split_items(pairs[0])
    model = make(dtype="float64", clip=False)
    expected = model.fit(X[train], y[train], item_features=items).predict(X[test])
    model.fit(X[train], scale * y[train] + shift, item_features=items)
    found = (model.predict(X[test]) - shift) / scale
    np.testing.assert_allclose(found, expected, rtol=1e-6)


def test_items_and_users_without_features(pairs, items):
    """They have the prior mean of average features."""
    X, y = pairs
    model = make(dtype="float64").fit(X, y, item_features=items[:60])
    assert np.isfinite(model.predict(X)).all()
    named = items.set_axis([f"i{i}" for i in range(N_ITEMS)])
    X = np.column_stack([X[:, 0].astype(str), [f"i{i}" for i in X[:, 1]]])
    found = make(dtype="float64").fit(X.astype(object), y, item_features=named[:60])
    assert np.isfinite(found.predict(X.astype(object))).all()


class Broken(FunctionTransformer):
    """Encoder with wrong output."""

    def transform(self, X):
        return self.func(X)


@pytest.mark.parametrize(
    ("output", "error", "message"),
    [
        (lambda X: np.full((len(X), 2), np.nan), ValueError, "NaN or infinite"),
        (lambda X: np.ones((len(X) - 1, 2)), ValueError, "one row for each row"),
        (lambda X: np.ones(len(X)), ValueError, "one row for each row"),
        (lambda X: np.full((len(X), 1), "a"), TypeError, "must return numbers"),
        (lambda X: np.ones((len(X), 2)), ValueError, "item_features says nothing"),
    ],
)
def test_output_of_an_encoder_is_checked(pairs, items, output, error, message):
    X, y = pairs
    model = make(item_encoder=Broken(output))
    with pytest.raises(error, match=message):
        model.fit(X, y, item_features=items)
    assert not hasattr(model, "users_")


def test_wrong_features_are_refused(data, pairs, items, users):
    (X, y), R = pairs, data.R
    numbers = items[["a", "b"]].to_numpy()
    for features, error, message in [
        ({"item_features": numbers}, TypeError, "does not tell which row"),
        ({"user_features": users.to_numpy()}, TypeError, "whose index holds the user"),
        ({"item_features": items.set_axis(items["kind"])}, ValueError, "repeated ids"),
        (
            {"item_features": items.set_axis([f"i{i}" for i in range(90)])},
            TypeError,
            "of type str, but the item ids .* of type int",
        ),
    ]:
        with pytest.raises(error, match=message):
            make().fit(X, y, **features)
    for features, error, message in [
        ({"item_features": numbers[:50]}, ValueError, "50 rows, but X has 90 columns"),
        ({"user_features": users[:50]}, ValueError, "50 rows, but X has 150 rows"),
        ({"user_features": {0: [1.0], 1: [2.0]}}, TypeError, "is a mapping"),
        (
            {"item_features": items.set_axis(range(1, 91))},
            ValueError,
            "column numbers, integers from 0 to 89, got 90",
        ),
    ]:
        with pytest.raises(error, match=message):
            make().fit(R, **features)
    with pytest.raises(ValueError, match="item_features needs lambda_u='auto'"):
        make(lambda_u=1, lambda_v=1).fit(X, y, item_features=items)
    with pytest.raises(ValueError, match="user_features needs lambda_u='auto'"):
        make(SVDppRegressor, lambda_u=1, lambda_v=1).fit(X, y, user_features=users)


def test_a_failed_join_causes_a_warning(pairs, items):
    X, y = pairs
    moved = items.set_axis(items.index + 60)
    with pytest.warns(UserWarning, match="item_features has the ids of only 30 of 90"):
        make(n_factors=2).fit(X, y, item_features=moved)


def test_probability_of_new():
    # With half as many ratings more, 10 / 2 - 4 / 4 = 4 items would get their first.
    counts = np.repeat([1, 2, 50], [10, 4, 40])
    assert probability_of_new(counts, 3) == 0
    assert probability_of_new(counts, 4) == 0
    expected = counts.mean() / (counts.mean() + 10)
    assert probability_of_new(counts, 5) == pytest.approx(expected, rel=1e-3)
    assert probability_of_new(counts, 1000) > 0.99
    # Every item is rated often, so that only a new one has no rating.
    assert probability_of_new(np.full(40, 50), 1) == 1
    assert probability_of_new(np.full(40, 50), 0) == 0
    assert probability_of_new(np.array([1]), 0) == 0


def test_unpopular_items_are_not_raised(data, items):
    """Their users' other ratings are raised by self-selection, theirs are not."""
    rng = np.random.default_rng(0)
    X, y = ratings_to_samples(data.R)
    # Most items have one rating or none, as in a split of few ratings.
    rare = np.arange(30, 90)
    keep = ~np.isin(X[:, 1], rare)
    for item in rare[:40]:
        keep[rng.choice(np.flatnonzero(X[:, 1] == item))] = True
    model = make().fit(X[keep], y[keep], item_features=items)
    assert not model._predictor().model.users.cold_biases.any()


def test_items_added_in_parts_are_those_added_at_once(pairs, items):
    (X, y), rated = pairs, pairs[0][:, 1] < 70
    at_once, in_parts = (
        make(dtype="float64").fit(X[rated], y[rated], item_features=items[:70])
        for _ in range(2)
    )
    at_once.extend_items(items[70:])
    in_parts.extend_items(items[70:80]).extend_items(items[80:])
    new = [[10**6, item] for item in range(70, 90)]
    np.testing.assert_allclose(in_parts.predict(new), at_once.predict(new))
    # An unseen user gets about the mean of what the others get.
    users = np.unique(X[:, 0])
    means = [
        at_once.predict([[u, item] for u in users]).mean() for item in range(70, 90)
    ]
    assert np.abs(at_once.predict(new) - means).max() < 0.3


def test_missing_values_of_new_items_may_be_of_another_type(pairs):
    X, y = pairs
    table = pd.DataFrame({"a": ["r", "b"] * 45, "n": np.arange(90.0)})
    model = make().fit(X, y, item_features=table)
    new = pd.DataFrame({"n": [3.0]}, index=[90]).reindex(columns=["a", "n"])
    assert np.isfinite(model.extend_items(new).predict([[0, 90]])).all()


@pytest.mark.parametrize("scale", [1e-200, 1.0, 1e160])
def test_features_of_any_size(data, scale):
    rng = np.random.default_rng(0)
    table = scale * (rng.normal(size=(N_ITEMS, 3)) + 1e7)
    model = make(item_encoder=FunctionTransformer(), dtype="float64")
    model.fit(data.R, item_features=table)
    assert np.isfinite(model.predict(data.R)).all()


@pytest.mark.parametrize("output", ["pandas", "polars"])
def test_a_global_output_of_transformers_is_irrelevant(data, output):
    rng = np.random.default_rng(0)
    words = np.array([f"w{j}" for j in range(1500)])
    labels = pd.DataFrame(
        {"labels": ["|".join(rng.choice(words, 60)) for _ in range(N_ITEMS)]}
    )
    with config_context(transform_output=output):
        model = make(max_iter=2).fit(data.R, item_features=labels)
        assert model.item_feature_weights_.shape[0] > 1000


def test_users_of_a_matrix_have_no_ids(data, users):
    by_id = Features(users.iloc[::-1])
    with pytest.raises(ValueError, match="Features by id, but the users of a matrix"):
        make().fit(data.R, user_features=by_id)
    with pytest.raises(ValueError, match="Features is not split with X"):
        make().fit(data.R[:100], user_features=Features(users.to_numpy()))


def test_a_forgotten_index_causes_a_warning(pairs, items):
    X, y = pairs
    table = items.assign(item=np.arange(1, 91))
    with pytest.warns(
        UserWarning, match=r"more of the item ids are in its column 'item'"
    ):
        make(max_iter=2).fit(X + np.array([0, 1]), y, item_features=table)
