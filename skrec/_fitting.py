"""Common steps of all fits, from the arguments of `fit` to the fitted attributes."""

from __future__ import annotations

import copy
import functools
import math
import re
import reprlib
import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import numpy as np
import scipy.sparse as sp
import torch
from sklearn.exceptions import ConvergenceWarning
from sklearn.utils import check_random_state
from torch import Tensor

from ._checkpoint import Checkpoint, FitCheckpoint
from ._core.collectives import ALONE, Group, Share
from ._core.device import own_settings, resolve_device
from ._core.interrupts import Interrupts
from ._core.optimizers import Optimizer
from ._core.sparse import Pattern
from ._core.threads import set_threads, threads_for
from ._core.training import History, Stopping, iterate
from ._data.dealt import refuse_different_texts, unite_ranks
from ._data.ids import positions_of
from ._data.ratings import (
    Ratings,
    Scale,
    check_ratings,
    is_matrix,
    shrunken_means,
)
from ._data.side_information import resolve_features
from ._data.texts import resolve_item_texts
from ._limits import (
    refuse_extreme_parameters,
    refuse_extreme_ratings,
    refuse_extreme_weights,
    refuse_large_sizes,
)
from ._prediction import PredictorCache
from ._reports import EpochReports
from ._sklearn_compat import (
    N_WRAPPERS,
    get_feature_names,
    with_validation_and_callbacks,
)

F = TypeVar("F", bound=Callable[..., Any])

MAX_SEED = np.iinfo(np.int32).max
# Parameters that are compared between processes; word vectors are large.
_SHORT = reprlib.Repr()
_SHORT.maxstring = _SHORT.maxother = 1000
_SHORT.maxtuple = _SHORT.maxlist = 100


def fit_method(fit: F) -> F:
    """Decorate the `fit` of a recommender.

    It validates the parameters and runs with callbacks, and with skrec's own settings
    of PyTorch.
    """
    return with_validation_and_callbacks(own_settings()(fit))


@dataclass
class RatingAttributes:
    """Fitted attributes that depend only on the ratings."""

    n_features_in_: int
    users_: np.ndarray
    items_: np.ndarray
    rating_range_: tuple[float, float]
    rating_std_: float
    global_mean_: float
    user_means_: np.ndarray
    item_means_: np.ndarray
    _fitted_on_matrix: bool
    _seen: sp.csr_array
    _levels: np.ndarray | None
    _is_rated: np.ndarray
    _is_described: np.ndarray
    _is_described_user: np.ndarray
    _scale: Scale

    @classmethod
    def of(
        cls,
        ratings: Ratings,
        on_matrix: bool,
        normalize: bool,
        group: Group = ALONE,
    ) -> RatingAttributes:
        """Compute the attributes.

        Parameters
        ----------
        ratings : Ratings
            Ratings in their own unit.

        on_matrix : bool
            Whether the ratings are given as a matrix.

        normalize : bool
            Whether the model sees standardized ratings.

        group : Group
            Ranks that have the users.
        """
        n_users, n_items = ratings.shape
        values, weights = ratings.values, ratings.weights
        extremes = group.gather((float(values.min()), float(values.max())))
        low, high = min(r[0] for r in extremes), max(r[1] for r in extremes)
        mean, std = ratings.moments(group.total, low == high)
        indices, total = ratings.indices, group.total
        seen = ratings.stored.stored, ratings.indices, ratings.indptr
        return cls(
            n_features_in_=n_items if on_matrix else 2,
            users_=ratings.users.copy(),
            items_=ratings.items.copy(),
            rating_range_=(low, high),
            rating_std_=std,
            global_mean_=mean,
            user_means_=shrunken_means(ratings.rows, n_users, values, mean, weights),
            item_means_=shrunken_means(indices, n_items, values, mean, weights, total),
            _fitted_on_matrix=on_matrix,
            _seen=sp.csr_array(seen, shape=ratings.shape),
            _levels=ratings.stored.levels,
            _is_rated=total(np.bincount(indices, minlength=n_items)) > 0,
            _is_described=np.zeros(n_items, bool),
            _is_described_user=np.zeros(n_users, bool),
            _scale=Scale(mean, std or 1.0) if normalize else Scale(),
        )


