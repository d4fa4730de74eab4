"""A model without data for tests of full-parameter steps, directions drawn whole, and bits to compare."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import models_zoo as zoo
import torch
from torch import Tensor, nn

from dfolora.methods.full_parameter import rows_loss
from dfolora.methods.full_parameter.noise import Address, normal
from dfolora.models.load import LanguageModel

METHODS = ["spsa", "guided", "greedy"]
DTYPES = [torch.float32, torch.bfloat16, torch.float16]
LABELS = torch.tensor([0, 1, 2, 0, 2, 1])


class Valley(nn.Module):
    """Six tensors, four of one shape, and a loss that is no quadratic; it needs no data."""

    def __init__(self, dtype: torch.dtype = torch.float64) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        shapes = [(16, 16)] * 4 + [(16,), (3, 16)]
        self.parts = nn.ParameterList(
            nn.Parameter((0.2 * torch.randn(shape, generator=generator)).to(dtype)) for shape in shapes
        )
        self.x = torch.randn(8, 16, generator=generator).to(dtype)
        self.eval().requires_grad_(False)

    def forward(self) -> Tensor:
        x = self.x
        for part in self.parts[:4]:
            x = x + torch.tanh(x @ part)
        return nn.functional.cross_entropy(((x + self.parts[4]) @ self.parts[5].T).double(), torch.arange(8) % 3)

    def gradient(self) -> Tensor:
        self.requires_grad_(True)
        parts = torch.autograd.grad(self(), list(self.parts))
        self.requires_grad_(False)
        return torch.cat([part.flatten() for part in parts]).double()


def flat(model: nn.Module) -> Tensor:
    return torch.cat([parameter.detach().flatten() for parameter in model.parameters()])


def memory(model: nn.Module) -> list[Tensor]:
    """Copies of all bits, buffers included."""
    tensors = itertools.chain(model.parameters(), model.buffers())
    return [t.detach().flatten().view(torch.uint8).clone() for t in tensors if t.numel()]


def same(left: list[Tensor], right: list[Tensor]) -> bool:
    return all(torch.equal(a, b) for a, b in zip(left, right, strict=True))


def direction(model: nn.Module, seed: int, step: int, weights: dict[int, float]) -> Tensor:
    """(d,) v, drawn tensor by tensor and whole."""
    cpu = torch.device("cpu")
    parts = []
    for index, parameter in enumerate(model.parameters()):
        z = [w * normal(Address(seed, step, k, index), 0, parameter.numel(), cpu) for k, w in weights.items()]
        parts.append(torch.stack(z).sum(0))
    return torch.cat(parts)


def causal(dtype: torch.dtype = torch.float32) -> tuple[LanguageModel, Callable[[], Tensor]]:
    model = zoo.language_model("llama")
    model.model.to(dtype)
    return model, rows_loss(model, zoo.word_rows("causal"), LABELS)
