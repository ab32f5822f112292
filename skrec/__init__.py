"""Recommenders for scikit-learn: estimators that predict explicit ratings."""

from ._autorec import AutoRecRegressor

__version__ = "0.1.0"

__all__ = ["AutoRecRegressor", "__version__"]
