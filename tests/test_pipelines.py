"""Item texts and pipelines in scikit-learn's tools, compared with fits by hand."""

import numpy as np
import pandas as pd
import pytest
from helpers import small
from sklearn import config_context
from sklearn.base import clone
from sklearn.compose import TransformedTargetRegressor, make_column_transformer
from sklearn.ensemble import BaggingRegressor, StackingRegressor
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.model_selection import GridSearchCV, KFold, cross_validate
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import FunctionTransformer, MaxAbsScaler

from skrec import AutoRecRegressor, BiasedMFRegressor, ConvMFRegressor
from skrec.datasets import make_ratings
from skrec.text import ItemTexts

RMSE = "neg_root_mean_squared_error"
FOLDS = KFold(2, shuffle=True, random_state=0)
N_ITEMS = 50

pytestmark = [
    # A few iterations are enough to compare models.
    pytest.mark.filterwarnings("ignore:.* stopped at max_iter"),
]


@pytest.fixture(scope="module")
def texts():
    return dict(enumerate(make_ratings(80, N_ITEMS, random_state=0).item_texts))


@pytest.fixture(scope="module")
def wrapped(texts):
    return ItemTexts(texts)


@pytest.fixture(params=[AutoRecRegressor, ConvMFRegressor], ids=lambda c: c.__name__)
def model(request):
    return small(request.param)


@pytest.fixture
def routing():
    with config_context(enable_metadata_routing=True):
        yield


def fit(model, X, y, texts, **params):
    return clone(model).fit(X, y, item_texts=texts, **params)


def neg_rmse(y, predicted):
    return -np.sqrt(np.mean((y - predicted) ** 2))


def scores_by_hand(model, X, y, texts):
    return [
        neg_rmse(y[test], fit(model, X[train], y[train], texts).predict(X[test]))
        for train, test in FOLDS.split(X)
    ]


# Texts


def test_texts_change_the_predictions(model, pairs, texts):
    """Otherwise the other tests would pass without texts reaching the model."""
    X, y = pairs
    shuffled = dict(zip(texts, reversed(texts.values()), strict=True))
    predicted = [fit(model, X, y, t).predict(X) for t in (texts, shuffled)]
    assert abs(predicted[0] - predicted[1]).max() > 1e-3


@pytest.mark.parametrize("routed", [False, True])
def test_texts_in_cross_validation_and_search(model, pairs, wrapped, routed):
    X, y = pairs
    expected = scores_by_hand(model, X, y, wrapped)
    with config_context(enable_metadata_routing=routed):
        found = cross_validate(
            model, X, y, cv=FOLDS, scoring=RMSE, params={"item_texts": wrapped}
        )
        search = GridSearchCV(model, {"max_iter": [3]}, cv=FOLDS, scoring=RMSE)
        search.fit(X, y, item_texts=wrapped)
    np.testing.assert_allclose(found["test_score"], expected, rtol=1e-6)
    refit = fit(model.set_params(max_iter=3), X, y, wrapped)
    np.testing.assert_array_equal(search.predict(X), refit.predict(X))
    expected = scores_by_hand(model, X, y, wrapped)
    assert search.best_score_ == pytest.approx(np.mean(expected))


@pytest.mark.parametrize("routed", [False, True])
def test_texts_in_a_search_over_a_pipeline(model, pairs, wrapped, routed):
    X, y = pairs
    pipeline = Pipeline([("ids", FunctionTransformer()), ("model", model)])
    search = GridSearchCV(pipeline, {"model__max_iter": [2, 3]}, cv=FOLDS, scoring=RMSE)
    name = "item_texts" if routed else "model__item_texts"
    with config_context(enable_metadata_routing=routed):
        alone = clone(pipeline).fit(X, y, **{name: wrapped})
        search.fit(X, y, **{name: wrapped})
    expected = fit(model, X, y, wrapped).predict(X)
    np.testing.assert_array_equal(alone.predict(X), expected)
    means = [
        np.mean(scores_by_hand(clone(model).set_params(max_iter=n), X, y, wrapped))
        for n in (2, 3)
    ]
    np.testing.assert_allclose(search.cv_results_["mean_test_score"], means, rtol=1e-6)