class Trainer(ABC):
    """Base class of trainers: the state and the steps of a fit, one class per model.

    Attributes
    ----------
    n_epochs : int
        Maximum number of epochs.

    may_settle : bool
        Whether the fit ends when the loss has stopped decreasing.

    must_settle : bool
        Whether to warn if the loss is still decreasing after the last epoch.

    keeps_first : bool
        Whether each epoch but the first calls `keep` before it changes a parameter.
    """

    n_epochs: int
    may_settle: bool = True
    must_settle: bool = True
    keeps_first: bool = False

    @abstractmethod
    def parameters(self) -> list[Tensor]:
        """All tensors of the model; the best of their states is kept."""

    @abstractmethod
    def step(self, epoch: int, keep: Callable[[], None]) -> float:
        """Run an epoch and return its loss; see `iterate` for `keep`."""

    def validate(self) -> float:
        """R² of the predictions for the held-out ratings, if there are any."""
        raise TypeError(f"{type(self).__name__} does not stop early.")

    @abstractmethod
    def attributes(self) -> dict[str, Any]:
        """Fitted attributes for the current parameters."""

    def optimizers(self) -> list[Optimizer]:
        """Optimizers, whose moments are part of the state."""
        return []

    def generators(self) -> list[torch.Generator | np.random.Generator]:
        """Random number generators used by the steps."""
        return []

    def extras(self) -> dict[str, Any]:
        """Further attributes of the trainer that a step changes, by name."""
        return {}

    def state(self) -> dict[str, Any]:
        """Copy of the complete state on which the next steps depend."""
        return {
            "parameters": [p.detach().clone() for p in self.parameters()],
            "optimizers": [copy.deepcopy(o.state_dict()) for o in self.optimizers()],
            "generators": [_generator_state(g) for g in self.generators()],
            "extras": copy.deepcopy(self.extras()),
        }

    @torch.no_grad()
    def load_state(self, state: dict[str, Any]) -> None:
        """Restore the state of a trainer constructed from the same arguments."""
        for parameter, saved in zip(
            self.parameters(), state["parameters"], strict=True
        ):
            parameter.copy_(saved)
        for optimizer, saved in zip(
            self.optimizers(), state["optimizers"], strict=True
        ):
            optimizer.load_state_dict(copy.deepcopy(saved))
        for generator, saved in zip(
            self.generators(), state["generators"], strict=True
        ):
            if isinstance(generator, torch.Generator):
                generator.set_state(saved)
            else:
                generator.bit_generator.state = saved
        for name, saved in copy.deepcopy(state["extras"]).items():
            setattr(self, name, saved)


