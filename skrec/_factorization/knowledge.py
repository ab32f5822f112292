"""What is known of users and items, in a variational factorization."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple

import numpy as np
import torch

from .._core.device import as_tensor, to_array
from .._core.prior_means import Features, NormalPrior
from .._core.sparse import Pattern
from .._core.variational import Factorization
from .._data.side_information import EncodedFeatures, encode_features
from .._fitting import Fit
from ..features import FeatureEncoder

# Fitted attributes of each side: encoder, names of its columns, their blocks, means and
# weights
ATTRIBUTES = (
    "{}_encoder_",
    "{}_feature_names_",
    "{}_feature_blocks_",
    "{}_feature_center_",
    "{}_feature_weights_",
)


class SideKnowledge(NamedTuple):
    """Features of one side.

    Attributes
    ----------
    n : int
        Number of users or items.

    places : ndarray of shape (n_described,)
        Positions of those that have features.

    encoded : EncodedFeatures
        Features as numbers.
    """

    n: int
    places: np.ndarray
    encoded: EncodedFeatures

    def tensors(self, dtype: torch.dtype, device: torch.device) -> Features:
        """Features for the factorization, in blocks of mean square length 1."""
        n, places, encoded = self
        scale = encoded.scale
        block = np.empty(len(scale), np.int64)
        for index, columns in enumerate(encoded.blocks.values()):
            block[columns] = index
        is_known = np.zeros(n, bool)
        is_known[places] = True
        values: Any = encoded.values
        center = encoded.center / scale
        if not isinstance(values, np.ndarray):
            counts = np.zeros(n, np.int64)
            counts[places] = np.diff(values.indptr)
            crow = np.concatenate([[0], np.cumsum(counts)])
            data = torch.as_tensor(values.data / scale[values.indices], dtype=dtype)
            shape = n, len(scale)
            pattern = Pattern(as_tensor(crow), as_tensor(values.indices), shape)
            placed: Any = pattern.to(device), data.to(device)
        else:
            dense = np.zeros((n, len(scale)), str(dtype).removeprefix("torch."))
            dense[places] = values / scale - center
            center = np.zeros_like(center)
            placed = as_tensor(dense, device=device)
        return Features(
            placed,
            torch.as_tensor(center, dtype=dtype, device=device),
            as_tensor(block, device=device),
            as_tensor(is_known, device=device),
        )

    def attributes(self, weights: np.ndarray) -> dict[str, Any]:
        """Values of `ATTRIBUTES`, given the weights of the scaled features."""
        encoded = self.encoded
        unscaled = (weights / encoded.scale[:, np.newaxis]).astype(weights.dtype)
        values = encoded.encoder, encoded.names, encoded.blocks, encoded.center
        return dict(zip(ATTRIBUTES, (*values, unscaled), strict=True))

    def parts(self, prior: NormalPrior) -> np.ndarray:
        """What each block adds to the prior means, of shape (n, n_blocks, k)."""
        encoded, weights = self.encoded, to_array(prior.weights)
        scaled = weights / encoded.scale[:, np.newaxis]
        blocks = encoded.blocks.values()
        found = np.zeros((self.n, len(blocks), weights.shape[1]), weights.dtype)
        found[self.places] = feature_parts(
            encoded.values, encoded.center, scaled, blocks
        )
        return found

    def described_means(self, prior: NormalPrior) -> np.ndarray:
        """Prior means of all rows, without links."""
        means = np.tile(to_array(prior.center), (self.n, 1))
        encoded, weights = self.encoded, to_array(prior.weights)
        weights = weights / encoded.scale[:, np.newaxis]
        found = feature_means(encoded.values, encoded.center, weights)
        means[self.places] += found.astype(means.dtype)
        return means


class Knowledge(NamedTuple):
    """Features of both sides of a fit.

    Attributes
    ----------
    users, items : SideKnowledge or None
        Features of users and items; None without.
    """

    users: SideKnowledge | None
    items: SideKnowledge | None

    @classmethod
    def of(cls, fit: Fit) -> Knowledge:
        """Encode the features of a fit."""
        params = fit.estimator
        sides: list[SideKnowledge | None] = []
        for name, resolved in (
            ("user_encoder", fit.user_features),
            ("item_encoder", fit.item_features),
        ):
            if resolved is None:
                sides.append(None)
                continue
            encoder = getattr(params, name)
            encoder = FeatureEncoder() if encoder is None else encoder
            encoded = encode_features(resolved, encoder, params.memory)
            places = resolved.places
            sides.append(SideKnowledge(len(resolved.ids), places, encoded))
        return cls(*sides)

    def tensors(
        self, dtype: torch.dtype, device: torch.device
    ) -> tuple[Features | None, Features | None]:
        """Features of users and items, for the factorization."""
        users, items = self
        return (
            None if users is None else users.tensors(dtype, device),
            None if items is None else items.tensors(dtype, device),
        )

    def resume(self, previous: Any, model: Factorization) -> None:
        """Continue with the weights of a previous fit that had the same features."""
        for name, side, known in (
            ("user", model.users, self.users),
            ("item", model.items, self.items),
        ):
            weights = getattr(previous, f"{name}_feature_weights_", None)
            if known is None or weights is None:
                continue
            names = getattr(previous, f"{name}_feature_names_")
            if np.array_equal(names, known.encoded.names):
                scaled = weights * known.encoded.scale[:, np.newaxis]
                side.prior.weights.copy_(as_tensor(scaled))
                precisions = as_tensor(previous._precisions[name][1])
                side.prior.weight_precision.copy_(precisions)

    def attributes(
        self, user_prior: NormalPrior, item_prior: NormalPrior
    ) -> dict[str, Any]:
        """Fitted attributes, given the priors in the canonical bases.

        The vectors that the features of all users and items predict are part of them.
        """
        found = self.feature_attributes(
            to_array(user_prior.weights), to_array(item_prior.weights)
        )
        for name, known, prior in (
            ("user", self.users, user_prior),
            ("item", self.items, item_prior),
        ):
            means = None if known is None else known.described_means(prior)
            found[f"_{name}_described_means"] = means
            parts = None if known is None else known.parts(prior)
            found[f"_{name}_feature_parts"] = parts
        return found

    def feature_attributes(
        self, user_weights: np.ndarray, item_weights: np.ndarray
    ) -> dict[str, Any]:
        """Values of `ATTRIBUTES` for both sides, None on a side without features.

        The weights are those of the scaled features.
        """
        found: dict[str, Any] = {}
        for name, known, weights in (
            ("user", self.users, user_weights),
            ("item", self.items, item_weights),
        ):
            own: dict[str, Any] = dict.fromkeys(ATTRIBUTES)
            if known is not None:
                own = known.attributes(weights)
            found |= {key.format(name): value for key, value in own.items()}
        return found


def feature_means(values: Any, center: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Parts of the prior means that come from features, of shape (n, k)."""
    return values @ weights - center @ weights


def feature_parts(
    values: Any, center: np.ndarray, weights: np.ndarray, blocks: Iterable[slice]
) -> np.ndarray:
    """Parts of `feature_means` from each block of columns, (n, n_blocks, k)."""
    return np.stack(
        [feature_means(values[:, b], center[b], weights[b]) for b in blocks], axis=1
    )