def test_a_search_swaps_the_model_in_a_step(pairs, wrapped):
    X, y = pairs
    models = [small(AutoRecRegressor), small(ConvMFRegressor)]
    pipeline = Pipeline([("ids", FunctionTransformer()), ("model", models[0])])
    search = GridSearchCV(pipeline, {"model": models}, cv=FOLDS, scoring=RMSE)
    search.fit(X, y, model__item_texts=wrapped)
    means = [np.mean(scores_by_hand(model, X, y, wrapped)) for model in models]
    np.testing.assert_allclose(search.cv_results_["mean_test_score"], means, rtol=1e-6)
    assert type(search.best_estimator_[-1]) is type(models[int(np.argmax(means))])


@pytest.mark.parametrize("routed", [False, True])
def test_texts_with_a_transformed_target(model, pairs, wrapped, routed):
    X, y = pairs
    with config_context(enable_metadata_routing=routed):
        whole = TransformedTargetRegressor(model, func=np.log, inverse_func=np.exp)
        found = whole.fit(X, y, item_texts=wrapped).predict(X)
    expected = np.exp(fit(model, X, np.log(y), wrapped).predict(X))
    np.testing.assert_allclose(found, expected, rtol=1e-6)


@pytest.mark.usefixtures("routing")
def test_bagging_resamples_ratings_through_weights(model, pairs, wrapped):
    X, y = pairs
    model.set_fit_request(sample_weight=True)
    bagging = BaggingRegressor(model, n_estimators=3, random_state=0)
    bagging.fit(X, y, item_texts=wrapped)
    expected = []
    for one, drawn in zip(
        bagging.estimators_, bagging.estimators_samples_, strict=True
    ):
        times = np.bincount(drawn, minlength=len(y))
        assert times.max() > 1
        by_hand = fit(one, X, y, wrapped, sample_weight=times)
        expected.append(by_hand.predict(X))
    assert abs(expected[0] - expected[1]).max() > 1e-3
    np.testing.assert_allclose(bagging.predict(X), np.mean(expected, axis=0))


@pytest.mark.usefixtures("routing")
def test_bagging_without_weights_is_refused_for_repeated_pairs(model, pairs, wrapped):
    """Remedies: request weights as above, or sample without replacement."""
    X, y = pairs
    with pytest.raises(ValueError, match="X has repeated user-item pairs"):
        BaggingRegressor(model, 2, random_state=0).fit(X, y, item_texts=wrapped)
    bagging = BaggingRegressor(
        model, 2, bootstrap=False, max_samples=0.8, random_state=0
    ).fit(X, y, item_texts=wrapped)
    expected = [
        fit(one, X[drawn], y[drawn], wrapped).predict(X)
        for one, drawn in zip(
            bagging.estimators_, bagging.estimators_samples_, strict=True
        )
    ]
    np.testing.assert_allclose(bagging.predict(X), np.mean(expected, axis=0))


def test_stacking_combines_prefit_models_with_texts(pairs, wrapped):
    """Models are fitted first, and stacked on held-out ratings."""
    X, y = pairs
    train, rest = next(FOLDS.split(X))
    fitted = [
        fit(small(cls), X[train], y[train], wrapped)
        for cls in (AutoRecRegressor, ConvMFRegressor)
    ]
    stack = StackingRegressor(
        [("autorec", fitted[0]), ("convmf", fitted[1])], Ridge(), cv="prefit"
    ).fit(X[rest], y[rest])
    predicted = np.column_stack([model.predict(X) for model in fitted])
    expected = Ridge().fit(predicted[rest], y[rest]).predict(predicted)
    np.testing.assert_allclose(stack.predict(X), expected, rtol=1e-6)


