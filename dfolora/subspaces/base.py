"""What every subspace is: a map from z (P, d) to the LoRA factors of one layer's modules.

Every subspace but ``paper`` maps z = 0 to B = 0, so the search starts exactly at the base model. All but ``paper`` and
``lora`` are scaled so that z ~ N(0, I) changes a module's output by ``scale`` times its own standard deviation on the
few-shot batch: an optimizer's sigma is then a relative change of queries and keys, whatever the model.

What a subspace takes from the data is measured once (``measure``) and is a few tensors; projections are drawn from the
seed. Together they rebuild it without a forward pass.

Shape letters: P population, d searched numbers, r rank.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import ClassVar

import torch
from torch import Tensor

from dfolora.models.adapter import Factors, Layer, LoraModule
from dfolora.subspaces.directions import normal

Measured = dict[str, Tensor]
"""What one layer's subspace keeps of the data, by ``<module name>/<what>``; float32, on the CPU."""


class Subspace(ABC):
    """The map from the d numbers of a candidate to the LoRA factors of one layer.

    A subclass says what A is (``a_side``), how many numbers it takes and what it draws (``build``), and what B the
    numbers make (``b_side``). Options of its own are keyword parameters of its constructor, kept before the rest is
    passed on: ``def __init__(self, *arguments, share: Annotated[float, "..."] = 0.5, **common)``.

    Args:
        layer: the layer's adapted modules.
        measured: what ``measure`` took from the data.
        rank: r.
        dim: d as asked for; ``build`` settles what it is.
        seed: of everything drawn.
        scale: relative change of a module's output at z ~ N(0, I).
        device: where factors are made.

    Attributes:
        layer, rank, scale, seed, device: as given.
        dim: d, the length of z.
        a: module name -> A (r, in), float32, of those modules whose A is fixed.
        out_std: module name -> standard deviation of its output on the few-shot batch.
        hidden_std: standard deviation of the hidden states that enter the layer.
        read_along: (K, hidden size) orthonormal directions of the last hidden state along which class scores are read,
            where ``reads_scores``; (0, 0) where they cannot be told.

    Raises:
        UserError: too few dimensions.
    """

    linear: ClassVar[bool] = True  # whether A is fixed and B is linear in z
    draws: ClassVar[bool] = True  # whether another seed makes another map
    target: ClassVar[str] = "qk"  # what is adapted unless the user says otherwise
    reads_scores: ClassVar[bool] = False  # whether it asks where answers are read: ``read_along``, inputs there alone
    dim: int

    def __init__(
        self,
        layer: Layer,
        measured: Mapping[str, Tensor],
        rank: int,
        dim: int,
        seed: int,
        scale: float,
        device: torch.device,
    ) -> None:
        self.layer = layer
        self.rank = rank
        self.scale = scale
        self.seed = seed
        self.device = device
        self.a = {name: measured[f"{name}/a"].to(device) for name in layer.modules if f"{name}/a" in measured}
        self.out_std = {name: float(measured[f"{name}/out_std"]) for name in layer.modules}
        self.hidden_std = float(measured["hidden_std"])
        self.read_along = measured.get("read_along", torch.empty(0, 0))
        self.build(dim)

    @classmethod
    def measure(cls, layer: Layer, inputs: Mapping[str, Tensor], hidden_std: float, rank: int, seed: int) -> Measured:
        """What to keep of the data.

        Args:
            layer: the layer.
            inputs: module name -> inputs of its real tokens on the few-shot batch under the base model, (tokens, in).
            hidden_std: standard deviation of the hidden states that enter the layer (see ``subspaces.measure``).
            rank: r.
            seed: of anything drawn.
        """
        measured: Measured = {"hidden_std": torch.tensor(hidden_std)}
        for name, module in layer.modules.items():
            x = inputs[name].float()
            weight = module.weight if module.rows is None else module.weight[module.rows.to(module.weight.device)]
            measured[f"{name}/out_std"] = (x @ weight.T).std().cpu()
            a = cls.a_side(module, x, rank, seed)
            if a is not None:
                measured[f"{name}/a"] = a.cpu().contiguous()
        return measured

    @classmethod
    @abstractmethod
    def a_side(cls, module: LoraModule, x: Tensor, rank: int, seed: int) -> Tensor | None:
        """The fixed A (r, in), whitened so that each component of A x has mean square 1; None where A is searched."""

    @abstractmethod
    def build(self, dim: int) -> None:
        """Set ``self.dim``, where it can to ``dim``, and draw the projections."""

    @abstractmethod
    def b_side(self, name: str, module: LoraModule, z: Tensor) -> Tensor:
        """(P, rows, r): B on the searched output rows."""

    def factors(self, z: Tensor) -> Factors:
        """Candidates (P, d) to {module name: (A (P, r, in), B (P, out, r))}, float32, on the model's device."""
        z = z.to(self.device, torch.float32)
        return {
            name: (self.a[name].expand(len(z), -1, -1), self._place(module, self.b_side(name, module, z)))
            for name, module in self.layer.modules.items()
        }

    def _place(self, module: LoraModule, searched: Tensor) -> Tensor:
        """Put searched rows where they belong; the value rows of a fused projection stay 0."""
        if module.rows is None:
            return searched
        b = searched.new_zeros(len(searched), module.out_features, self.rank)
        b[:, module.rows.to(b.device)] = searched
        return b

    def _row_count(self, module: LoraModule) -> int:
        return module.out_features if module.rows is None else len(module.rows)

    def normal(self, what: str, *shape: int) -> Tensor:
        """Standard normal numbers that depend on the seed and ``what`` alone, equal on every device."""
        return normal(self.seed, what, *shape).to(self.device)
