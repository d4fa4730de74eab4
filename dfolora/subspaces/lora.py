"""Where to search: z (P, d) -> LoRA factors of one layer, by name.

Every subspace but ``paper`` maps z = 0 to B = 0, so the search starts exactly at the base model. All but ``paper`` and
``lora`` are scaled so that z ~ N(0, I) changes a module's output by ``scale`` times its own standard deviation on the
few-shot batch: an optimizer's sigma is then a relative change of queries and keys, whatever the model.

What a subspace takes from the data is measured once (``measure``) and is a few tensors; projections are drawn from the
seed. Together they rebuild it without a forward pass.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping

import torch
from torch import Tensor

from dfolora.errors import UserError, unknown
from dfolora.models.adapter import Factors, Layer, LoraModule
from dfolora.subspaces.directions import generator, normal, principal_directions, top_svd, whitened

Measured = dict[str, Tensor]
"""What one layer's subspace keeps of the data, by ``<module name>/<what>``; float32, on the CPU."""


class Subspace(ABC):
    """The map from a layer's candidates to its LoRA factors.

    Attributes:
        dim: d, the length of z.
        layer: the layer it belongs to.
    """

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
        self.build(dim)

    @classmethod
    def measure(cls, layer: Layer, inputs: Mapping[str, Tensor], hidden_std: float, rank: int, seed: int) -> Measured:
        """What to keep of the data.

        Args:
            layer: the layer.
            inputs: module name -> inputs of its real tokens on the few-shot batch under the base model, (tokens, in).
            hidden_std: standard deviation of the hidden states that enter the layer (see ``statistics``).
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
        """Set ``dim`` and draw the projections."""

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


class FrozenA(Subspace):
    """A random and fixed, B = a random projection of z. The layer's d numbers are shared out among its modules."""

    @classmethod
    def a_side(cls, module: LoraModule, x: Tensor, rank: int, seed: int) -> Tensor:
        return whitened(normal(seed, f"{module.name}/a", rank, module.in_features).to(x.device), x)

    def build(self, dim: int) -> None:
        modules = self.layer.modules
        if dim < len(modules):
            raise UserError(f"--subspace-dim: {dim} cannot work; each of a layer's {len(modules)} modules needs one")
        shares = [dim // len(modules) + (i < dim % len(modules)) for i in range(len(modules))]
        self.dim = dim
        self.slices: dict[str, slice] = {}
        self.projection: dict[str, Tensor] = {}
        start = 0
        for (name, module), share in zip(modules.items(), shares, strict=True):
            self.slices[name] = slice(start, start + share)
            start += share
            std = self.scale * self.out_std[name] / math.sqrt(self.rank * share)
            self.projection[name] = std * self.normal(f"{name}/b", share, self._row_count(module) * self.rank)

    def b_side(self, name: str, module: LoraModule, z: Tensor) -> Tensor:
        return (z[:, self.slices[name]] @ self.projection[name]).view(len(z), self._row_count(module), self.rank)


class Pca(FrozenA):
    """A = the top principal directions of the module's own inputs, whitened; B = a random projection of z.

    The gradient of W is a sum of outer products with the inputs, so it lies in their span.
    """

    @classmethod
    def a_side(cls, module: LoraModule, x: Tensor, rank: int, seed: int) -> Tensor:
        return whitened(principal_directions(x, rank), x)


class Full(Subspace):
    """A random and fixed, B = z itself: for estimators that are at home in many dimensions."""

    a_side = FrozenA.a_side

    def build(self, dim: int) -> None:
        sizes = {name: self._row_count(module) * self.rank for name, module in self.layer.modules.items()}
        starts = torch.tensor([0, *sizes.values()]).cumsum(0).tolist()
        self.slices = {name: slice(a, b) for name, a, b in zip(sizes, starts, starts[1:], strict=False)}
        self.dim = starts[-1]

    def b_side(self, name: str, module: LoraModule, z: Tensor) -> Tensor:
        b = z[:, self.slices[name]] * (self.scale * self.out_std[name] / math.sqrt(self.rank))
        return b.view(len(z), self._row_count(module), self.rank)


class Xs(Subspace):
    """LoRA-XS (arXiv 2405.17604): A = top right singular vectors of W, B = U R with R (r, r) = z; d = modules x r^2."""

    @classmethod
    def a_side(cls, module: LoraModule, x: Tensor, rank: int, seed: int) -> Tensor:
        return whitened(top_svd(module, rank)[1].to(x.device), x)

    def build(self, dim: int) -> None:
        self.dim = len(self.layer.modules) * self.rank**2
        self.left = {name: top_svd(module, self.rank)[0].to(self.device) for name, module in self.layer.modules.items()}

    def b_side(self, name: str, module: LoraModule, z: Tensor) -> Tensor:
        index = list(self.layer.modules).index(name)
        r = z.view(len(z), -1, self.rank, self.rank)[:, index]
        left = self.left[name]  # (rows, r), orthonormal columns
        return (self.scale * self.out_std[name] * math.sqrt(len(left)) / self.rank) * (left @ r)


class Paper(Subspace):
    """DFO-LoRA as released (arXiv 2403.01754): z in equal slices, one for each A and each B.

    Entries of the projections to A are N(0, (scale s / sqrt(d))^2), s the standard deviation of the hidden states that
    enter the layer (of the embedding matrix for the first), scale = alpha / sigma in the release's terms; those to B
    keep a linear layer's default, uniform in +-1/sqrt(d / slices), except in the first layer, where they follow A.
    z = 0 is a saddle: the loss is even in the A and B slices, so the first steps carry no direction.
    """

    @classmethod
    def a_side(cls, module: LoraModule, x: Tensor, rank: int, seed: int) -> None:
        return None

    def build(self, dim: int) -> None:
        slices = 2 * len(self.layer.modules)
        if dim < slices:
            raise UserError(f"--subspace-dim: {dim} cannot work; the paper's subspace cuts it into {slices} slices")
        self.share = dim // slices
        self.dim = self.share * slices
        self.a_projection, self.b_projection = {}, {}
        first = next(part for part in self.layer.name.split(".") if part.isdigit()) == "0"
        for name, module in self.layer.modules.items():
            std = self.scale * self.hidden_std / math.sqrt(dim)
            self.a_projection[name] = std * self.normal(f"{name}/a", self.share, self.rank * module.in_features)
            size = self._row_count(module) * self.rank
            if first:
                self.b_projection[name] = std * self.normal(f"{name}/b", self.share, size)
            else:
                bound = 1 / math.sqrt(self.share)
                uniform = torch.rand(self.share, size, generator=generator(self.seed, f"{name}/b")).to(self.device)
                self.b_projection[name] = bound * (2 * uniform - 1)

    def factors(self, z: Tensor) -> Factors:
        z = z.to(self.device, torch.float32)
        out: Factors = {}
        for index, (name, module) in enumerate(self.layer.modules.items()):
            a = z[:, 2 * index * self.share :][:, : self.share] @ self.a_projection[name]
            out[name] = (a.view(len(z), self.rank, -1), self._place(module, self.b_side(name, module, z)))
        return out

    def b_side(self, name: str, module: LoraModule, z: Tensor) -> Tensor:
        index = list(self.layer.modules).index(name)
        b = z[:, (2 * index + 1) * self.share :][:, : self.share] @ self.b_projection[name]
        return b.view(len(z), self._row_count(module), self.rank)


class BothFactors(Subspace):
    """A and B themselves: A = the random A of ``frozen-a`` plus a change, B = the rest of z; r (in + out) per module.

    The change of A is in units of the root mean square of A's own row. To first order z changes the output like
    ``full``; at z ~ N(0, I), where A has changed as much as it was large, by sqrt(2) as much.
    """

    a_side = FrozenA.a_side

    def build(self, dim: int) -> None:
        self.slices: dict[str, tuple[slice, slice]] = {}
        start = 0
        for name, module in self.layer.modules.items():
            middle = start + self.rank * module.in_features
            end = middle + self.rank * self._row_count(module)
            self.slices[name] = slice(start, middle), slice(middle, end)
            start = end
        self.dim = start

    def factors(self, z: Tensor) -> Factors:
        z = z.to(self.device, torch.float32)
        out: Factors = {}
        for name, module in self.layer.modules.items():
            change = z[:, self.slices[name][0]].view(len(z), self.rank, -1) * self._a_unit(name)
            out[name] = (self.a[name] + change, self._place(module, self.b_side(name, module, z)))
        return out

    def b_side(self, name: str, module: LoraModule, z: Tensor) -> Tensor:
        return z[:, self.slices[name][1]].view(len(z), -1, self.rank) * self._b_unit(name)

    def _a_unit(self, name: str) -> Tensor:
        return self.a[name].square().mean(1, keepdim=True).sqrt()

    def _b_unit(self, name: str) -> float:
        return self.scale * self.out_std[name] / math.sqrt(self.rank)


class Lora(BothFactors):
    """A and B in the units of ordinary LoRA, which is where MeZO's learning rates and epsilons apply.

    As MeZO releases it (arXiv 2305.17333): A starts uniform in +-1/sqrt(in), which is PyTorch's Kaiming default, B at
    zero, and their product counts 2 ``scale`` times: alpha / r = 16 / 8.
    """

    @classmethod
    def a_side(cls, module: LoraModule, x: Tensor, rank: int, seed: int) -> Tensor:
        own = generator(seed, f"{module.name}/a")
        uniform = 2 * torch.rand(rank, module.in_features, generator=own) - 1
        return uniform / math.sqrt(module.in_features)

    def _a_unit(self, name: str) -> Tensor:
        return torch.ones(1, device=self.device)

    def _b_unit(self, name: str) -> float:
        return 2 * self.scale


_SUBSPACES: dict[str, type[Subspace]] = {
    "pca": Pca, "frozen-a": FrozenA, "xs": Xs, "full": Full, "factors": BothFactors, "lora": Lora, "paper": Paper,
}  # fmt: skip
SUBSPACE_NAMES = tuple(_SUBSPACES)


def subspace_class(name: str) -> type[Subspace]:
    """The subspace called ``name``.

    Raises:
        UserError: there is none; near misses are suggested.
    """
    if name not in _SUBSPACES:
        raise unknown("--subspace", name, SUBSPACE_NAMES)
    return _SUBSPACES[name]
