"""scikit-learn's checks, on all estimators and on variants that accept any table."""

import os
import re
import subprocess
import sys
import warnings
from unittest import SkipTest

import numpy as np
import pandas as pd
import polars as pl
import pytest
import scipy
import scipy.sparse as sp
from helpers import RECOMMENDERS, small
from sklearn.base import RegressorMixin, clone
from sklearn.exceptions import SkipTestWarning
from sklearn.utils import estimator_checks, get_tags
from sklearn.utils.estimator_checks import (
    estimator_checks_generator,
    parametrize_with_checks,
)
from sklearn.utils.fixes import parse_version
from sklearn.utils.validation import (
    _check_n_features,
    check_array,
    check_is_fitted,
)

from skrec import (
    AutoRecRegressor,
    BaselineRegressor,
    BayesianMFRegressor,
    BiasedMFRegressor,
    CDLRegressor,
    ConvMFRegressor,
    CTRRegressor,
    LLORMARegressor,
    PMFRegressor,
    RBMRegressor,
    SVDppRegressor,
)
from skrec._data.ratings import _check_weights, check_target
from skrec.features import FeatureEncoder
from skrec.model_selection import ratings_to_samples
from skrec.text import SequenceVectorizer

TRANSFORMERS = [FeatureEncoder(), SequenceVectorizer()]

pytestmark = [
    # The data of the checks do not let every model converge.
    pytest.mark.filterwarnings("ignore:.* stopped at max_iter"),
    # The checks pass no item texts.
    pytest.mark.filterwarnings("ignore:There are no item_texts"),
]


def ids(estimator):
    return repr(estimator).partition("(")[0] + getattr(estimator, "kind", "")


each_recommender = pytest.mark.parametrize("recommender", RECOMMENDERS, ids=ids)


# Many checks pass input that the estimators must refuse. For each reason: how the
# message of the error begins.

COLUMNS = "X has another number of columns than the two of user-item pairs"
REPEATED = "X repeats a user-item pair, which is refused"
SPARSE = "a sparse X is a rating matrix, with which a 1-D y is refused"
MESSAGES = {
    COLUMNS: r"X has \d+ features, but user-item pairs have 2|"
    r"Found array with 1 feature\(s\) .* while a minimum of 2",
    REPEATED: "X has repeated user-item pairs",
    SPARSE: "X is a rating matrix, so y must be None or a sparse matrix",
}
EXPECTED_FAILURES = {
    "check_all_zero_sample_weights_error": COLUMNS,
    "check_array_api_input": COLUMNS,
    "check_complex_data": COLUMNS,
    "check_dict_unchanged": COLUMNS,
    "check_dont_overwrite_parameters": COLUMNS,
    "check_dtype_object": COLUMNS,
    "check_estimators_dtypes": COLUMNS,
    "check_estimators_nan_inf": COLUMNS,
    "check_estimators_pickle": COLUMNS,
    "check_f_contiguous_array_estimator": COLUMNS,
    "check_fit2d_1sample": COLUMNS,
    "check_fit2d_predict1d": COLUMNS,
    "check_fit_score_takes_y": COLUMNS,
    "check_methods_sample_order_invariance": COLUMNS,
    "check_methods_subset_invariance": COLUMNS,
    "check_n_features_in_after_fitting": COLUMNS,
    "check_non_transformer_estimators_n_iter": COLUMNS,
    "check_pipeline_consistency": COLUMNS,
    "check_positive_only_tag_during_fit": COLUMNS,
    "check_regressor_data_not_an_array": COLUMNS,
    "check_regressors_int": COLUMNS,
    "check_regressors_no_decision_function": COLUMNS,
    "check_regressors_train": COLUMNS,
    "check_sample_weight_equivalence_on_dense_data": COLUMNS,
    "check_sample_weights_list": COLUMNS,
    "check_supervised_y_2d": COLUMNS,
    "check_transformer_data_not_an_array": COLUMNS,
    "check_transformer_general": COLUMNS,
    "check_transformer_n_iter": COLUMNS,
    "check_estimators_fit_returns_self": REPEATED,
    "check_estimators_overwrite_params": REPEATED,
    "check_fit_check_is_fitted": REPEATED,
    "check_fit_idempotent": REPEATED,
    "check_n_features_in": REPEATED,
    "check_readonly_memmap_input": REPEATED,
    "check_sample_weights_not_overwritten": REPEATED,
    "check_sample_weights_shape": REPEATED,
    "check_estimator_sparse_tag": SPARSE,
    "check_sample_weight_equivalence_on_sparse_data": SPARSE,
}


def expected_failures(estimator):
    if isinstance(estimator, FeatureEncoder | SequenceVectorizer):
        return {}
    if isinstance(estimator, BaselineRegressor):
        # It does not iterate, so these checks pass trivially.
        return {
            name: r for name, r in EXPECTED_FAILURES.items() if "n_iter" not in name
        }
    return EXPECTED_FAILURES