class Fit:
    """One call of `fit`.

    The constructor validates the ratings and splits off held-out ratings, before any
    training. `run` trains the model and stores all attributes at once. A rejected fit,
    or one interrupted in its first epoch, therefore leaves the estimator unchanged.

    Parameters
    ----------
    estimator : BaseRecommender
        Estimator to fit.

    X, y, sample_weight, item_texts, item_features, user_features
        Arguments of the estimator's `fit`.

    Attributes
    ----------
    group : Group
        Processes that fit the model together, each with its own users.

    share : Share
        Users of this process among those of all.

    device : torch.device
        Device to compute on.

    dtype : torch.dtype
        Precision of the model.

    ratings : Ratings
        All ratings, standardized if the estimator has ``normalize_y=True``. The users
        and items are those that have ratings, a text or features.

    mean : float
        Weighted mean of `ratings`; 0 if they are standardized.

    texts : list of length n_items or None
        Text of each item, None for items without text; None without `item_texts`.

    item_features, user_features : ResolvedFeatures or None
        Tables of what is known of items and users.

    known : RatingAttributes
        Attributes that depend only on the ratings, in the unit of the ratings.

    random_state : RandomState
        Source of all seeds.

    training : Ratings
        Training ratings.

    is_held_out : ndarray of shape (n_ratings,), dtype bool, or None
        Mask of the held-out ratings; None without `early_stopping`.

    held_out : Ratings or None
        Held-out ratings for early stopping; None without `early_stopping`.

    previous : BaseRecommender or None
        Previously fitted estimator, if `warm_start` continues from it.
    """

    def __init__(
        self,
        estimator: Any,
        X: Any,
        y: Any,
        sample_weight: Any = None,
        item_texts: Any = None,
        item_features: Any = None,
        user_features: Any = None,
    ):
        self.estimator = estimator
        # `skrec.distributed` gives the estimator a group for the time of the fit.
        self.group: Group = getattr(estimator, "_group", ALONE)
        self.device = resolve_device(self.group.local_device(estimator.device))
        self.dtype: torch.dtype = getattr(torch, estimator.dtype)
        refuse_extreme_parameters(estimator)
        on_matrix = is_matrix(X)
        ratings, texts = check_ratings(X, y, sample_weight), None
        ratings = unite_ranks(ratings, on_matrix, self._agreement(), self.group)
        self.item_features, self.user_features = None, None
        rated = ratings.items
        if item_features is not None:
            self.item_features = resolve_features(
                item_features, ratings.items, "item", on_matrix=on_matrix
            )
            ratings = ratings.with_items(self.item_features.ids)
        if item_texts is not None:
            ids, texts = resolve_item_texts(
                item_texts, ratings.items, on_matrix=on_matrix, rated=rated
            )
            ratings = ratings.with_items(ids)
            if self.item_features is not None:
                self.item_features = self.item_features.among(ids, "item")
        refuse_different_texts(ratings.items, texts, self.group)
        if user_features is not None:
            self.user_features = resolve_features(
                user_features, ratings.users, "user", on_matrix=on_matrix
            )
            ratings = ratings.with_users(self.user_features.ids)
        refuse_large_sizes(estimator, ratings.shape)
        normalize = getattr(estimator, "normalize_y", False)
        refuse_extreme_ratings(ratings, "float64" if normalize else estimator.dtype)
        refuse_extreme_weights(ratings.weights, estimator.dtype)
        self.share = self._share(ratings.shape[0])
        self.known = RatingAttributes.of(ratings, on_matrix, normalize, self.group)
        self.mark_described(np.flatnonzero([text is not None for text in texts or []]))
        self.mean = 0.0 if normalize else self.known.global_mean_
        standardized = ratings.stored.map(self.known._scale.standardize)
        self.ratings, self.texts = replace(ratings, stored=standardized), texts
        n_texts = sum(text is not None for text in texts or [])
        set_threads(threads_for(ratings.n_ratings, n_texts))
        self.feature_names = get_feature_names(X)
        self.random_state = check_random_state(estimator.random_state)
        self.is_held_out = None
        self.training, self.held_out = self._hold_out()
        self.previous = None
        if getattr(estimator, "warm_start", False) and hasattr(estimator, "users_"):
            self.previous = estimator
            _refuse_dropped(estimator, self.ratings)
        metadata = {
            "sample_weight": sample_weight,
            "item_texts": item_texts,
            "item_features": item_features,
            "user_features": user_features,
        }
        self._arguments = X, y, metadata

    @functools.cached_property
    def training_pattern(self) -> Pattern:
        """Pattern of the training ratings, on the device."""
        return pattern_of(self.training, self.device)

    def draw_seed(self) -> int:
        """Draw a seed for a generator, the same on all ranks."""
        return self.group.first(int(self.random_state.randint(MAX_SEED)))

    def tensors(
        self, ratings: Ratings, offset: float = 0.0, device=None
    ) -> tuple[Pattern, Tensor, Tensor | None]:
        """Return the pattern, the ratings minus the offset, and the weights.

        The tensors are on `device`, by default the device of the fit.
        """
        device = self.device if device is None else device
        if ratings is self.training and device == self.device:
            pattern = self.training_pattern
        else:
            pattern = pattern_of(ratings, device)
        residuals = ratings.stored.map(lambda values: values - offset)
        values = torch.from_numpy(residuals.decode(self.estimator.dtype)).to(device)
        return pattern, values, self.weights(ratings, device)

    def weights(self, ratings: Ratings, device: torch.device) -> Tensor | None:
        """Weights of ratings on a device; None if all are 1."""
        if ratings.weights is None:
            return None
        return torch.tensor(ratings.weights, dtype=self.dtype, device=device)

    def rating_weights(self) -> np.ndarray | None:
        """Weights of all ratings, 0 for those held out; None if all are 1.

        They are booleans if all are 0 or 1.
        """
        weights, is_held_out = self.ratings.weights, self.is_held_out
        if weights is None:
            return None if is_held_out is None else ~is_held_out
        weights = weights.astype(self.estimator.dtype)
        if is_held_out is not None:
            weights[is_held_out] = 0
        return weights

    def run(self, trainer: Trainer) -> Any:
        """Train the model, store the fitted attributes and return the estimator."""
        estimator = self.estimator
        reports = EpochReports(
            estimator,
            *self._arguments,
            # The other ranks take no part in a reconstruction.
            None if self.group.size > 1 else lambda: self._attributes(trainer),
            trainer.n_epochs,
            self._held_out_std(),
        )
        files = self._checkpoints()
        checkpoint = FitCheckpoint(files[0], self, trainer) if files else None
        stopping = Stopping(
            trainer.n_epochs,
            getattr(estimator, "tol", 0.0),
            getattr(estimator, "n_iter_no_change", trainer.n_epochs),
        )
        with Interrupts() as interrupts:
            history = iterate(
                trainer.step,
                trainer.parameters(),
                stopping,
                validate=None if self.held_out is None else trainer.validate,
                begin_epoch=reports.begin_epoch,
                end_epoch=reports.end_epoch,
                may_settle=trainer.may_settle,
                keeps_first=trainer.keeps_first,
                checkpoint=checkpoint,
                group=self.group,
                interrupts=interrupts,
            )
            has_others = self.group.size > 1  # which do not know of an interrupt
            if history.interrupt and (has_others or not history.loss_curve):
                raise history.interrupt
            self._store(self._attributes(trainer) | _history_attributes(history))
            if history.interrupt is not None:
                raise history.interrupt
            if checkpoint is not None:
                checkpoint.remove()
        self._warn(history, trainer)
        reports.end()
        return estimator

    def mark_described(self, with_text: np.ndarray) -> None:
        """Note which items have a text or features, and which users have features.

        `with_text` are the positions of the items that have a text.
        """
        self.known._is_described[:] = False
        self.known._is_described[with_text] = True
        if self.item_features is not None:
            self.known._is_described[self.item_features.places] = True
        if self.user_features is not None:
            self.known._is_described_user[self.user_features.places] = True

    def _agreement(self) -> dict[str, str]:
        """Return what must be the same on all ranks."""
        if self.group.size == 1:
            return {}
        params = self.estimator.get_params(deep=False)
        own = ("device", "random_state", "verbose")
        found = {name: _describe(x) for name, x in params.items() if name not in own}
        found["class"] = type(self.estimator).__name__
        found["fitted state"] = str(hasattr(self.estimator, "users_"))
        found["number of Checkpoint callbacks"] = str(len(self._checkpoints()))
        return found

    def _checkpoints(self) -> list[Checkpoint]:
        found = getattr(self.estimator, "_skl_callbacks", [])
        return [callback for callback in found if isinstance(callback, Checkpoint)]

    def _share(self, n_users: int) -> Share:
        """Return the place of this rank's users among those of all ranks."""
        counts = self.group.gather(n_users)
        return Share(sum(counts[: self.group.rank]), n_users, sum(counts))

    def _hold_out(self) -> tuple[Ratings, Ratings | None]:
        """Split the ratings into training ratings and held-out ratings."""
        if not getattr(self.estimator, "early_stopping", False):
            return self.ratings, None
        n_ratings = self.ratings.n_ratings
        # R² needs at least two ratings.
        n_held_out = max(2, math.ceil(self.estimator.validation_fraction * n_ratings))
        if n_held_out >= n_ratings:
            raise ValueError(
                f"early_stopping=True leaves no rating to train on out of "
                f"{n_ratings}: use early_stopping=False."
            )
        random_state = self.random_state
        if self.group.size > 1:
            random_state = np.random.RandomState([self.draw_seed(), self.group.rank])
        mask = self.is_held_out = random_state.permutation(n_ratings) < n_held_out
        return self.ratings.select(~mask), self.ratings.select(mask)

    def _held_out_std(self) -> float | None:
        """Standard deviation of all held-out ratings, in their own unit."""
        if self.held_out is None:
            return None
        _, std = self.held_out.moments(self.group.total, is_constant=False)
        return std * self.known._scale.std

    def _attributes(self, trainer: Trainer) -> dict[str, Any]:
        attributes = vars(self.known) | trainer.attributes()
        if self.feature_names is not None:
            attributes["feature_names_in_"] = self.feature_names
        attributes["device_"] = str(self.device)
        attributes["_predictors"] = PredictorCache()
        return attributes

    def _store(self, attributes: dict[str, Any]) -> None:
        """Replace all previous attributes at once."""
        kept = {k: v for k, v in vars(self.estimator).items() if not k.endswith("_")}
        self.estimator.__dict__ = kept | attributes

    def _warn(self, history: History, trainer: Trainer) -> None:
        estimator, message = self.estimator, None
        name = type(estimator).__name__
        if history.reason == "diverged":
            message = (
                f"{name} diverged in epoch {len(history.loss_curve) + 1}: the loss is "
                "not finite. The last finite state is kept. "
                f"{estimator._divergence_remedy}."
            )
        elif history.reason == "max_iter" and trainer.must_settle:
            message = (
                f"{name} stopped at max_iter={estimator.max_iter} before the loss had "
                f"settled to tol={estimator.tol}. Raise max_iter or tol."
            )
        if message is not None and self.group.rank == 0:
            # This method, `run`, `fit`, and its wrappers.
            level = 3 + N_WRAPPERS + 1
            warnings.warn(message, ConvergenceWarning, stacklevel=level)


