"""Shifts of a module's output by hooks on the plain model, and engines of models from the zoo that run them."""

from __future__ import annotations

from functools import cache
from typing import Any

import torch
from models_zoo import READINGS, ZOO, attached
from plain_reading import plain_scores
from torch import Tensor

from dfolora.engine import Rows
from dfolora.engine.shifts import ShiftEngine
from dfolora.models.adapter import Adapter


@cache
def made(name: str, reading: str) -> tuple[Adapter, Rows]:
    """A model with incumbents that matter and rows for it; nobody changes them."""
    return attached(name, targets=("o",)), READINGS[reading](ZOO[name][0])


def names_of(adapter: Adapter) -> list[str]:
    """The modules that run over the tokens that are read: of a decoder, where there are two stacks."""
    names = [name for layer in adapter.layers for name in layer.modules]
    return [name for name in names if ".decoder." in f".{name}"] or names


def engine_of(adapter: Adapter, rows: Rows, alone: bool | None = None, chunk_tokens: int = 70) -> ShiftEngine:
    """An engine with several buckets; ``alone`` False: whole rows run."""
    engine = ShiftEngine(adapter, rows, chunk_tokens)
    if alone is not None:
        engine._alone = alone
    return engine


def read_at(rows: Rows) -> Tensor:
    """(R, T) bool: the tokens that are read, row by row."""
    inputs = rows.inputs
    mask = inputs["attention_mask"].bool()
    if rows.sentences:
        return mask
    there = torch.zeros_like(inputs.get("decoder_input_ids", mask), dtype=torch.bool)
    for row in range(rows.count):
        for column in range(rows.positions.shape[1]):
            if rows.targets is None or rows.targets[row, column] >= 0:
                there[row, rows.positions[row, column]] = True
    return there


def hooked(adapter: Adapter, rows: Rows, name: str, shift: Tensor, chosen: Tensor | None = None) -> tuple[Any, Any]:
    """Plain scores with a vector added to a module's output by a hook, and what entered and left the module before."""
    where = read_at(rows)
    if chosen is not None:
        where = where & chosen[:, None]
    seen: list[tuple[Tensor, Tensor]] = []

    def hook(_: Any, given: tuple[Tensor, ...], output: Tensor) -> Tensor:
        seen.append((given[0].detach(), output.detach()))
        return output + shift * where[..., None]

    handle = adapter.model.get_submodule(name).register_forward_hook(hook)
    try:
        return plain_scores(adapter, rows), seen
    finally:
        handle.remove()


def random(*size: int, seed: int = 5) -> Tensor:
    return torch.randn(*size, generator=torch.Generator().manual_seed(seed))


def size_of(scores: Tensor) -> float:
    return float(scores[scores.isfinite()].abs().max())
