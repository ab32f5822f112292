"""Numbers and matrices that no estimator may accept, for all estimators."""

import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
from helpers import RECOMMENDERS, fit, name_of, small
from sklearn.base import clone
from sklearn.feature_extraction.text import CountVectorizer

from skrec import CDLRegressor, CTRRegressor
from skrec._data.side_information import resolve_features
from skrec.model_selection import ratings_to_samples, table_to_samples

pytestmark = [
    pytest.mark.filterwarnings("ignore:.* stopped at max_iter"),
    pytest.mark.filterwarnings("ignore:There are no item_texts"),
]

each_recommender = pytest.mark.parametrize("recommender", RECOMMENDERS, ids=name_of)
SIZES = [
    "n_factors",
    "n_hidden",
    "hidden_layer_sizes",
    "embedding_dim",
    "n_filters",
    "n_models",
]
PENALTIES = ["lambda_u", "lambda_v", "lambda_y", "alpha", "lambda_w", "lambda_n"]


def broken(data, indices, indptr, shape):
    """Return a CSR array with arrays that SciPy has not checked."""
    R = sp.csr_array(shape)
    R.data, R.indices = np.asarray(data, float), np.asarray(indices, np.int32)
    R.indptr = np.asarray(indptr, np.int32)
    return R


BROKEN = {
    "starts at 1": broken([1, 2, 3], [1, 0, 0], [1, 2, 3], (2, 2)),
    "has 4 entries, not 3": broken([1, 2, 3], [1, 0, 0], [0, 1, 2, 3], (2, 2)),
    "decreases": broken([1, 2, 3, 4], [1, 0, 0, 1], [0, 4, 2, 4], (3, 2)),
    "ends at 9": broken([1, 2, 3], [1, 0, 0], [0, 1, 9], (2, 2)),
    "index is outside its shape": broken([1, 2, 3], [1, 0, 7], [0, 1, 3], (2, 2)),
}


def like(model, name, value):
    """Return a value in a tuple if the parameter of the model is one."""
    return (value,) if isinstance(getattr(model, name), tuple) else value


def parameter_cases():
    """Yield (estimator, name, value, message) for each bad number."""
    for model in RECOMMENDERS:
        for name in model.get_params(deep=False):
            if name in SIZES:
                value = like(model, name, 2**31 - 1)
                yield model, name, value, f"{name}.* would take at least"
            if name in SIZES or name in ("max_iter", "batch_size", "random_state"):
                sequence = model.get_params()[name]
                wrap = (
                    (lambda v: (v,)) if isinstance(sequence, tuple) else (lambda v: v)
                )
                for value in (True, 2**63, 10**30):
                    yield model, name, wrap(value), f"{name}.* must be"
            if name in PENALTIES:
                for value in (1e300, 1e-300, 10**400):
                    other = {"lambda_u": "lambda_v", "lambda_v": "lambda_u"}.get(name)
                    yield model, name, value, f"{name}=.*|{other}=.*"


def ids(case):
    model, name, value, _ = case
    return f"{name_of(model)}-{name}-{str(value)[:12]}"


CASES = list(parameter_cases())


@pytest.fixture(scope="module")
def fitted(R):
    return {name_of(m): fit(clone(m), R) for m in RECOMMENDERS}


@pytest.mark.parametrize("case", CASES, ids=ids)
def test_bad_numbers_are_refused_by_name_and_leave_the_model(case, fitted, R):
    model, name, value, message = case
    old = fitted[name_of(model)]
    before, kept = vars(old).copy(), old.get_params()[name]
    old.set_params(**{name: value})
    try:
        with pytest.raises(ValueError, match=message):
            fit(old, R)
    finally:
        old.set_params(**{name: kept})
    assert vars(old).keys() == before.keys()
    assert all(vars(old)[key] is before[key] for key in before)


@each_recommender
@pytest.mark.parametrize("problem", BROKEN)
def test_broken_matrices_are_refused_by_fit_and_predict(
    recommender, fitted, problem, R
):
    with pytest.raises(ValueError, match=f"X is a broken sparse matrix.*{problem}"):
        clone(recommender).fit(BROKEN[problem])
    rows = R.copy()
    rows.indptr = rows.indptr + 1
    with pytest.raises(ValueError, match="X is a broken sparse matrix"):
        fitted[name_of(recommender)].predict(rows)


def test_room_behind_the_last_row_holds_no_ratings():
    R = broken([1, 2, 3, 4], [1, 0, 0, 1], [0, 1, 2], (2, 2))
    X, y = ratings_to_samples(R)
    assert (X.tolist(), y.tolist()) == ([[0, 1], [1, 0]], [1, 2])
    assert len(R.data) == 4


@each_recommender
@pytest.mark.parametrize("scale", [1e300, 1e-300])
def test_extreme_ratings_and_weights_are_refused(recommender, scale, R):
    with pytest.raises(ValueError, match=r"The ratings (contain|are from)"):
        fit(clone(recommender), R * scale)
    with pytest.raises(ValueError, match="sample_weight contains"):
        fit(clone(recommender), R, sample_weight=np.full(R.shape[0], scale))


@each_recommender
def test_rows_far_outside_of_the_training_range_give_no_nan(recommender, fitted, R):
    model = fitted[name_of(recommender)]
    assert np.isfinite(model.predict(R[:5] * 1e8)).all()
    with pytest.raises(ValueError, match=r"X contains a rating of .* too far"):
        model.predict(R[:5] * 1e300)


@each_recommender
def test_a_dense_table_is_recognized(recommender):
    table = pd.DataFrame([[5, np.nan, 0], [1, 3, np.nan]], index=["a", "b"])
    with pytest.raises(ValueError, match=r"X, y = .*table_to_samples"):
        clone(recommender).fit(table)


def test_table_to_samples_keeps_zeros():
    table = pd.DataFrame([[5, np.nan, 0], [1, 3, np.nan]], index=["a", "b"])
    X, y = table_to_samples(table)
    assert X.to_numpy().tolist() == [["a", 0], ["a", 2], ["b", 0], ["b", 1]]
    assert y.tolist() == [5, 0, 1, 3]


def test_broken_features_are_refused():
    with pytest.raises(ValueError, match="item_features is a broken sparse matrix"):
        resolve_features(BROKEN["decreases"], np.arange(3), "item", on_matrix=True)


class NotANumber(CountVectorizer):
    """Returns NaN in place of counts."""

    def fit_transform(self, raw_documents, y=None):
        return super().fit_transform(raw_documents) * np.nan


@pytest.mark.parametrize("cls", [CTRRegressor, CDLRegressor])
def test_a_vectorizer_that_returns_nan_is_refused(cls, R):
    with pytest.raises(ValueError, match="NotANumber returned NaN or infinite"):
        fit(small(cls, vectorizer=NotANumber()), R)
