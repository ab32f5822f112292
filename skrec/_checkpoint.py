"""Checkpoints of fits: a file from which the same fit continues after a crash."""

from __future__ import annotations

import os
import pickle
import time
import warnings
from numbers import Integral, Real
from pathlib import Path
from typing import Any

import joblib
import torch
from joblib.hashing import NumpyHasher

from ._sklearn_compat import N_WRAPPERS
from ._version import __version__
from .io import check_writable, read_state, remove, write_state

_TENSOR = "tensor"


class Checkpoint:
    """Callback that writes the state of a fit to a file, and resumes from it.

    If the process dies, the same call of `fit` continues from the last checkpoint and
    ends with the same weights, bit by bit, as an uninterrupted fit. A complete fit
    removes the file.

    Parameters
    ----------
    path : str or path-like
        File of the checkpoint. One fit at a time may use it. If it is an existing
        folder, each fit has a file of its own in it, whose name depends on data and
        parameters, so that the fits of a search or of cross-validation do not meet. In
        :func:`skrec.distributed.fit`, each rank has two files, whose names begin with
        `path`, and all ranks resume from the same iteration.

    every : float, default=60.0
        Seconds between checkpoints, at least; 0 means after each iteration. On
        MovieLens 1M, a checkpoint has 1 to 160 MB and takes up to 0.8 seconds of a
        processor.

    Warns
    -----
    UserWarning
        If a checkpoint cannot be written, for example because the disk is full. The
        fit goes on, and the previous checkpoint remains; of several ranks, the last one
        that all have. Or if the files of ranks have no iteration in common, so that the
        fit begins anew.

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
        if not isinstance(estimator.random_state, Integral):
            raise ValueError(
                f"A checkpoint needs an integer random_state, not "
                f"{estimator.random_state!r}: otherwise, the fit cannot be repeated."
            )
        self.path, self.every = Path(checkpoint.path), checkpoint.every
        self.group = group = fit.group
        self.written = time.monotonic()
        self.trainer = trainer
        # The caller of `fit`, from a method: that method, `iterate`, `Fit.run`, `fit`
        # and its wrappers are between, and with several ranks `skrec.distributed.fit`.
        self.stack_level = 4 + N_WRAPPERS + 1 + (group.size > 1)
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
        if group.size > 1:
            values["number of ranks"] = group.size
        # Of an earlier fit, a warm start takes weights alone.
        start = None if fit.previous is None else _encode(trainer.state())
        values["initial weights (from the earlier fit, by warm_start)"] = start
        self.digests = {name: _digest(name, value) for name, value in values.items()}
        if self.path.is_dir():
            self.path /= f"{type(estimator).__name__}-{joblib.hash(self.digests)}"
        self.paths, self.turn = [self.path], 0
        if group.size > 1:
            # Ranks do not end a checkpoint together. While one is written, all have the
            # last one: a rank takes part in an epoch only when its file is complete.
            name = f"{self.path.name}.rank-{group.rank}"
            self.paths = [self.path.with_name(f"{name}-{file}") for file in "ab"]
        for path in self.paths:
            check_writable(path)

    def load(self) -> dict[str, Any] | None:
        """Restore the trainer; return the state of the loop, or None without a file.

        All ranks restore the state after the last epoch of which each has a file.
        """
        found = {}
        for turn, path in enumerate(self.paths):
            if path.exists():
                saved = self._read(path)
                found[len(saved["loop"]["curves"][0])] = turn, saved
        epochs = self.group.gather(set(found))
        common = set.intersection(*epochs)
        if not common:
            if any(epochs) and self.group.rank == 0:
                warnings.warn(
                    f"The ranks have checkpoints {self.path} of no common iteration, "
                    "since files of some ranks are missing. The fit begins anew.",
                    stacklevel=self.stack_level,
                )
            return None
        turn, saved = found[max(common)]
        self.turn = (turn + 1) % len(self.paths)
        self.trainer.load_state(_decode(saved["trainer"]))
        loop: dict[str, Any] = _decode(saved["loop"])
        return loop

    def _read(self, path: Path) -> dict[str, Any]:
        """Read a file; refuse that of another fit."""
        saved: dict[str, Any] = read_state(path)
        names = sorted(self.digests.keys() | saved["digests"].keys())
        other = [n for n in names if self.digests.get(n) != saved["digests"].get(n)]
        if other:
            raise ValueError(
                f"{path} is the checkpoint of another fit: {', '.join(other)} "
                "differ. Remove the file, or use another one; the fits of a search "
                "need an existing folder as the path of their checkpoints."
            )
        return saved

    def save(self, epoch: int, loop: dict[str, Any]) -> None:
        """Write the state after an epoch, if it is time."""
        if not self.group.first(time.monotonic() - self.written >= self.every):
            return
        state = {"trainer": self.trainer.state(), "loop": loop}
        path, is_written = self.paths[self.turn], True
        try:
            write_state(path, _encode(state) | {"digests": self.digests})
        except OSError as error:
            is_written = False
            warnings.warn(
                f"The checkpoint {path} could not be written after iteration "
                f"{epoch} ({error}). The fit goes on; the next attempt is in "
                f"{self.every:g} seconds.",
                UserWarning,
                stacklevel=self.stack_level,
            )
        if self.group.all(is_written):
            self.turn = (self.turn + 1) % len(self.paths)
        self.written = time.monotonic()

    def remove(self) -> None:
        for path in self.paths:
            remove(path)


class _Hasher(NumpyHasher):
    """Hasher of joblib, for which frozen sets have no order.

    Their order differs between processes, as does that of sets, which joblib sorts.
    """

    def reducer_override(self, value: Any) -> Any:
        if type(value) is frozenset:
            return frozenset, (set(value),)
        return NotImplemented


def _digest(name: str, value: Any) -> str:
    """Return the digest of a value, the same in all processes."""
    try:
        return _Hasher("md5").hash(value)
    except pickle.PicklingError as error:
        raise ValueError(
            f"A checkpoint needs a value of {name} that can be compared with that of "
            f"a later process, but {error.args[0]}: use functions and classes of a "
            "module."
        ) from error


def _encode(value: Any) -> Any:
    """Replace tensors, which skops does not know, by marked arrays."""
    if isinstance(value, torch.Tensor):
        return {_TENSOR: value.detach().cpu().contiguous().numpy()}
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