@pytest.mark.usefixtures("routing")
def test_stacking_also_passes_texts_to_the_final_estimator(model, pairs, wrapped):
    """A limitation of scikit-learn; prefit models work around it."""
    X, y = pairs
    stack = StackingRegressor([("model", model)], Ridge(), cv=FOLDS)
    with pytest.raises(TypeError, match="unexpected keyword argument 'item_texts'"):
        stack.fit(X, y, item_texts=wrapped)


def test_stacking_without_texts(pairs):
    X, y = pairs
    models = [small(AutoRecRegressor), small(BiasedMFRegressor)]
    stack = StackingRegressor(
        [("autorec", models[0]), ("mf", models[1])], Ridge(), cv=FOLDS
    ).fit(X, y)
    held_out = np.empty((len(y), 2))
    for train, test in FOLDS.split(X):
        for j, model in enumerate(models):
            fitted = clone(model).fit(X[train], y[train])
            held_out[test, j] = fitted.predict(X[test])
    whole = np.column_stack([m.fit(X, y).predict(X) for m in models])
    expected = Ridge().fit(held_out, y).predict(whole)
    np.testing.assert_allclose(stack.predict(X), expected, rtol=1e-6)


# As many texts as samples: scikit-learn splits every object of that length.


@pytest.fixture
def as_many(pairs):
    order = np.random.default_rng(0).permutation(len(pairs[1]))[:N_ITEMS]
    return pairs[0][order], pairs[1][order]


def search_of(model):
    return GridSearchCV(
        model, {"max_iter": [2]}, cv=FOLDS, scoring=RMSE, error_score="raise"
    )


def test_wrapped_texts_pass_whole_if_there_are_as_many_samples(model, as_many, texts):
    X, y = as_many
    expected = scores_by_hand(clone(model).set_params(max_iter=2), X, y, texts)
    for given in (texts, pd.Series(texts)):
        search = search_of(model).fit(X, y, item_texts=ItemTexts(given))
        assert search.best_score_ == pytest.approx(np.mean(expected))
        assert search.best_estimator_.items_.tolist() == list(range(N_ITEMS))


def test_a_list_with_pairs_is_refused_with_the_remedy(model, as_many, texts):
    X, y = as_many
    with pytest.raises(TypeError, match=r"skrec\.text\.ItemTexts around one"):
        search_of(model).fit(X, y, item_texts=list(texts.values()))


def test_a_dict_as_long_as_the_samples_is_refused(model, as_many, texts):
    X, y = as_many
    with pytest.raises((KeyError, TypeError)):
        search_of(model).fit(X, y, item_texts=texts)


@pytest.mark.filterwarnings("ignore:item_texts has the ids of only")
def test_a_series_as_long_as_the_samples_is_split(model, as_many, texts):
    """It looks like a shorter Series, which is why the wrapper exists."""
    X, y = as_many
    series = pd.Series(texts)
    found = search_of(model).fit(X, y, item_texts=series)
    model = clone(model).set_params(max_iter=2)
    expected = [
        neg_rmse(
            y[test], fit(model, X[train], y[train], series.iloc[train]).predict(X[test])
        )
        for train, test in FOLDS.split(X)
    ]
    assert found.best_score_ == pytest.approx(np.mean(expected))
    assert expected != pytest.approx(scores_by_hand(model, X, y, texts), abs=1e-9)


def test_with_a_square_matrix_a_list_is_refused_and_a_wrapped_list_passes(
    model, R, texts
):
    square, by_column = R[:N_ITEMS], list(texts.values())
    search = GridSearchCV(model, {"max_iter": [2]}, cv=2, error_score="raise")
    with pytest.raises(ValueError, match=r"25 texts, but X has 50 columns.*ItemTexts"):
        search.fit(square, item_texts=by_column)
    search.fit(square, item_texts=ItemTexts(by_column))
    fitted = clone(model).set_params(max_iter=2)
    fitted.fit(square[25:], item_texts=by_column)
    expected = fitted.score(square[:25])
    assert search.cv_results_["split0_test_score"][0] == pytest.approx(expected)


# Pipelines


def clean(frame):
    return frame.apply(lambda column: column.str.strip().str.lower())


