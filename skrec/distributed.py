"""One fit over several processes, GPUs or machines, with `torch.distributed`."""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Iterator
from typing import Any, TypeVar, cast

import numpy as np
import scipy.sparse as sp
import torch.distributed as dist
from sklearn.utils.validation import check_is_fitted

from ._base import BaseRecommender
from ._checkpoint import Checkpoint
from ._core.collectives import RankError, Ranks, open_group
from ._data.ratings import Values
from ._factorization.baseline import BaselineRegressor
from ._factorization.bayesian import BayesianMFRegressor
from ._factorization.mf import BiasedMFRegressor, PMFRegressor
from ._factorization.svdpp import SVDppRegressor
from ._networks.autorec import AutoRecRegressor
from ._networks.rbm import RBMRegressor
from ._prediction import PredictorCache
from ._texts.cdl import CDLRegressor
from ._texts.convmf import ConvMFRegressor
from ._texts.ctr import CTRRegressor

__all__ = ["RankError", "fit", "gather"]

Estimator = TypeVar("Estimator", bound=BaseRecommender)

_SUPPORTED = (
    AutoRecRegressor,
    BaselineRegressor,
    BayesianMFRegressor,
    BiasedMFRegressor,
    CDLRegressor,
    ConvMFRegressor,
    CTRRegressor,
    PMFRegressor,
    RBMRegressor,
    SVDppRegressor,
)
_READ_TEXTS = (CDLRegressor, ConvMFRegressor, CTRRegressor)
# Parameters that would need more than sums, and their only value
_ONLY: dict[type, dict[str, Any]] = {
    AutoRecRegressor: {"batch_size": None, "pretraining": False},
    RBMRegressor: {"kind": "user"},
}
# Fitted attributes with one row for each user
_OF_USERS = (
    "users_",
    "user_means_",
    "user_factors_",
    "user_biases_",
    "user_bias_samples_",
    "user_effects_",
    "user_links_",
    "user_text_biases_",
    "hidden_probabilities_",
    "_is_described_user",
)


