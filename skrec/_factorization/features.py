"""Parameters and methods of factorizations that know features of users and items."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar, Self

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray
from sklearn.utils.validation import check_is_fitted

from .._core.device import own_settings
from .._data.features import split_features
from .._data.ids import merge_ids
from .._data.joins import look_up
from .._data.side_information import transform_new
from .._fitting import Fit
from .._sklearn_compat import HasMethods
from .described import described_mean_ratings
from .knowledge import feature_parts

FEATURE_CONSTRAINTS: dict[str, list[Any]] = {
    "item_encoder": [HasMethods(["fit_transform", "transform"]), None],
    "user_encoder": [HasMethods(["fit_transform", "transform"]), None],
    "memory": [None, str, HasMethods(["cache"])],
}


class FeatureMixin:
    """Mixin of variational factorizations whose prior means depend on features."""

    # Metadata routing passes features to these estimators without a request.
    __metadata_request__fit: ClassVar[dict[str, bool]] = {
        "item_features": True,
        "user_features": True,
    }

    items_: NDArray[Any]
    users_: NDArray[Any]
    global_mean_: float
    item_encoder_: Any
    user_encoder_: Any

    @own_settings()
    def extend_items(self, item_features: Any) -> Self:
        """Add items to a fitted model, given only their features.

        Parameters
        ----------
        item_features : DataFrame, mapping, Series or Features around one
            Features by item id, with the columns of `fit`. After a fit on a matrix, the
            ids are the indices of the new columns: n_items, n_items + 1, ...

        Returns
        -------
        self : estimator
            The estimator, with the new items in `items_`, `item_factors_`,
            `item_biases_` and `item_means_`.

        Raises
        ------
        TypeError, ValueError
            If the model was fitted without `item_features`, or if an id is already
            known.
        """
        ids, vectors, parts = _describe(self, item_features, "item")
        return add_items(self, ids, vectors, _item_feature_parts=parts)

    @own_settings()
    def extend_users(self, user_features: Any) -> Self:
        """Add users to a fitted model, given only their features.

        Parameters
        ----------
        user_features : DataFrame, mapping, Series or Features around one
            Features by user id, with the columns of `fit`. After a fit on a matrix, the
            ids are the indices of the new rows: n_users, n_users + 1, ...

        Returns
        -------
        self : estimator
            The estimator, with the new users in `users_`, `user_factors_`,
            `user_biases_` and `user_means_`.

        Raises
        ------
        TypeError, ValueError
            If the model was fitted without `user_features`, or if an id is already
            known.
        """
        ids, vectors, parts = _describe(self, user_features, "user")
        all_ids, merge = merge_ids(self.users_, ids, "user")
        fitted: Any = self
        seen = fitted._seen
        counts = merge(np.diff(seen.indptr), 0)
        indptr = np.concatenate([[0], np.cumsum(counts)]).astype(seen.indptr.dtype)
        shape = len(all_ids), seen.shape[1]
        self.__dict__ = self._completed(
            vars(self)
            | self._extended("user", vectors, merge)
            | {
                "users_": all_ids,
                "_is_described_user": merge(fitted._is_described_user, True),
                "_user_feature_parts": merge(fitted._user_feature_parts, parts),
                "_seen": sp.csr_array((seen.data, seen.indices, indptr), shape=shape),
            }
        )
        return self

    def _completed(self, attributes: dict[str, Any]) -> dict[str, Any]:
        """All attributes, with those that depend on all users and items anew."""
        return attributes | described_mean_ratings(attributes)

    def _extended(
        self, what: str, vectors: NDArray[Any], merge: Callable[..., NDArray[Any]]
    ) -> dict[str, Any]:
        """Attributes of all users or items, given the vectors of new ones."""
        rows = self._new_rows(what, vectors)
        rows[f"{what}_means_"] = self.global_mean_  # until it is predicted
        rows[f"_{what}_described_means"] = vectors
        return {name: merge(getattr(self, name), new) for name, new in rows.items()}

    def _new_rows(self, what: str, vectors: NDArray[Any]) -> dict[str, Any]:
        """Rows of fitted attributes for new users or items, given their vectors."""
        fitted: Any = self
        rows: dict[str, Any] = {
            f"{what}_factors_": vectors[:, :-1],
            f"{what}_biases_": vectors[:, -1],
        }
        if what == "item":
            covariance = fitted.item_prior_covariance_
            rows["_item_covariances"] = covariance[np.triu_indices(len(covariance))]
        if getattr(fitted, f"{what}_links_", None) is not None:
            rows[f"{what}_links_"] = 0
        return rows


def add_items(
    fitted: Any, ids: NDArray[Any], vectors: NDArray[Any], **others: Any
) -> Any:
    """Add items to a fitted estimator, in place, and return it.

    Parameters
    ----------
    fitted : FeatureMixin
        Fitted factorization.

    ids : ndarray of shape (n_new,)
        Ids of the new items.

    vectors : ndarray of shape (n_new, n_kept + 1)
        Their expected vectors.

    **others : ndarray of n_new rows
        Values of further attributes for the new items.
    """
    all_ids, merge = merge_ids(fitted.items_, ids, "item")
    changed = fitted._extended("item", vectors, merge)
    changed |= with_described_items(fitted, all_ids, merge)
    for name, added in others.items():
        changed[name] = merge(getattr(fitted, name), added)
    fitted.__dict__ = fitted._completed(vars(fitted) | changed)
    return fitted


def with_described_items(
    fitted: Any, ids: NDArray[Any], merge: Callable[..., NDArray[Any]]
) -> dict[str, Any]:
    """Attributes that any model has, with new items that are described and not rated.

    The arguments after the model are the results of `merge_ids`.
    """
    seen = fitted._seen
    old = np.flatnonzero(~merge(np.zeros(len(fitted.items_), bool), True))
    columns = old[seen.indices].astype(seen.indices.dtype)
    shape = seen.shape[0], len(ids)
    return {
        "items_": ids,
        "n_features_in_": len(ids) if fitted._fitted_on_matrix else 2,
        "_is_rated": merge(fitted._is_rated, False),
        "_is_described": merge(fitted._is_described, True),
        "_seen": sp.csr_array((seen.data, columns, seen.indptr), shape=shape),
    }


def refuse_features(fit: Fit) -> None:
    """Raise an error for features in a fit whose penalties are numbers."""
    for name in ("item_features", "user_features"):
        if getattr(fit, name) is not None:
            raise ValueError(
                f"{name} needs lambda_u='auto' and lambda_v='auto', which estimate "
                "how much the features say."
            )


def check_new(fitted: Any, features: Any, what: str) -> tuple[NDArray[Any], Any]:
    """Validate features of new users or items; return their ids and table."""
    check_is_fitted(fitted)
    name = f"{what}_features"
    encoder = getattr(fitted, f"{what}_encoder_", None)
    if encoder is None:
        raise ValueError(
            f"The model was fitted without {name}, so that they say nothing to it: "
            f"pass {name} to fit."
        )
    ids, table = split_features(features, name)
    if ids is None:
        raise TypeError(
            f"{name} does not say what the new {what}s are called: give a DataFrame "
            f"whose index holds the {what} ids."
        )
    check_new_ids(fitted, ids, name, what)
    return ids, table


def check_new_ids(fitted: Any, ids: NDArray[Any], name: str, what: str) -> None:
    """Raise an error for ids that cannot be those of new users or items."""
    known = fitted.items_ if what == "item" else fitted.users_
    is_known = look_up(ids, known, name, what) >= 0
    if is_known.any():
        raise ValueError(
            f"{name} has {ids[is_known].tolist()[0]!r}, which the model knows already: "
            "leave it out, or fit anew."
        )
    wanted = np.arange(len(known), len(known) + len(ids))
    if fitted._fitted_on_matrix and not np.array_equal(np.sort(ids), wanted):
        line = "column" if what == "item" else "row"
        raise ValueError(
            f"The model was fitted on a matrix of {len(known)} {line}s, so that the "
            f"new {what}s are {line}s {wanted[0]} to {wanted[-1]}: give these ids."
        )


def _describe(
    fitted: Any, features: Any, what: str
) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any]]:
    """Ids and expected vectors of new users or items, and what each block adds."""
    ids, table = check_new(fitted, features, what)
    encoder = getattr(fitted, f"{what}_encoder_")
    values = transform_new(encoder, table, len(ids), f"{what}_features")
    parts = feature_parts(
        values,
        getattr(fitted, f"{what}_feature_center_"),
        getattr(fitted, f"{what}_feature_weights_"),
        getattr(fitted, f"{what}_feature_blocks_").values(),
    )
    return ids, getattr(fitted, f"{what}_prior_mean_") + parts.sum(axis=1), parts