def _describe(value: Any) -> str:
    """Description of a parameter that is the same in all processes."""
    return re.sub(r" at 0x[0-9a-fA-F]+", "", _SHORT.repr(value))


def _refuse_dropped(previous: Any, ratings: Ratings) -> None:
    """Raise an error if a warm start would drop rated users or items."""
    has_rated = np.diff(previous._seen.indptr) > 0
    for side, ids, old, was_rated in (
        ("user", ratings.users, previous.users_, has_rated),
        ("item", ratings.items, previous.items_, previous._is_rated),
    ):
        is_dropped = was_rated.copy()
        places = positions_of(ids, old, side)
        is_dropped[places[places >= 0]] = False
        if is_dropped.any():
            raise ValueError(
                f"warm_start=True continues the previous fit, but {is_dropped.sum()} "
                f"of its {len(old)} {side}s are missing in X, for example "
                f"{old[is_dropped].tolist()[0]!r}, and would be dropped: pass all "
                "ratings, old and new, or use warm_start=False."
            )


def pattern_of(ratings: Ratings, device: torch.device) -> Pattern:
    """Pattern of ratings on a device."""
    crow, col = torch.tensor(ratings.indptr), torch.tensor(ratings.indices)
    return Pattern(crow, col, ratings.shape).to(device)


def r_squared(
    ratings: Tensor, predicted: Tensor, weights: Tensor | None, group: Group = ALONE
) -> float:
    """R² of predictions of shape (n_ratings,), on any device, over all ranks."""
    ratings, predicted = ratings.double(), predicted.to(ratings.device).double()
    weights = torch.ones_like(ratings) if weights is None else weights.double()
    sums = torch.stack([weights.sum(), weights @ ratings])
    n, total = group.sum(sums).tolist()
    squares = [weights @ (ratings - other) ** 2 for other in (predicted, total / n)]
    errors, variance = group.sum(torch.stack(squares)).tolist()
    return 1 - errors / variance if variance else float(errors == 0)


def _history_attributes(history: History) -> dict[str, Any]:
    return {
        "n_iter_": len(history.loss_curve),
        "loss_curve_": history.loss_curve,
        "validation_scores_": history.validation_scores,
    }


def _generator_state(generator: torch.Generator | np.random.Generator) -> Any:
    if isinstance(generator, torch.Generator):
        return generator.get_state()
    return copy.deepcopy(generator.bit_generator.state)
