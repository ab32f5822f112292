"""Checkpoints of fits: a file from which the same fit continues after a crash."""

from __future__ import annotations

import os
import time
from numbers import Integral, Real
from pathlib import Path
from typing import Any

import joblib
import torch

from ._version import __version__
from .io import read_state, write_state

_TENSOR = "tensor"


class Checkpoint:
    """Callback that writes the state of a fit to a file, and resumes from it.

    If the process dies, the same call of `fit` continues from the last checkpoint and
    ends with the same weights, bit by bit, as an uninterrupted fit. A complete fit
    removes the file.

    Parameters
    ----------
    path : str or path-like
        File of the checkpoint. One fit at a time may use it.

    every : float, default=60.0
        Seconds between checkpoints, at least; 0 means after each iteration. A
        checkpoint takes about as long as an iteration of a fast model.

    Examples
    --------
    >>> import os, tempfile
    >>> from skrec import AutoRecRegressor, Checkpoint
    >>> from skrec.datasets import make_ratings
    >>> path = os.path.join(tempfile.mkdtemp(), "fit.checkpoint")
    >>> model = AutoRecRegressor(random_state=0)
    >>> model = model.set_callbacks(Checkpoint(path))
    >>> model = model.fit(make_ratings(80, 50, random_state=0).R)
    >>> os.path.exists(path)
    False
    """

    def __init__(self, path: str | os.PathLike[str], every: float = 60.0):
        if isinstance(every, bool) or not isinstance(every, Real) or not every >= 0:
            raise ValueError(f"every is {every!r}: use seconds, a number from 0 up.")
        self.path: str | os.PathLike[str] = path
        self.every: float = every

    def setup(self, estimator, context):
        """Do nothing: the fit calls the checkpoint itself."""

    def on_fit_task_begin(self, estimator, context):
        """Do nothing: the fit calls the checkpoint itself."""

    def on_fit_task_end(self, estimator, context):
        """Do nothing: the fit calls the checkpoint itself."""

    def teardown(self, estimator, context):
        """Do nothing: the fit calls the checkpoint itself."""


class FitCheckpoint:
    """Checkpoint of one fit.

    Parameters
    ----------
    checkpoint : Checkpoint
        File and frequency.

    fit : Fit
        Fit, whose data and parameters must be those of the file.

    trainer : Trainer
        Trainer with the state to write and to restore.
    """

    def __init__(self, checkpoint: Checkpoint, fit: Any, trainer: Any):
        estimator = fit.estimator
        is_fixed = isinstance(estimator.random_state, Integral)
        if not is_fixed or fit.previous is not None:
            raise ValueError(
                f"A checkpoint needs an integer random_state, not "
                f"{estimator.random_state!r}, and no earlier fit to continue from by "
                "warm_start: otherwise, the fit cannot be repeated."
            )
        self.path, self.every = Path(checkpoint.path), checkpoint.every
        self.written = time.monotonic()
        self.trainer = trainer
        values = estimator.get_params(deep=False)
        values.pop("verbose")
        data = (
            fit.known,
            fit.ratings,
            fit.texts,
            fit.item_features,
            fit.user_features,
        )
        values |= {"estimator": type(estimator).__name__, "data": data}
        values |= {"skrec": __version__, "torch": torch.__version__}
        self.digests = {name: joblib.hash(value) for name, value in values.items()}

    def load(self) -> dict[str, Any] | None:
        """Restore the trainer; return the state of the loop, or None without a file."""
        if not self.path.exists():
            return None
        saved = read_state(self.path)
        names = sorted(self.digests.keys() | saved["digests"].keys())
        other = [n for n in names if self.digests.get(n) != saved["digests"].get(n)]
        if other:
            raise ValueError(
                f"{self.path} is the checkpoint of another fit: {', '.join(other)} "
                "differ. Remove the file, or use another one."
            )
        self.trainer.load_state(_decode(saved["trainer"]))
        return _decode(saved["loop"])

    def save(self, epoch: int, loop: dict[str, Any]) -> None:
        """Write the state after an epoch, if it is time."""
        if time.monotonic() - self.written < self.every:
            return
        state = {"trainer": self.trainer.state(), "loop": loop}
        write_state(self.path, _encode(state) | {"digests": self.digests})
        self.written = time.monotonic()

    def remove(self) -> None:
        self.path.unlink(missing_ok=True)


def _encode(value: Any) -> Any:
    """Replace tensors, which skops does not know, by marked arrays."""
    if isinstance(value, torch.Tensor):
        return {_TENSOR: value.detach().cpu().numpy()}
    return _map(_encode, value)


def _decode(value: Any) -> Any:
    if isinstance(value, dict) and value.keys() == {_TENSOR}:
        return torch.from_numpy(value[_TENSOR])
    return _map(_decode, value)


def _map(function, value: Any) -> Any:
    """Apply a function to the elements of a container."""
    if isinstance(value, dict):
        return {key: function(element) for key, element in value.items()}
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        return type(value)(*map(function, value))
    if isinstance(value, (list, tuple)):
        return type(value)(map(function, value))
    return value
