"""Side information of the rows of an AutoRec, a further input."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from .._data.texts import reduce_texts
from .._factorization.knowledge import Knowledge
from .._fitting import Fit

# Root mean square length of a row of each block of features. A larger value means a
# smaller penalty on the weights of features. It was chosen on validation ratings: with
# 5, items of ML-1M that have many ratings were less accurate than without features.
_FEATURE_LENGTH = 3.0


class SideInput(NamedTuple):
    """What is known of the rows of an AutoRec: texts and features.

    Attributes
    ----------
    values : Tensor of shape (n_rows, n_side) or None
        Input: components of texts, then centered features; None if nothing is known.

    n_components : int
        Number of components of texts.

    knowledge : Knowledge
        Features.
    """

    values: Tensor | None
    n_components: int
    knowledge: Knowledge

    @classmethod
    def of(cls, fit: Fit) -> SideInput:
        """Reduce the texts of a fit and encode its features."""
        blocks, n_components = [], 0
        if fit.texts is not None and any(text is not None for text in fit.texts):
            components = reduce_texts(
                fit.texts, fit.estimator.n_text_components, fit.random_state
            )
            n_components = components.shape[1]
            fit.mark_described(np.flatnonzero(components.any(axis=1)))
            blocks.append(torch.tensor(components, dtype=fit.dtype))
        knowledge = Knowledge.of(fit)
        for features in knowledge.tensors(fit.dtype, torch.device("cpu")):
            if features is not None:
                blocks.append(_FEATURE_LENGTH * features.dense())
        values = torch.cat(blocks, 1) if blocks else None
        return cls(values, n_components, knowledge)

    def attributes(self, weights: Tensor | None) -> dict[str, Any]:
        """Fitted attributes, given the weights of shape (n_side, k_1)."""
        coefs = np.empty((0, 0)) if weights is None else weights.numpy()
        of_texts, of_features = np.split(coefs, [self.n_components])
        # Only the side of the rows has features.
        of_features = _FEATURE_LENGTH * of_features
        return {
            "text_coefs_": of_texts if len(of_texts) else None,
            **self.knowledge.feature_attributes(of_features, of_features),
        }
