"""Display of the objective and the validation scores by iteration."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Self

from ._checks import axes_to_draw_on, check_recommender


class TrainingCurvesDisplay:
    """Objective and validation scores after each iteration of a fit.

    Use `from_estimator` to create it. All parameters are stored as attributes.

    Parameters
    ----------
    loss_curve : sequence of float
        Objective after each iteration.

    validation_scores : sequence of float, default=()
        R² on the held-out ratings after each iteration; empty without early stopping.

    Attributes
    ----------
    ax_ : matplotlib Axes
        Axes with the objective.

    validation_ax_ : matplotlib Axes or None
        Axes with the validation scores, which share the iterations with `ax_`; None
        without such scores.

    figure_ : matplotlib Figure
        Figure of the axes.

    Examples
    --------
    >>> from skrec import AutoRecRegressor
    >>> from skrec.datasets import make_ratings
    >>> from skrec.inspection import TrainingCurvesDisplay
    >>> R = make_ratings(200, 80, random_state=0).R
    >>> model = AutoRecRegressor(early_stopping=True, random_state=0).fit(R)
    >>> display = TrainingCurvesDisplay.from_estimator(model)
    >>> display.ax_.get_xlabel(), display.validation_ax_.get_ylabel()
    ('iteration', 'R² of the held-out ratings')
    """

    def __init__(
        self, loss_curve: Sequence[float], validation_scores: Sequence[float] = ()
    ) -> None:
        self.loss_curve = loss_curve
        self.validation_scores = validation_scores

    @classmethod
    def from_estimator(cls, model: Any, *, ax: Any = None) -> Self:
        """Draw the training curves of a fitted model.

        Parameters
        ----------
        model : recommender
            Fitted model.

        ax : matplotlib Axes, default=None
            Axes to draw on. None means those of a new figure.

        Returns
        -------
        display : TrainingCurvesDisplay
            Display with the `loss_curve_` and `validation_scores_` of the model.

        Raises
        ------
        NotFittedError
            If the model is not fitted.
        TypeError
            If the model is not a recommender of skrec.
        """
        check_recommender(model)
        return cls(model.loss_curve_, model.validation_scores_).plot(ax)

    def plot(self, ax: Any = None) -> Self:
        """Draw the curves.

        Parameters
        ----------
        ax : matplotlib Axes, default=None
            Axes to draw on. None means those of a new figure.

        Returns
        -------
        display : TrainingCurvesDisplay
            The display itself.

        Raises
        ------
        ImportError
            If matplotlib is not installed.
        """
        ax = axes_to_draw_on(self, ax)
        lines = ax.plot(
            range(1, len(self.loss_curve) + 1), self.loss_curve, ".-", label="objective"
        )
        ax.set(xlabel="iteration", ylabel="objective")
        self.validation_ax_ = None
        if len(self.validation_scores):
            self.validation_ax_ = ax.twinx()
            lines += self.validation_ax_.plot(
                range(1, len(self.validation_scores) + 1),
                self.validation_scores,
                ".-",
                color="C1",
                label="validation",
            )
            self.validation_ax_.set_ylabel("R² of the held-out ratings")
            ax.legend(handles=lines, loc="center right")
        self.ax_, self.figure_ = ax, ax.figure
        return self