def fit(
    estimator: Estimator,
    X: Any,
    y: Any = None,
    *,
    sample_weight: Any = None,
    item_texts: Any = None,
    timeout: float | None = None,
) -> Estimator:
    """Fit one model to the ratings of all ranks of a process group.

    Every rank of the default process group of `torch.distributed` makes this call, each
    with the ratings of its own users. Users are dealt out, and everything that has the
    size of the items is the same on all ranks. No rank sees the ratings of another one:
    the ranks exchange sums over users.

    Parameters
    ----------
    estimator : AutoRecRegressor, BaselineRegressor, BayesianMFRegressor, \
BiasedMFRegressor, CDLRegressor, ConvMFRegressor, CTRRegressor, PMFRegressor, \
RBMRegressor or SVDppRegressor
        Estimator with the same parameters on all ranks; for AutoRec with
        ``batch_size=None``, ``pretraining=False`` and another solver than "lbfgs",
        for ConvMF with numbers for `lambda_u` and `lambda_v`, for RBM with
        ``kind="user"``. ``device="auto"`` is the GPU whose number is in the environment
        variable `LOCAL_RANK`, if there are any. Callbacks and `verbose` work on rank 0,
        a :class:`~skrec.Checkpoint` on all. Callbacks get no fitted estimator.

    X : {array-like, DataFrame} of shape (n_ratings, 2) or {sparse matrix, sparse \
array} of shape (n_users, n_items)
        Ratings of the users of this rank, in the same form on all ranks. All pairs of
        a user are on one rank. A matrix has the rows of this rank's users, and the
        columns of all items.

    y : array-like of shape (n_ratings,), sparse of shape (n_users, n_items) or None
        Ratings of the pairs. With a matrix, further ratings of it or None.

    sample_weight : array-like or sparse, default=None
        Weight of each rating's error, of shape (n_ratings,); with a matrix, sparse
        with its entries or of shape (n_users,). Ratings of weight 0 are ignored.

    item_texts : mapping, Series, ItemTexts or sequence, default=None
        Texts of all items, the same on all ranks, for CDL, ConvMF and CTR; see their
        `fit`. Rank 0 learns from them, and the others wait for it.

    timeout : float or None, default=None
        Seconds after which a rank gives up waiting for another one. None means the
        timeout of the process group, 30 minutes unless it was created with another one.

    Returns
    -------
    estimator : BaseRecommender
        The estimator itself, fitted. On each rank it knows the rank's own users and all
        items, so that predictions for these users need no other rank.

    Raises
    ------
    RankError
        If another rank fails, dies, hangs or is interrupted during the fit. The message
        names the rank and the step, and quotes the error. The estimator keeps its
        previous state.
    TypeError, ValueError
        If an argument or a parameter is invalid on any rank: on all ranks, with the
        same message. What is found later, such as too few ratings on this rank for
        `early_stopping`, is a `RankError` on the others.
    RuntimeError
        If there is no process group.

    See Also
    --------
    gather : Join the models of all ranks.

    Notes
    -----
    The result is that of ``estimator.fit`` for the ratings of all ranks, up to
    rounding, if the users are in ascending order from rank to rank; otherwise their
    initial vectors are in another order. The epochs of a network that reads texts make
    differences by rounding larger. Dropout of AutoRec draws other numbers on each rank.
    So do the samplers of BayesianMFRegressor and RBMRegressor for the users of each
    rank. The priors and the noise variance of the former are those of one process, and
    its samples have the same distribution. Each batch of the latter has users of all
    ranks, which are other ones than in one process unless ``batch_size=None``. With
    `early_stopping`, each rank holds out a
    fraction of its own ratings.

    Examples
    --------
    A group of one process:

    >>> import os, tempfile
    >>> import torch.distributed as dist
    >>> import skrec.distributed
    >>> from skrec import BiasedMFRegressor
    >>> from skrec.datasets import make_ratings
    >>> store = dist.FileStore(os.path.join(tempfile.mkdtemp(), "store"), 1)
    >>> dist.init_process_group("gloo", store=store, rank=0, world_size=1)
    >>> R = make_ratings(80, 50, random_state=0).R
    >>> part = skrec.distributed.fit(BiasedMFRegressor(random_state=0), R)
    >>> model = skrec.distributed.gather(part)
    >>> model.recommend(R[[0]], n_items=3).shape
    (3, 3)
    >>> dist.destroy_process_group()
    """
    _refuse_no_group()
    with open_group(timeout) as group:
        _refuse_unsupported(estimator)
        if item_texts is not None and not isinstance(estimator, _READ_TEXTS):
            raise TypeError(
                f"{type(estimator).__name__} takes no item_texts over several "
                "processes: leave them out, or use the method fit in one process."
            )
        with _as_member(estimator, group):
            metadata = {"sample_weight": sample_weight}
            if item_texts is not None:
                metadata["item_texts"] = item_texts
            fitted: Estimator = estimator.fit(X, y, **metadata)
            return fitted


def gather(model: Estimator, *, timeout: float | None = None) -> Estimator | None:
    """Join the models of all ranks on rank 0.

    Parameters
    ----------
    model : BaseRecommender
        What `fit` has returned on this rank.

    timeout : float or None, default=None
        As for `fit`.

    Returns
    -------
    model : BaseRecommender or None
        On rank 0, a model that knows the users of all ranks, as if one process had
        fitted it. None on the other ranks.

    Raises
    ------
    RankError
        If another rank fails, dies or hangs.
    NotFittedError
        If the model of any rank is not fitted.
    RuntimeError
        If there is no process group.
    """
    _refuse_no_group()
    with open_group(timeout) as group:
        _refuse_unsupported(model)
        check_is_fitted(model)
        group.meet(None)
        parts = group.gather_first(_part_of_users(model))
    return None if parts is None else _join(model, parts)


def _part_of_users(model: Any) -> dict[str, Any]:
    """Return what a model has of each user."""
    names = (*_OF_USERS, "_seen", "_levels", "_rating_weights")
    part = {name: vars(model).get(name) for name in names}
    if isinstance(model, BayesianMFRegressor):
        part["user_links_"] = None  # samples of the items' links
    if getattr(model, "_kind", None) == "item":
        part["encoder"] = model.encoder_coefs_[0]
    return part


