"""Inspection of fitted models and of ratings: displays, and filters of text networks.

The displays draw with matplotlib, which is imported when the first one is drawn.
"""

from ._errors import CalibrationDisplay, ErrorByCountDisplay
from ._explanation import ExplanationDisplay
from ._factors import FactorMapDisplay
from ._filters import filter_phrases, phrase_values
from ._ratings import RatingDistributionDisplay
from ._training import TrainingCurvesDisplay

__all__ = [
    "CalibrationDisplay",
    "ErrorByCountDisplay",
    "ExplanationDisplay",
    "FactorMapDisplay",
    "RatingDistributionDisplay",
    "TrainingCurvesDisplay",
    "filter_phrases",
    "phrase_values",
]
