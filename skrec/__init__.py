"""Recommenders for scikit-learn: estimators that predict explicit ratings."""

from ._checkpoint import Checkpoint
from ._factorization.baseline import BaselineRegressor
from ._factorization.bayesian import BayesianMFRegressor
from ._factorization.llorma import LLORMARegressor
from ._factorization.mf import BiasedMFRegressor, PMFRegressor
from ._factorization.svdpp import SVDppRegressor
from ._networks.autorec import AutoRecRegressor
from ._networks.rbm import RBMRegressor
from ._texts.cdl import CDLRegressor
from ._texts.convmf import ConvMFRegressor
from ._texts.ctr import CTRRegressor
from ._version import __version__
from .io import load, save

__all__ = [
    "AutoRecRegressor",
    "BaselineRegressor",
    "BayesianMFRegressor",
    "BiasedMFRegressor",
    "CDLRegressor",
    "CTRRegressor",
    "Checkpoint",
    "ConvMFRegressor",
    "LLORMARegressor",
    "PMFRegressor",
    "RBMRegressor",
    "SVDppRegressor",
    "__version__",
    "load",
    "save",
]
