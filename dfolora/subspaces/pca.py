"""Subspace ``pca``: each module reads the main directions of its own inputs; the search moves B along random ones."""

from __future__ import annotations

from torch import Tensor

from dfolora.models.adapter import LoraModule
from dfolora.subspaces.directions import principal_directions, whitened
from dfolora.subspaces.frozen_a import FrozenA


class Pca(FrozenA):
    """A = the top principal directions of the module's own inputs, whitened; B = a random projection of z.

    The gradient of W is a sum of outer products with the inputs, so it lies in their span.
    """

    @classmethod
    def a_side(cls, module: LoraModule, x: Tensor, rank: int, seed: int) -> Tensor:
        return whitened(principal_directions(x, rank), x)
