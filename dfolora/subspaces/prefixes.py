"""From the numbers of a candidate to a layer's keys and values for soft tokens.

As in BBTv2 (arXiv 2205.11200) every layer has a random projection of its own, scaled by what it stands beside: for
z ~ N(0, I) keys and values change by ``scale`` times the spread of those of the words that the prompt started from.
z = 0 is the keys and values of these words (as MeZO starts its prefixes).
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor

from dfolora.engine.prefix import KeyValues
from dfolora.models.deep_prompted import DeepPrompted
from dfolora.subspaces.directions import normal


class PrefixSpace:
    """What a search of one layer's deep prompt moves.

    Attributes:
        dim: d, for keys and values together.
        shared: every layer has numbers of its own.
    """

    shared = False

    def __init__(
        self, deep: DeepPrompted, layer: int, start: Mapping[str, Tensor], subspace: str, dim: int, seed: int,
        scale: float,
    ) -> None:  # fmt: skip
        """Draw the projections.

        Args:
            deep: the model.
            layer: index of its layer.
            start: ``k`` and ``v``, (m, width).
            subspace: ``random``: ``dim`` numbers are projected; ``full``: every number is searched.
            dim, seed, scale: as for ``PromptSpace``.
        """
        self._deep, self._layer, self._start = deep, layer, dict(start)
        self._units = {part: scale * float(each.std()) for part, each in start.items()}
        self._projections: dict[str, Tensor] = {}
        if subspace == "random":
            for part, each in start.items():
                drawn = normal(seed, f"prefix {layer}/{part}", dim, each.numel()) / math.sqrt(dim)
                self._projections[part] = drawn.to(each.device)
        self._sizes = {part: each.numel() for part, each in start.items()}
        self.dim = dim if subspace == "random" else sum(self._sizes.values())

    def state(self, z: Tensor) -> dict[str, Tensor]:
        """Candidates (P, d) as ``k`` and ``v``, (P, m, width) each."""
        z = z.to(next(iter(self._start.values())).device, torch.float32)
        if self._projections:
            moved = {part: z @ projection for part, projection in self._projections.items()}
        else:
            moved = dict(zip(self._sizes, z.split(list(self._sizes.values()), 1), strict=True))
        return {
            part: each + self._units[part] * moved[part].view(len(z), *each.shape) for part, each in self._start.items()
        }

    def factors(self, z: Tensor) -> dict[str, KeyValues]:
        """Candidates (P, d) as edits of the layer's maps."""
        parts = self._deep.parts_of(self._layer, self.state(z))
        return {name: KeyValues(each, self._deep.places) for name, each in parts.items()}
