"""Recommenders for scikit-learn: estimators that predict explicit ratings.

Estimators and public modules are imported when they are first used: data sets, metrics
and splits then need no PyTorch.
"""

import importlib
from typing import TYPE_CHECKING, Any

from ._version import __version__

if TYPE_CHECKING:
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

_HOMES = {
    "AutoRecRegressor": "_networks.autorec",
    "BaselineRegressor": "_factorization.baseline",
    "BayesianMFRegressor": "_factorization.bayesian",
    "BiasedMFRegressor": "_factorization.mf",
    "CDLRegressor": "_texts.cdl",
    "CTRRegressor": "_texts.ctr",
    "Checkpoint": "_checkpoint",
    "ConvMFRegressor": "_texts.convmf",
    "LLORMARegressor": "_factorization.llorma",
    "PMFRegressor": "_factorization.mf",
    "RBMRegressor": "_networks.rbm",
    "SVDppRegressor": "_factorization.svdpp",
    "load": "io",
    "save": "io",
}
_MODULES = (
    "datasets",
    "distributed",
    "features",
    "inspection",
    "io",
    "metrics",
    "model_selection",
    "text",
)


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        home = importlib.import_module(f".{_HOMES[name]}", __name__)
        return globals().setdefault(name, getattr(home, name))
    if name in _MODULES:
        return importlib.import_module(f".{name}", __name__)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOMES, *_MODULES})
