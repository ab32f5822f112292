"""Every private name of scikit-learn that skrec uses, in one place."""

from __future__ import annotations

import os
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, metadata
from numbers import Integral
from typing import Any, Literal, TypeVar

from sklearn.base import _fit_context
from sklearn.callback import with_callbacks
from sklearn.metrics._scorer import _BaseScorer as BaseScorer
from sklearn.utils._optional_dependencies import check_matplotlib_support
from sklearn.utils._param_validation import (
    HasMethods,
    RealNotInt,
    StrOptions,
    validate_params,
)
from sklearn.utils._param_validation import Interval as _Interval
from sklearn.utils.validation import (
    _check_feature_names,
    _check_feature_names_in,
    _check_sample_weight,
)
from sklearn.utils.validation import _get_feature_names as get_feature_names

__all__ = [
    "MAX_COUNT",
    "BaseScorer",
    "DocumentedMixin",
    "HasMethods",
    "Interval",
    "RealNotInt",
    "StrOptions",
    "begin_callbacks",
    "check_feature_names",
    "check_feature_names_in",
    "check_matplotlib_support",
    "check_sample_weight",
    "get_feature_names",
    "validate_params",
    "validated",
    "with_validation_and_callbacks",
]

F = TypeVar("F", bound=Callable[..., Any])

# Frames between `_fitting.fit_method` and what it decorates, for the level of warnings.
N_WRAPPERS = 3
# Largest integer parameter. PyTorch refuses larger ones with messages of its own.
MAX_COUNT = 2**31 - 1


class Interval(_Interval):
    """Interval of numbers, without booleans and without integers beyond 31 bits."""

    def __init__(
        self,
        type: Any,
        left: Any,
        right: Any,
        *,
        closed: Literal["left", "right", "both", "neither"],
    ) -> None:
        if type is Integral and right is None:
            right, closed = MAX_COUNT, "both" if closed == "left" else "right"
        super().__init__(type, left, right, closed=closed)

    def is_satisfied_by(self, val: Any) -> bool:
        """Whether a value is inside; True is not the number 1."""
        return not isinstance(val, bool) and super().is_satisfied_by(val)


class DocumentedMixin:
    """Mixin of estimators whose HTML representations link to their documentation."""

    _doc_link_module = "skrec"

    @property
    def _doc_link_template(self) -> str:
        address = documentation_address()
        return f"{address}/generated/skrec.{{estimator_name}}.html" if address else ""


def documentation_address() -> str:
    """Return where the documentation is, or an empty string if nothing says it.

    The environment variable SKREC_DOCS_URL, for a copy, comes before the address of
    the documentation that the installed distribution names.
    """
    address = os.environ.get("SKREC_DOCS_URL", "")
    if not address:
        try:
            urls = metadata("skrec-ratings").get_all("Project-URL") or []
        except PackageNotFoundError:
            urls = []
        named = dict(url.split(", ", 1) for url in urls)
        address = named.get("Documentation", "")
    return address.rstrip("/")


def validated(fit: F) -> F:
    """Decorate a `fit`: validate the parameters of its estimator first."""
    decorated: F = _fit_context(prefer_skip_nested_validation=True)(fit)
    return decorated


def with_validation_and_callbacks(fit: F) -> F:
    """Decorate the `fit` of a recommender: validate, then run it with callbacks."""
    decorated: F = with_callbacks(validated(fit))
    return decorated


def begin_callbacks(estimator: Any, n_epochs: int) -> Any:
    """Start the callbacks of a fit of at most `n_epochs` epochs."""
    context = estimator._init_callback_context(max_subtasks=n_epochs)
    # A progress bar of a fit within a search begins with the names of the search and of
    # its task. At 80 columns they leave no place for the percentage, and the bar of the
    # search has them above. Nothing else uses these attributes,
    # except that a task without subtasks has a bar only if it has a name.
    context.source_estimator_name = context.source_task_name = None
    return context


def check_feature_names(estimator: Any, X: Any) -> None:
    """Raise an error if the columns have other names than in `fit`."""
    _check_feature_names(estimator, X, reset=False)


def check_feature_names_in(estimator: Any, input_features: Any) -> Any:
    """Return the names of the columns in `fit`, and raise an error for others."""
    return _check_feature_names_in(estimator, input_features)


def check_sample_weight(sample_weight: Any, X: Any, dtype: Any) -> Any:
    """Validate one non-negative weight for each sample."""
    return _check_sample_weight(
        sample_weight, X=X, dtype=dtype, ensure_non_negative=True
    )