with warnings.catch_warnings():
    # Most checks need a table as input; TabularVectorizer below runs them.
    warnings.simplefilter("ignore", SkipTestWarning)
    # Strict: a check that unexpectedly passes must be removed from the list.
    each_check = parametrize_with_checks(
        RECOMMENDERS + TRANSFORMERS,
        expected_failed_checks=expected_failures,
        xfail_strict=True,
    )


@each_check
def test_scikit_learns_checks(estimator, check):
    try:
        check(estimator)
    except Exception as error:
        if check.func.__name__ in expected_failures(estimator):
            # Formatting the traceback would take pytest longer than the check.
            raise error.with_traceback(None) from None
        raise


def chain(error):
    """Yield an error and the errors that it was raised from."""
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


@each_recommender
def test_expected_failures_have_the_documented_reason(recommender):
    seen, expected = set(), expected_failures(recommender)
    for estimator, check in estimator_checks_generator(recommender):
        name = check.func.__name__
        if name not in expected:
            continue
        seen.add(name)
        with pytest.raises(Exception) as caught:  # noqa: PT011
            check(estimator)
        if caught.type is not SkipTest:
            message = MESSAGES[expected[name]]
            assert any(re.match(message, str(e)) for e in chain(caught.value)), name
    assert seen == set(expected)


# Variants that accept any table of numbers, so that all checks run.


class ReadsTables:
    """Reads the rows of a table as user-item pairs and averages repeated pairs."""

    def fit(self, X, y=None, *, sample_weight=None, **params):
        pairs = self._read(X, reset=True)
        n_columns = self.n_features_in_
        if y is not None:
            y = check_target(y, len(pairs))
            weights = np.ones(len(y))
            if sample_weight is not None:
                weights = _check_weights(sample_weight, y)
            pairs, where = np.unique(pairs.to_numpy(), axis=0, return_inverse=True)
            where = where.ravel()  # NumPy 2.0.0 gives it a second axis
            sample_weight = np.bincount(where, weights)
            # Pairs of weight 0 are ignored, so any rating is fine.
            weights = np.where(sample_weight[where] > 0, weights, 1)
            y = np.bincount(where, weights * y) / np.bincount(where, weights)
        super().fit(pairs, y, sample_weight=sample_weight, **params)
        self.n_features_in_ = n_columns
        return self

    def predict(self, X):
        return super().predict(self._read(X))

    def transform(self, X):
        return super().transform(self._read(X))

    def fit_transform(self, X, y=None, **params):
        return self.fit(X, y, **params).transform(X)

    def score(self, X, y, sample_weight=None):
        return RegressorMixin.score(self, X, y, sample_weight)

    def _read(self, X, reset=False):
        if not reset:
            check_is_fitted(self)
        table = check_array(X, accept_sparse="csr", dtype=float)
        _check_n_features(self, table, reset=reset)
        table = table.toarray() if sp.issparse(table) else table
        # The middle column determines the target of the checks.
        ids = table[:, (table.shape[1] - 1) // 2], table.mean(axis=1)
        pairs = np.rint(np.column_stack(ids)).clip(-(2**31), 2**31).astype(np.int64)
        index = X.index if isinstance(X, pd.DataFrame) else None
        return pd.DataFrame(pairs, index)


class TabularAutoRec(ReadsTables, AutoRecRegressor):
    pass


class TabularPMF(ReadsTables, PMFRegressor):
    pass


class TabularBaseline(ReadsTables, BaselineRegressor):
    pass


class TabularBiasedMF(ReadsTables, BiasedMFRegressor):
    pass


class TabularSVDpp(ReadsTables, SVDppRegressor):
    pass


class TabularBayesianMF(ReadsTables, BayesianMFRegressor):
    pass


class TabularLLORMA(ReadsTables, LLORMARegressor):
    pass


class RoundsRatings:
    """Rounds the ratings to the levels of a scale."""

    def fit(self, X, y=None, **params):
        return super().fit(X, None if y is None else np.rint(4 * y) / 4, **params)


class TabularRBM(ReadsTables, RoundsRatings, RBMRegressor):
    pass


class ReadsTablesAndTexts(ReadsTables):
    """Passes texts of some of the items."""

    def fit(self, X, y=None, *, sample_weight=None):
        texts = {i: f"number{i} {['even', 'odd'][i % 2]} x{i % 3}" for i in range(9)}
        return super().fit(X, y, sample_weight=sample_weight, item_texts=texts)


class TabularConvMF(ReadsTablesAndTexts, ConvMFRegressor):
    pass


class TabularCTR(ReadsTablesAndTexts, CTRRegressor):
    pass


class TabularCDL(ReadsTablesAndTexts, CDLRegressor):
    pass


class TabularVectorizer(SequenceVectorizer):
    """Reads the rows of a table as texts."""

    def fit(self, X, y=None):
        return super().fit(self._read(X, reset=True))

    def fit_transform(self, X, y=None):
        return super().fit_transform(self._read(X, reset=True))

    def transform(self, X):
        check_is_fitted(self)
        return super().transform(self._read(X))

    def _read(self, X, reset=False):
        table = check_array(X, dtype=float)
        _check_n_features(self, table, reset=reset)
        names = [f"col{j}" for j in range(table.shape[1])]
        return [
            " ".join(
                f"{name}x{value:.0f}" for name, value in zip(names, row, strict=True)
            )
            for row in table
        ]

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.input_tags.two_d_array = True
        tags.input_tags.allow_nan = False
        return tags


TABULAR = [
    small(TabularAutoRec),
    small(TabularAutoRec, kind="user"),
    small(TabularPMF),
    small(TabularBaseline),
    small(TabularBiasedMF),
    small(TabularSVDpp),
    small(TabularBayesianMF),
    small(TabularLLORMA),
    small(TabularRBM),
    small(TabularRBM, kind="user"),
    small(TabularConvMF),
    small(TabularCTR),
    small(TabularCDL),
]


@parametrize_with_checks([*TABULAR, TabularVectorizer(max_df=1.0)])
def test_all_checks_pass_on_a_table(estimator, check):
    check(estimator)


# Checks that the generator does not yield


@pytest.mark.parametrize("estimator", RECOMMENDERS + TRANSFORMERS, ids=ids)
def test_every_parameter_is_validated(estimator):
    estimator_checks.check_param_validation(type(estimator).__name__, estimator)


@pytest.mark.parametrize(
    "check",
    [
        estimator_checks.check_set_output_transform,
        estimator_checks.check_set_output_transform_pandas,
        estimator_checks.check_global_output_transform_pandas,
        estimator_checks.check_set_output_transform_polars,
        estimator_checks.check_global_set_output_transform_polars,
        estimator_checks.check_transformer_get_feature_names_out,
        estimator_checks.check_get_feature_names_out_error,
        estimator_checks.check_inplace_ensure_writeable,
    ],
    ids=lambda check: check.__name__,
)
@pytest.mark.parametrize("estimator", TABULAR, ids=ids)
def test_additional_checks_pass_on_a_table(estimator, check):
    check(type(estimator).__name__, estimator)


@pytest.mark.skipif(
    parse_version(scipy.__version__) < parse_version("1.14"),
    reason="scikit-learn's array API support needs SciPy 1.14",
)
def test_checks_pass_with_the_array_api_enabled():
    """The checks skip this unless a variable is set before SciPy is imported."""
    code = (
        "import test_common as t; [t.estimator_checks.check_array_api_input("
        "type(e).__name__, e, 'numpy', expect_only_array_outputs=False) "
        "for e in t.TABULAR]"
    )
    subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code],
        cwd=os.path.dirname(__file__),
        env=os.environ | {"SCIPY_ARRAY_API": "1"},
        check=True,
    )