@pytest.fixture(scope="module")
def frame(pairs):
    """Ids with blanks and capitals, between unused columns."""
    X, _ = pairs
    return pd.DataFrame(
        {
            "time": np.arange(len(X)),
            "who": [f" U{u} " if i % 2 else f"u{u}" for i, (u, _) in enumerate(X)],
            "age": 30,
            "what": [f"i{i}" if i % 3 else f"I{i} " for i in X[:, 1]],
        }
    )


@pytest.fixture
def recommender():
    return small(BiasedMFRegressor)


def test_a_step_cleans_ids_and_another_selects_columns(recommender, pairs, frame):
    X, y = pairs
    select = make_column_transformer(
        ("passthrough", ["who", "what"]), verbose_feature_names_out=False
    ).set_output(transform="pandas")
    pipeline = make_pipeline(select, FunctionTransformer(clean), recommender)
    found = pipeline.fit(frame, y).predict(frame)
    ids = np.array([[f"u{u}", f"i{i}"] for u, i in X], dtype=object)
    expected = clone(recommender).fit(ids, y)
    np.testing.assert_array_equal(found, expected.predict(ids))
    assert pipeline[-1].feature_names_in_.tolist() == ["who", "what"]
    assert pipeline[-1].users_.tolist() == sorted({f"u{u}" for u in X[:, 0]})
    with pytest.raises(ValueError, match="columns are missing"):
        pipeline.predict(frame.drop(columns="what"))


@pytest.mark.parametrize(
    "step", [MaxAbsScaler(), FunctionTransformer(np.sqrt, accept_sparse=True)]
)
def test_a_transformer_of_ratings_goes_before_a_matrix(recommender, R, step):
    pipeline = make_pipeline(step, recommender).fit(R)
    changed = R.copy()
    changed.data = (
        np.sqrt(R.data) if isinstance(step, FunctionTransformer)
        else R.data / R.toarray().max(axis=0)[R.indices]
    )  # fmt: skip
    expected = clone(recommender).fit(changed)
    np.testing.assert_allclose(pipeline.predict(R), expected.predict(changed))
    assert pipeline.score(R) == pytest.approx(expected.score(changed))
    np.testing.assert_allclose(pipeline.transform(R), expected.transform(changed))


@pytest.mark.parametrize("output", ["default", "pandas", "polars"])
def test_codes_are_features_of_a_classifier(R, output):
    likes = (np.asarray(R.mean(axis=1)) > np.median(R.mean(axis=1))).astype(int)
    codes = small(AutoRecRegressor, kind="user").set_output(transform=output)
    pipeline = make_pipeline(codes, LogisticRegression()).fit(R, likes)
    X = small(AutoRecRegressor, kind="user").fit(R).transform(R)
    expected = LogisticRegression().fit(X, likes)
    np.testing.assert_allclose(pipeline[-1].coef_, expected.coef_, rtol=1e-4)
    np.testing.assert_array_equal(pipeline.predict(R), expected.predict(X))
    names = [f"autorecregressor{i}" for i in range(4)]
    assert pipeline[:-1].get_feature_names_out().tolist() == names
    if output != "default":
        assert pipeline[-1].feature_names_in_.tolist() == names
        assert list(pipeline[0].transform(R).columns) == names


def test_memory_keeps_a_fitted_step(R, tmp_path, capsys):
    likes = np.arange(R.shape[0]) % 2
    model = small(AutoRecRegressor, verbose=True)
    search = GridSearchCV(
        make_pipeline(model, LogisticRegression(), memory=str(tmp_path)),
        {"logisticregression__C": [0.1, 1.0, 10.0]}, cv=2,
    ).fit(R, likes)  # fmt: skip
    # One fit per fold and the refit; the parameters of later steps do not matter.
    assert capsys.readouterr().out.count("iteration  1 of") == 3
    X = clone(model).set_params(verbose=False).fit(R[40:]).transform(R)
    expected = LogisticRegression(C=0.1).fit(X[40:], likes[40:])
    found = search.cv_results_["split0_test_score"][0]
    assert found == expected.score(X[:40], likes[:40])
