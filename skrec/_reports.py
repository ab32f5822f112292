"""Reports of the epochs of a fit, to callbacks and to the console."""

from __future__ import annotations

import math
import time

from ._core.training import History
from ._sklearn_compat import begin_callbacks

# Lines that a whole fit prints with verbose=1.
N_LINES = 10


class EpochReports:
    """Reports of the epochs of a fit, to callbacks and, with `verbose`, to the console.

    Parameters
    ----------
    estimator : BaseRecommender
        Estimator to fit.

    X, y : array-like, sparse or None
        Arguments of `fit`.

    metadata : dict
        Other arguments of `fit`; None means not given.

    attributes : callable
        Function that returns the attributes of the estimator if it stopped now.

    n_epochs : int
        Maximum number of epochs.

    held_out_std : float or None
        Standard deviation of the held-out ratings, in the unit of the ratings; None
        without held-out ratings.
    """

    def __init__(self, estimator, X, y, metadata, attributes, n_epochs, held_out_std):
        self.estimator, self.n_epochs = estimator, n_epochs
        self.held_out_std = held_out_std
        self.start = time.monotonic()
        self.unprinted: str | None = None
        self.arguments = {"estimator": estimator, "X": X, "y": y}
        given = {name: value for name, value in metadata.items() if value is not None}
        if given:
            self.arguments["metadata"] = given
        self.arguments["reconstruction_attributes"] = attributes
        self.fit = begin_callbacks(estimator, n_epochs)
        self.fit.call_on_fit_task_begin(**self.arguments)

    def begin_epoch(self) -> None:
        self.epoch = self.fit.subcontext(task_name="epoch")
        self.epoch.call_on_fit_task_begin(**self.arguments)

    def end_epoch(self, history: History) -> bool:
        """Report an epoch; return whether a callback requests to stop training."""
        if self.estimator.verbose:
            self._print(history)
        return self.epoch.call_on_fit_task_end(**self.arguments)

    def end(self) -> None:
        """Report the end, with the line of the last epoch."""
        if self.unprinted is not None:
            print(self.unprinted, flush=True)
        self.fit.call_on_fit_task_end(**self.arguments)

    def _print(self, history: History) -> None:
        """Print a line for the epoch, or keep it in case the epoch is the last."""
        epoch = len(history.loss_curve)
        line = (
            f"[{type(self.estimator).__name__}] iteration {epoch:{self._width}} of "
            f"{self.n_epochs}: objective {history.loss_curve[-1]:.6g}"
        )
        if self.held_out_std is not None:
            # Rounding can make R2 exceed 1.
            unexplained = max(0.0, 1 - history.validation_scores[-1])
            rmse = self.held_out_std * math.sqrt(unexplained)
            line += f", validation RMSE {rmse:.4f}"
        line += f", {time.monotonic() - self.start:.1f} s"
        every = 1 if self.estimator.verbose > 1 else -(-self.n_epochs // N_LINES)
        self.unprinted = line
        if epoch == 1 or epoch % every == 0:
            print(line, flush=True)
            self.unprinted = None

    @property
    def _width(self) -> int:
        return len(str(self.n_epochs))
