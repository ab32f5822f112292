"""Recommenders for scikit-learn: estimators that predict explicit ratings."""

from ._autorec import AutoRecRegressor
from ._bayesian_mf import BayesianMFRegressor
from ._cdl import CDLRegressor
from ._convmf import ConvMFRegressor
from ._ctr import CTRRegressor
from ._llorma import LLORMARegressor
from ._mf import BiasedMFRegressor, PMFRegressor
from ._rbm import RBMRegressor
from ._svdpp import SVDppRegressor

__version__ = "0.1.0"

__all__ = [
    "AutoRecRegressor",
    "BayesianMFRegressor",
    "BiasedMFRegressor",
    "CDLRegressor",
    "CTRRegressor",
    "ConvMFRegressor",
    "LLORMARegressor",
    "PMFRegressor",
    "RBMRegressor",
    "SVDppRegressor",
    "__version__",
]
