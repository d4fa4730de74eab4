"""The problem of tuning LoRA: low-rank changes of layers in, losses out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor

from dfolora.errors import UserError
from dfolora.models.adapter import Adapter, Factors
from dfolora.optimizers import Evaluation
from dfolora.problems.problem import Problem
from dfolora.seeds import seed_of
from dfolora.subspaces.base import Measured, Subspace
from dfolora.subspaces.measure import measure


@dataclass(frozen=True)
class Part:
    """What one optimizer searches: a layer, or all layers at once.

    Attributes:
        layer: index of the layer; None: all.
        subspaces: of its layers.
    """

    layer: int | None
    subspaces: list[Subspace]

    @property
    def dim(self) -> int:
        """d, numbers that are searched."""
        return sum(subspace.dim for subspace in self.subspaces)

    def edits(self, z: Tensor) -> Factors:
        """Turn candidates (P, d), the layers' numbers side by side, into changes of modules."""
        parts = z.split([subspace.dim for subspace in self.subspaces], dim=1)
        found: Factors = {}
        for subspace, part in zip(self.subspaces, parts, strict=True):
            found.update(subspace.factors(part))
        return found


class Evaluator(Protocol):
    """What scores candidates in place of this process; arguments and result as those of ``AdapterProblem``."""

    def evaluation(self, candidates: Tensor, part: int, batch: Tensor | None, wants: str) -> Evaluation: ...

    def close(self) -> None: ...


class AdapterProblem(Problem[Adapter]):
    """A problem whose parts are layers, searched in turn.

    Attributes:
        parts: what is searched in turn; with ``mode="joint"`` a single one. ``prepare`` makes them.
        incumbents: of each part, the candidate (d,) that ``keep`` was last given.
        evaluator: what scores candidates instead of this process's engine; None: that does.
    """

    parts: list[Part]
    incumbents: list[Tensor]
    evaluator: Evaluator | None = None

    def prepare(
        self,
        subspace: type[Subspace],
        rank: int = 4,
        dim: int = 500,
        scale: float = 1.0,
        mode: str = "layerwise",
        measured: Mapping[str, Tensor] | None = None,
        options: Mapping[str, Any] | None = None,
    ) -> dict[str, Tensor]:
        """Build the parts; every layer starts at z = 0.

        Args:
            subspace: where to search.
            rank, dim, scale: of the subspaces.
            mode: ``layerwise`` or ``joint``.
            measured: what an earlier call returned; None: measure on the few-shot set now.
            options: what the subspace declares beyond these.

        Returns:
            What the subspaces measured on the data, by ``<layer>/<name>``.

        Raises:
            UserError: the base model's own loss is not a number; a setting that no subspace can work with; measurements
                of another model.
        """
        self.check_base()
        layers = self.adapter.layers
        if measured is None:
            by_layer = measure(self.adapter, self.engine, subspace, rank, self.seed)
        else:
            by_layer = _by_layer(measured, len(layers))
        try:
            spaces = [
                subspace(layer, each, rank, dim, self.seed, scale, self.device, **(options or {}))
                for layer, each in zip(layers, by_layer, strict=True)
            ]
        except (KeyError, RuntimeError) as error:
            if measured is None:
                raise
            raise UserError(f"resume: measured.safetensors belongs to another model or subspace ({error})") from error
        if mode == "joint":
            self.parts = [Part(None, spaces)]
        else:
            self.parts = [Part(index, [space]) for index, space in enumerate(spaces)]
        self.incumbents = [torch.zeros(part.dim) for part in self.parts]
        for index, z in enumerate(self.incumbents):
            self.keep(z, index)
        self._verify()
        self.engine.reset_counts()
        return {f"{index}/{name}": tensor for index, each in enumerate(by_layer) for name, tensor in each.items()}

    def _verify(self) -> None:
        """Compare the engine with scoring one candidate at a time, on two candidates of a part in the middle."""
        part = self.parts[len(self.parts) // 2]
        generator = torch.Generator().manual_seed(seed_of(self.seed, "verification"))
        self.engine.verify(part.edits(torch.randn(2, part.dim, generator=generator)))

    def losses(self, candidates: Tensor, part: int = 0, batch: Tensor | None = None) -> Tensor:
        """One loss per candidate.

        Args:
            candidates: (P, d).
            part: index of the part that they belong to; all others stay at their incumbents.
            batch: (n,) int64, a minibatch; None: all examples.

        Returns:
            (P,) float32 on the CPU.
        """
        return self.evaluation(candidates, part, batch).losses

    def evaluation(
        self, candidates: Tensor, part: int = 0, batch: Tensor | None = None, wants: str = "losses"
    ) -> Evaluation:
        """As ``losses``, with the per-example losses or class scores that an optimizer ``wants`` beside them."""
        if self.evaluator is not None:
            return self.evaluator.evaluation(candidates, part, batch, wants)
        return self.evaluate(self.parts[part].edits(candidates), batch, wants)

    def keep(self, candidate: Tensor, part: int = 0) -> None:
        """Make a candidate (d,) the incumbent of a part."""
        self.incumbents[part] = candidate.detach().to("cpu", torch.float32, copy=True)
        self.write(self.parts[part].edits(candidate[None]), part)

    def write(self, edits: Factors, part: int = 0) -> None:
        """Write changes of a part's modules (P = 1) into the model, whose incumbents stay what they were."""
        for index, layer in enumerate(self.adapter.layers):
            if self.parts[part].layer in (None, index):
                self.adapter.write(index, {name: edits[name] for name in layer.modules})

    def close(self) -> None:
        if self.evaluator is not None:
            self.evaluator.close()

    def save(self, folder: str | Path) -> None:
        """Write the incumbents as a PEFT adapter folder."""
        self.adapter.save(Path(folder), {"README.md": "# A LoRA adapter found by dfolora\n"})


def _by_layer(measured: Mapping[str, Tensor], layers: int) -> list[Measured]:
    found: list[Measured] = [{} for _ in range(layers)]
    for key, tensor in measured.items():
        layer, _, name = key.partition("/")
        if not layer.isdigit() or int(layer) >= layers:
            raise UserError(f"resume: measured.safetensors belongs to another model: it has {key!r}")
        found[int(layer)][name] = tensor
    return found
