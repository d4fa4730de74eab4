"""The problem of tuning LoRA with gates: numbers of a layer's factors and of its gate in, losses out."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from dfolora.engine.gated_lora import GatedLowRank
from dfolora.errors import UserError
from dfolora.models.gated_adapter import GatedAdapter
from dfolora.models.soft_prompt import Gate
from dfolora.problems.adapters import Part, by_layer
from dfolora.problems.parted import PartedProblem
from dfolora.subspaces.base import Subspace
from dfolora.subspaces.measure import measure


class GatedSpace:
    """A subspace of a layer's factors, and its gate's numbers behind them.

    Attributes:
        dim: d of the subspace, and r (k + 1).
        shared: one z never serves several layers, since each has a gate of its own.
    """

    shared = False

    def __init__(self, inner: Subspace, adapter: GatedAdapter) -> None:
        self._inner, self._adapter = inner, adapter
        self._shape = adapter.lora.rank, adapter.instances.count + 1
        self.dim = inner.dim + math.prod(self._shape)

    def candidates(self, z: Tensor) -> tuple[Any, Gate]:
        """Candidates (P, d) as factors by module, and gates whose logits have deviation 1 for z ~ N(0, I)."""
        z = z.to(self._inner.device, torch.float32)
        numbers = z[:, self._inner.dim :].view(len(z), *self._shape) / math.sqrt(self._shape[1])
        return self._inner.factors(z[:, : self._inner.dim]), Gate(numbers[..., :-1], numbers[..., -1])

    def factors(self, z: Tensor) -> dict[str, GatedLowRank]:
        """Candidates (P, d) as edits of the layer's modules."""
        factors, gate = self.candidates(z)
        return {name: GatedLowRank(a, b, gate, self._adapter) for name, (a, b) in factors.items()}

    def state(self, z: Tensor) -> dict[str, Tensor]:
        """One candidate (1, d) as what a layer holds."""
        factors, gate = self.candidates(z)
        state = {f"{name}/{which}": part[0] for name, pair in factors.items()
                 for which, part in zip("ab", pair, strict=True)}  # fmt: skip
        return state | {"b": gate.b[0], "c": gate.c[0]}


class GatedProblem(PartedProblem[GatedAdapter]):
    """A problem whose parts are layers, searched in turn, or all at once with ``mode="joint"``."""

    parts: list[Part]

    def prepare(
        self, subspace: type[Subspace], rank: int, dim: int, scale: float, mode: str,
        measured: Mapping[str, Tensor] | None = None, options: Mapping[str, Any] | None = None,
    ) -> dict[str, Tensor]:  # fmt: skip
        """Build the parts; arguments, result and errors as for ``AdapterProblem.prepare``."""
        adapter = self.adapter
        layers = adapter.lora.layers
        if measured is None:
            adapter.instances.fit()
        else:
            try:
                adapter.instances.use(measured["center"], measured["axes"])
            except KeyError as error:
                raise UserError(f"resume: measured.safetensors belongs to another run (it has no {error})") from error
        adapter.clear()  # gates for as many features as there are
        self.check_base()
        if measured is None:
            found = measure(adapter.lora, self.engine, subspace, rank, self.seed)
        else:
            found = by_layer({name: part for name, part in measured.items() if "/" in name}, len(layers))
        try:
            spaces = [
                GatedSpace(subspace(layer, each, rank, dim, self.seed, scale, self.device, **(options or {})), adapter)
                for layer, each in zip(layers, found, strict=True)
            ]
        except (KeyError, RuntimeError) as error:
            if measured is None:
                raise
            raise UserError(f"resume: measured.safetensors belongs to another model or subspace ({error})") from error
        joint = mode == "joint"
        self.parts = [Part(None, spaces)] if joint else [Part(layer, [space]) for layer, space in enumerate(spaces)]
        for index, part in enumerate(self.parts):
            self.keep(torch.zeros(part.dim), index)
        self._verify()
        self.engine.reset_counts()
        center, axes = adapter.instances.fitted
        kept = {f"{index}/{name}": part for index, each in enumerate(found) for name, part in each.items()}
        return kept | {"center": center, "axes": axes}

    def keep(self, candidate: Tensor, part: int = 0) -> None:
        chosen = self.parts[part]
        numbers = candidate[None].split([space.dim for space in chosen.subspaces], 1)
        first = chosen.layer or 0
        for layer, (space, z) in enumerate(zip(chosen.subspaces, numbers, strict=True), first):
            self.adapter.write(layer, space.state(z))

    def save(self, folder: str | Path) -> None:
        """Write the incumbents as a folder of ours."""
        self.adapter.save(Path(folder), {"README.md": "# LoRA with gates, found by dfolora\n"})
