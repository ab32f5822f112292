"""Refusal of parameters that do not exist, and of numbers that cannot be held."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from numbers import Integral
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ._core.device import available_memory
from ._data.ratings import Ratings, Scale
from ._sklearn_compat import MAX_COUNT

# Parameters that are compared in double precision only.
_EXACT = ("tol", "validation_fraction")
# Parameters that are numbers of values per user and item, or more.
_SIZES = (
    "n_factors",
    "n_hidden",
    "hidden_layer_sizes",
    "embedding_dim",
    "n_filters",
    "n_models",
)


def is_count(value: Any) -> bool:
    """Whether a value is a positive integer of at most 31 bits, and no boolean."""
    if isinstance(value, bool) or not isinstance(value, Integral):
        return False
    return 1 <= int(value) <= MAX_COUNT


def refuse_unknown_parameters(estimator: Any, names: Iterable[str]) -> None:
    """Reject names of parameters that an estimator does not have.

    Raises
    ------
    ValueError
        If there is no such parameter; the message has similar names, or all.
    """
    valid = list(estimator.get_params(deep=False))
    for name in names:
        wanted = name.partition("__")[0]
        if wanted in valid:
            continue
        close = [repr(found) for found in difflib.get_close_matches(wanted, valid)]
        advice = f"Did you mean {' or '.join(close)}?" if close else f"It has {valid}."
        raise ValueError(
            f"{type(estimator).__name__} has no parameter {wanted!r}. {advice}"
        )


def refuse_extreme_parameters(estimator: Any) -> None:
    """Reject parameters that overflow or vanish in the precision of an estimator.

    Raises
    ------
    ValueError
        If the square of a number overflows, or is smaller than the smallest normal
        number of `dtype`.
    """
    info = np.finfo(estimator.dtype)
    smallest = float(np.sqrt(info.smallest_normal))
    largest = float(np.sqrt(info.max))
    for name, value in estimator.get_params(deep=False).items():
        if (
            name in _EXACT
            or isinstance(value, bool)
            or not isinstance(value, int | float | np.number)
        ):
            continue
        # An int may exceed every float.
        size: Any = abs(value)
        if size and not (size <= largest and float(size) >= smallest):
            raise ValueError(
                f"{name}={value!r} is outside the range of dtype={estimator.dtype!r}, "
                f"which is {smallest:.1e} to {largest:.1e}: choose a number inside"
                f"{_or_float64(estimator.dtype)}."
            )


def refuse_large_sizes(estimator: Any, shape: tuple[int, int]) -> None:
    """Reject numbers of factors and units whose values alone would not fit in memory.

    Parameters
    ----------
    estimator : BaseRecommender
        Estimator. The model of n users and items has at least n values for each factor
        or unit and, if covariances are estimated, the square of the number of factors.

    shape : tuple of (int, int)
        Numbers of users and items.

    Raises
    ------
    ValueError
        If they would not fit.
    """
    has_covariances = getattr(estimator, "lambda_u", "auto") == "auto"
    for name, value in estimator.get_params(deep=False).items():
        if name not in _SIZES:
            continue
        size = (
            max(map(int, value), default=0)
            if isinstance(value, Iterable)
            else int(value)
        )
        n_values = size * sum(shape)
        if name == "n_factors" and has_covariances:
            n_values = max(n_values, size**2)
        needed, free = n_values * np.dtype(estimator.dtype).itemsize, available_memory()
        if needed > free:
            raise ValueError(
                f"{name}={value!r} would take at least {needed / 2**30:.1f} GiB for "
                f"{shape[0]} users and {shape[1]} items, of {free / 2**30:.1f} GiB "
                "that are free: choose a smaller number."
            )


def refuse_extreme_ratings(ratings: Ratings, dtype: str) -> None:
    """Reject ratings and weights whose squares overflow or vanish.

    Parameters
    ----------
    ratings : Ratings
        Ratings, in the unit in which the model sees them or, if it standardizes them,
        in their own unit.

    dtype : {"float32", "float64"}
        Precision in which they are used: float64 for ratings to be standardized.

    Raises
    ------
    ValueError
        If a rating is larger than the fourth root of the largest number, so that sums
        of squares of squares overflow; if all ratings, or all differences from each
        other, are too small; or if a weight is too large or too small.
    """
    values, info = ratings.values, np.finfo(dtype)
    smallest, largest = float(np.sqrt(info.smallest_normal)), float(info.max**0.25)
    low, high = float(values.min()), float(values.max())
    extreme = max(low, high, key=abs)
    if abs(extreme) > largest:
        raise ValueError(
            f"The ratings contain {extreme:g}, but numbers up to {largest:.1e} can be "
            f"computed with in {dtype}: bring them to another unit, for example by "
            f"dividing by {abs(extreme):g}{_or_float64(dtype)}."
        )
    if 0 < max(abs(low), abs(high)) < smallest or 0 < high - low < smallest:
        raise ValueError(
            f"The ratings are from {low:g} to {high:g}, but numbers and differences "
            f"below {smallest:.1e} vanish in {dtype}: bring them to another unit, for "
            f"example by dividing by {abs(extreme):g}{_or_float64(dtype)}."
        )


def refuse_extreme_weights(weights: NDArray[np.float64] | None, dtype: str) -> None:
    """Reject weights that overflow or vanish in a precision.

    Raises
    ------
    ValueError
        If a weight is larger than the root of the largest number of `dtype`, or smaller
        than the root of its smallest normal number.
    """
    if weights is None or not len(weights):
        return
    info = np.finfo(dtype)
    smallest = float(np.sqrt(info.smallest_normal))
    largest = float(np.sqrt(info.max))
    low, high = float(weights.min()), float(weights.max())
    if low < smallest or high > largest:
        raise ValueError(
            f"sample_weight contains {low if low < smallest else high:g}, outside the "
            f"range of dtype={dtype!r}, which is {smallest:.1e} to {largest:.1e}: "
            "multiply all weights by a number, and set to 0 those that are negligible"
            f"{_or_float64(dtype)}."
        )


def refuse_far_ratings(
    values: NDArray[np.float64], scale: Scale, dtype: str, name: str
) -> None:
    """Reject ratings of new users that are too far from those of the fit.

    Parameters
    ----------
    values : ndarray of shape (n_ratings,)
        Ratings, in their own unit.

    scale : Scale
        Standardization of the ratings by the model.

    dtype : {"float32", "float64"}
        Precision of the model.

    name : str
        Name of the ratings in the error message.

    Raises
    ------
    ValueError
        If a standardized rating is larger than the fourth root of the largest number
        of `dtype`.
    """
    largest = float(np.finfo(dtype).max ** 0.25) * scale.std
    if not len(values):
        return
    extreme = max(values.min(), values.max(), key=lambda rating: abs(rating))
    if abs(extreme) > abs(scale.mean) + largest:
        raise ValueError(
            f"{name} contains a rating of {extreme:g}, which is too far from the "
            f"ratings in `fit` to be computed with in {dtype} (more than {largest:.1e} "
            "from their mean): check the unit of the ratings."
        )


def _or_float64(dtype: str) -> str:
    return ", or use dtype='float64'" if dtype == "float32" else ""