@each_recommender
@pytest.mark.parametrize(
    "frame", [pd.DataFrame, pl.DataFrame], ids=["pandas", "polars"]
)
def test_names_of_columns_are_kept_and_compared(recommender, frame, R):
    X, y = ratings_to_samples(R[:20])
    columns = {"user": X[:, 0], "item": X[:, 1]}
    model = clone(recommender).fit(frame(columns), y)
    assert model.feature_names_in_.tolist() == ["user", "item"]
    named = model.predict(frame(columns)), model.transform(frame(columns))
    for method, expected in zip((model.predict, model.transform), named, strict=True):
        with pytest.warns(UserWarning, match="does not have valid feature names"):
            np.testing.assert_array_equal(method(X), expected)
        with pytest.raises(ValueError, match="must be in the same order"):
            method(frame(columns)[["item", "user"]])
        with pytest.raises(ValueError, match="names unseen at fit time"):
            method(frame({"user": X[:, 0], "film": X[:, 1]}))
    model.fit(X, y)
    assert not hasattr(model, "feature_names_in_")
    with pytest.warns(UserWarning, match="was fitted without feature names"):
        model.predict(frame(columns))


@each_recommender
def test_factors_have_names(recommender, R):
    model = clone(recommender).fit(R).set_output(transform="pandas")
    prefix = type(model).__name__.lower()
    names = [f"{prefix}{i}" for i in range(model.user_factors_.shape[1])]
    assert model.get_feature_names_out().tolist() == names
    assert model.transform(R).columns.tolist() == names


@each_recommender
def test_tags_describe_the_supported_input(recommender):
    tags = get_tags(recommender)
    assert tags.estimator_type == "regressor"
    assert tags.input_tags.sparse
    assert tags.input_tags.string
    assert tags.target_tags.required
    assert not tags.array_api_support
    assert tags.transformer_tags.preserves_dtype == []
