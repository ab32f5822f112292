"""What several test files share: small estimators, data, callbacks and references."""

import inspect

import numpy as np
import scipy.sparse as sp
from sklearn.feature_extraction.text import CountVectorizer, TfidfVectorizer

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
from skrec.datasets import make_ratings
from skrec.text import ItemTexts

# Estimators that warn if they are fitted without texts.
TEXT_CLASSES = (ConvMFRegressor, CTRRegressor, CDLRegressor)
# Texts of the 50 items of the fixture `R`.
TEXTS = dict(enumerate(make_ratings(80, 50, random_state=0).item_texts))


def small(cls, **params):
    """Return an estimator that fits in milliseconds; `cls` may be a subclass."""
    if issubclass(cls, AutoRecRegressor):
        sizes = {
            "hidden_layer_sizes": (4,),
            "alpha": 1.0,
            "learning_rate_init": 0.2,
            "max_iter": 15,
            "input_dropout": 0.0,
        }
    elif issubclass(cls, RBMRegressor):
        sizes = {"n_hidden": 4, "alpha": 1.0, "learning_rate_init": 0.3}
        sizes |= {"max_iter": 40, "batch_size": None}
    elif issubclass(cls, BaselineRegressor):
        sizes = {"lambda_u": 1.0, "lambda_v": 1.0}
    elif issubclass(cls, BayesianMFRegressor):
        sizes = {"n_factors": 2, "max_iter": 8, "burn_in": 1, "thinning": 3}
    elif issubclass(cls, (BiasedMFRegressor, LLORMARegressor, SVDppRegressor)):
        sizes = {"n_factors": 2, "max_iter": 10}
    else:
        sizes = {"n_factors": 2, "lambda_u": 1.0, "lambda_v": 1.0, "max_iter": 5}
    if issubclass(cls, SVDppRegressor):
        sizes |= {"lambda_y": 1.0}
    if issubclass(cls, LLORMARegressor):
        # With two factors, no mean of models leaves the range of the ratings.
        sizes |= {"n_models": 2, "n_factors": 3}
    # The default max_df removes most words of a handful of texts.
    if issubclass(cls, CTRRegressor):
        sizes |= {"lda_max_iter": 2, "vectorizer": CountVectorizer()}
    if issubclass(cls, CDLRegressor):
        sizes |= {"hidden_layer_sizes": (4,), "learning_rate_init": 0.01}
        sizes |= {"vectorizer": TfidfVectorizer(use_idf=False)}
    if issubclass(cls, ConvMFRegressor):
        sizes |= {"embedding_dim": 4, "n_filters": 4, "n_hidden": 4}
        sizes |= {"window_sizes": (1, 2), "lambda_w": 0.1, "learning_rate_init": 0.01}
        sizes |= {"lambda_u": "auto", "lambda_v": "auto", "max_iter": 3}
    return cls(**(sizes | {"random_state": 0} | params))


# Every public estimator.
RECOMMENDERS = [
    small(AutoRecRegressor),
    small(AutoRecRegressor, kind="user"),
    small(PMFRegressor),
    small(BaselineRegressor),
    small(BiasedMFRegressor),
    small(SVDppRegressor),
    small(BayesianMFRegressor),
    small(LLORMARegressor),
    small(RBMRegressor),
    small(RBMRegressor, kind="user"),
    small(ConvMFRegressor),
    small(CTRRegressor),
    small(CDLRegressor),
]


# The same, and variants with predictions of their own.
MODELS = [
    *RECOMMENDERS,
    small(BayesianMFRegressor, implicit=True),
    small(RBMRegressor, baseline=False),
    small(RBMRegressor, kind="user", baseline=False),
    small(BiasedMFRegressor, lambda_u=1.0, lambda_v=1.0),
    small(ConvMFRegressor, lambda_u=1.0, lambda_v=1.0),
    small(SVDppRegressor, lambda_u=1.0, lambda_v=1.0),
    small(LLORMARegressor, lambda_u=1.0, lambda_v=1.0),
]


