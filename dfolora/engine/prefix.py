"""A population of deep prompts of one layer: what its maps of keys and values give for the tokens that are no words."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import nn

from dfolora.engine.patch import Forward, patched
from dfolora.models.deep_prompted import Part, Places, prefix_forward


class KeyValues(NamedTuple):
    """Candidates for the keys, the values or both that one linear map gives for soft tokens.

    Attributes:
        parts: each (P, m, width), and which outputs of the map it is.
        places: where the soft tokens stand.
    """

    parts: list[Part]
    places: Places

    @property
    def population(self) -> int:
        return int(self.parts[0].values.shape[0])

    def cut(self, start: int, stop: int) -> KeyValues:
        return self._replace(parts=[Part(rows, values[start:stop]) for rows, values in self.parts])

    def to(self, dtype: torch.dtype, device: torch.device) -> KeyValues:
        return self._replace(parts=[Part(rows, values.to(device, dtype)) for rows, values in self.parts])

    def forward(self, module: nn.Module, shared_input: bool) -> Forward:
        return prefix_forward(module, self.places, self.parts)

    @contextlib.contextmanager
    def written(self, module: nn.Module) -> Iterator[None]:
        parameter = next(module.parameters())
        with patched([(module, self.to(parameter.dtype, parameter.device).forward(module, False))]):
            yield
