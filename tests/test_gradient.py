"""Gradients of an adapter's factors: those of the loss that a plain forward gives, in parts or at once."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from models_zoo import READINGS, ZOO, attached, cases
from plain_reading import plain_scores
from torch import Tensor

from dfolora.engine import Engine, Rows
from dfolora.methods.gradient import Gradient
from dfolora.models.adapter import Adapter
from dfolora.problems.objectives import Objective, cross_entropy, hinge

ONE_OF_A_KIND = [case for case in cases() if case[0] in ("roberta", "llama", "t5", "mpnet")]


def factors(adapter: Adapter) -> list[Tensor]:
    return [factor for layer in adapter.layers for module in layer.modules.values() for factor in module.factors()]


def batch(name: str, reading: str) -> tuple[Adapter, Rows, Tensor]:
    adapter, rows = attached(name), READINGS[reading](ZOO[name][0])
    for factor in factors(adapter):
        factor.requires_grad_(True)
    return adapter, rows, (torch.arange(len(rows.classes)) + 1) % rows.classes


def gradient(
    adapter: Adapter, rows: Rows, labels: Tensor, objective: Objective = cross_entropy, chunk_tokens: int = 0
) -> tuple[Gradient, Tensor, list[Tensor]]:
    """The engine, the loss, and the gradient of every factor."""
    engine = Gradient(adapter, rows, labels, chunk_tokens)
    engine.reset_counts()
    for factor in factors(adapter):
        factor.grad = None
    loss = engine(objective)
    found = [factor.grad for factor in factors(adapter)]
    return engine, loss, [torch.zeros(()) if grad is None else grad.clone() for grad in found]


def directions(found: list[Tensor]) -> Iterator[list[Tensor]]:
    """The gradient's own, and random ones; of unit length."""
    generator = torch.Generator().manual_seed(0)
    drawn = [[torch.randn(grad.shape, generator=generator) for grad in found] for _ in range(2)]
    for direction in (found, *drawn):
        norm = torch.stack([part.norm() for part in direction]).norm()
        yield [part / norm for part in direction]


@pytest.mark.parametrize(("name", "reading"), cases())
def test_a_gradient_is_the_slope_of_the_plain_loss(name: str, reading: str) -> None:
    adapter, rows, labels = batch(name, reading)
    objective = hinge if reading in ("choices", "choice sentences") else cross_entropy

    def plain_loss() -> float:
        return float(objective(plain_scores(adapter, rows)[None], labels).mean())

    _, loss, found = gradient(adapter, rows, labels, objective)
    assert float(loss) == pytest.approx(plain_loss(), rel=1e-4)
    size = float(torch.stack([grad.norm() for grad in found]).norm())
    assert size > 1e-3
    step = min(1e-3, 1e-3 / size)
    for direction in directions(found):
        ends = []
        for sign in (1, -2, 1):  # there, to the other side, and back
            with torch.no_grad():
                for factor, part in zip(factors(adapter), direction, strict=True):
                    factor.add_(part, alpha=sign * step)
            ends.append(plain_loss())
        slope = sum(float((grad * part).sum()) for grad, part in zip(found, direction, strict=True))
        assert (ends[0] - ends[1]) / (2 * step) == pytest.approx(slope, abs=0.02 * size)


@pytest.mark.parametrize("objective", [cross_entropy, hinge])
@pytest.mark.parametrize(("name", "reading"), ONE_OF_A_KIND)
def test_parts_add_up(name: str, reading: str, objective: Objective) -> None:
    adapter, rows, labels = batch(name, reading)
    whole, loss, once = gradient(adapter, rows, labels, objective, chunk_tokens=10_000)
    parts, sum_of_losses, summed = gradient(adapter, rows, labels, objective, chunk_tokens=1)
    assert len(parts.parts) == parts.forwards == parts.backwards == len(rows.classes)
    assert len(whole.parts) < len(parts.parts)
    torch.testing.assert_close(loss, sum_of_losses)
    scale = max(float(grad.abs().max()) for grad in once)
    for one, other in zip(once, summed, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5 * scale)


@pytest.mark.parametrize(("name", "reading"), [case for case in ONE_OF_A_KIND if "sentences" not in case[1]])
def test_parts_hold_no_more_than_was_asked_for(name: str, reading: str) -> None:
    adapter, rows, labels = batch(name, reading)
    for most in (24, 36, 60):
        parts = Gradient(adapter, rows, labels, most).parts
        assert sum(len(part.labels) for part in parts) == len(labels)
        assert sum(part.rows.count for part in parts) == rows.count
        sizes = [part.rows.count * int(part.rows.lengths.max()) for part in parts]
        assert all(size <= most or len(part.labels) == 1 for size, part in zip(sizes, parts, strict=True))


def test_what_a_step_counts() -> None:
    adapter, rows, labels = batch("roberta", "words")
    engine, _, _ = gradient(adapter, rows, labels, chunk_tokens=10_000)
    tokens = sum(part.rows.inputs["input_ids"].numel() for part in engine.parts)
    blocks = 3
    assert engine.token_layers == 3 * blocks * tokens  # forward once, backward twice as much
    assert (engine.forwards, engine.backwards) == (len(engine.parts), len(engine.parts))
    plain = Engine(adapter, rows)
    plain.reset_counts()
    plain.incumbent_scores()
    assert plain.token_layers <= engine.token_layers / 3
    engine.reset_counts()
    assert (engine.token_layers, engine.forwards, engine.backwards) == (0, 0, 0)


def test_nothing_but_the_factors_has_a_gradient() -> None:
    adapter, rows, labels = batch("llama", "words")
    gradient(adapter, rows, labels)
    having = {name for name, parameter in adapter.peft_model.named_parameters() if parameter.grad is not None}
    assert having
    assert all(".lora_A." in name or ".lora_B." in name for name in having)
    assert len(having) == len(factors(adapter))