def name_of(estimator):
    """Return the id of an estimator in parametrized tests."""
    names = [type(estimator).__name__, getattr(estimator, "kind", "")]
    if isinstance(estimator, RBMRegressor) and not estimator.baseline:
        names.append("plain")
    if getattr(estimator, "implicit", False) is True:
        names.append("implicit")
    can_be_auto = BiasedMFRegressor, ConvMFRegressor, LLORMARegressor, SVDppRegressor
    if isinstance(estimator, can_be_auto):
        names.append("" if estimator.lambda_u == "auto" else "ridge")
    return "".join(names)


def has_std(model):
    """Return whether a fitted model predicts standard deviations."""
    can = "return_std" in inspect.signature(model.predict).parameters
    # Penalties given as numbers come without covariances.
    return can and getattr(model, "_lambda_u", None) is None


def fit(model, X, y=None, *, item_texts=TEXTS, **params):
    """Fit a model or a search over its parameters, with texts if it reads them."""
    if isinstance(getattr(model, "estimator", model), TEXT_CLASSES):
        params["item_texts"] = ItemTexts(item_texts)
    return model.fit(X, y, **params)


def make_factorization(cls, **params):
    """Return a factorization that converges in tenths of a second."""
    defaults = {"n_factors": 4, "lambda_u": 2.0, "lambda_v": 3.0, "random_state": 0}
    if issubclass(cls, ConvMFRegressor):
        defaults |= {"embedding_dim": 8, "n_filters": 6, "n_hidden": 8}
        defaults |= {"window_sizes": (2, 3), "lambda_w": 0.1, "tol": 0.01}
    elif issubclass(cls, CDLRegressor):
        defaults |= {"hidden_layer_sizes": (8,), "lambda_w": 0.1, "tol": 0.01}
    elif issubclass(cls, CTRRegressor):
        defaults |= {"tol": 1e-3}
    return cls(**(defaults | params))


def to_ratings(model, sums):
    """Return the predictions that follow from sums on the scale of the parameters."""
    if getattr(model, "normalize_y", False):
        sums = model.global_mean_ + model.rating_std_ * sums
    return np.clip(sums, *model.rating_range_)


def standardized(model, ratings):
    """Return ratings on the scale of the parameters of a model with normalize_y."""
    return (ratings - model.global_mean_) / model.rating_std_


def random_sparse(rng, shape, density, dtype=np.float64):
    """Return a CSR array of standard normal entries, at least one in each row."""
    mask = rng.random(shape) < density
    mask[np.arange(shape[0]), rng.integers(shape[1], size=shape[0])] = True
    row, col = mask.nonzero()
    values = rng.standard_normal(len(row)).astype(dtype)
    return sp.csr_array((values, (row, col)), shape=shape)


def without_columns(R, columns):
    """Return a copy of a rating matrix without the ratings in some columns."""
    R = R.tolil()
    R[:, columns] = 0
    R = R.tocsr()
    R.eliminate_zeros()
    return R


def split(R, is_first):
    """Return the ratings of a matrix in two matrices; `is_first` selects entries."""
    coo = R.tocoo()
    return tuple(
        sp.csr_array((coo.data[m], (coo.row[m], coo.col[m])), shape=R.shape)
        for m in (is_first, ~is_first)
    )


def without_one(rows):
    """Yield, for each rating, its row without it and its column."""
    for start, end in zip(rows.indptr, rows.indptr[1:], strict=False):
        for j in range(start, end):
            kept = np.delete(np.arange(start, end), j - start)
            parts = rows.data[kept], rows.indices[kept], [0, len(kept)]
            yield sp.csr_array(parts, shape=(1, rows.shape[1])), rows.indices[j]


def left_out(model, rows):
    """Return the prediction of each rating from the other ratings in its row."""
    return np.array(
        [model.predict(others)[0, item] for others, item in without_one(rows)]
    )


class Interrupt:
    """A callback that raises at the end of an epoch, as Ctrl+C does."""

    def __init__(self, epoch, error=KeyboardInterrupt):
        self.epoch, self.error = epoch, error

    def setup(self, estimator, context): ...
    def teardown(self, estimator, context): ...
    def on_fit_task_begin(self, estimator, context): ...

    def on_fit_task_end(self, estimator, context):
        if context.task_name == "epoch" and context.task_id == self.epoch:
            raise self.error


class StopAfter(Interrupt):
    """A callback that ends the training after a number of epochs."""

    def on_fit_task_end(self, estimator, context):
        return context.task_name == "epoch" and context.task_id == self.epoch - 1