def _join(model: Estimator, parts: list[dict[str, Any]]) -> Estimator:
    """Make a model with the users of all parts."""
    users = np.concatenate([part["users_"] for part in parts])
    order = np.argsort(users, kind="stable")
    joined: dict[str, Any] = {
        name: np.concatenate([part[name] for part in parts])[order]
        for name in _OF_USERS
        if parts[0][name] is not None
    }
    seen = sp.vstack([_seen_ratings(part) for part in parts], format="csr")[order]
    seen.data, joined["_levels"] = Values.of(seen.data)
    joined["_seen"] = seen
    if any(part["_rating_weights"] is not None for part in parts):
        weights = [_weight_matrix(part) for part in parts]
        joined["_rating_weights"] = sp.vstack(weights, format="csr")[order].data
    whole: Any = copy.copy(model)
    if "encoder" in parts[0]:
        outer = np.concatenate([part["encoder"] for part in parts])[order]
        joined["encoder_coefs_"] = [outer, *whole.encoder_coefs_[1:]]
    whole.__dict__ |= joined | {"_predictors": PredictorCache()}
    return cast(Estimator, whole)


def _seen_ratings(part: dict[str, Any]) -> sp.csr_array:
    """Return the ratings as a matrix of numbers."""
    seen = part["_seen"].copy()
    seen.data = Values(seen.data, part["_levels"]).decode()
    return seen


def _weight_matrix(part: dict[str, Any]) -> sp.csr_array:
    """Return the weights of all ratings as a matrix."""
    seen, weights = part["_seen"], part["_rating_weights"]
    if weights is None:
        weights = np.ones(seen.nnz, part["user_factors_"].dtype)
    return sp.csr_array((weights, seen.indices, seen.indptr), shape=seen.shape)


@contextlib.contextmanager
def _as_member(estimator: Any, group: Ranks) -> Iterator[None]:
    """Give an estimator its group for a `with` block; silence all but rank 0."""
    attributes = estimator.__dict__
    silenced: dict[str, Any] = {}
    if group.rank > 0:
        silenced = {"verbose": attributes["verbose"]}
        attributes["verbose"] = False
        if "_skl_callbacks" in attributes:
            callbacks = silenced["_skl_callbacks"] = attributes["_skl_callbacks"]
            files = [c for c in callbacks if isinstance(c, Checkpoint)]
            attributes["_skl_callbacks"] = files
    attributes["_group"] = group
    try:
        yield
    finally:
        # A fit has replaced the dictionary of the attributes.
        del estimator.__dict__["_group"]
        estimator.__dict__ |= silenced


def _refuse_no_group() -> None:
    """Raise an error if there is no process group."""
    if not (dist.is_available() and dist.is_initialized()):
        raise RuntimeError(
            "There is no process group: call torch.distributed.init_process_group "
            "first, on every rank, or use the method fit of the estimator."
        )


def _refuse_unsupported(estimator: Any) -> None:
    """Raise an error for what cannot be fitted by several processes."""
    name = type(estimator).__name__
    if not isinstance(estimator, _SUPPORTED):
        names = ", ".join(sorted(cls.__name__ for cls in _SUPPORTED))
        raise TypeError(
            f"{name} cannot be fitted by several processes: use one of {names}, or the "
            "method fit in one process."
        )
    only = [v for cls, v in _ONLY.items() if isinstance(estimator, cls)]
    for parameter, value in (pair for values in only for pair in values.items()):
        found = getattr(estimator, parameter)
        if found != value:
            raise ValueError(
                f"{parameter}={found!r} is not for several processes: use "
                f"{parameter}={value!r}."
            )
    if isinstance(estimator, AutoRecRegressor) and estimator.solver == "lbfgs":
        raise ValueError(
            "solver='lbfgs' is not for several processes: use solver='adam' or 'rprop'."
        )
    if isinstance(estimator, ConvMFRegressor) and estimator.lambda_u == "auto":
        raise ValueError(
            "lambda_u='auto' of ConvMFRegressor is not for several processes: use "
            "numbers for lambda_u and lambda_v."
        )
