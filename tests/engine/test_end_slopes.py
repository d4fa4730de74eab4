"""Slopes of class scores in the last hidden state, against a hook on the plain model's last block."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from models_zoo import cases
from plain_reading import farthest, plain_scores
from shift_hooks import engine_of, made, names_of, read_at, size_of
from torch import Tensor

SOME = ["roberta", "bert", "gpt2", "opt", "llama", "gemma2", "t5", "mpnet"]


def pushed(adapter: Any, rows: Any, last: Any, shift: Tensor, chosen: Tensor) -> Tensor:
    """Plain scores with a vector added to what the last block gives where some rows are read."""
    where = (read_at(rows) & chosen[:, None])[..., None]

    def hook(_: Any, given: Any, output: Any) -> Any:
        if isinstance(output, tuple):
            return (output[0] + shift * where, *output[1:])
        return output + shift * where

    handle = last.register_forward_hook(hook)
    try:
        return plain_scores(adapter, rows)
    finally:
        handle.remove()


@pytest.mark.parametrize(("name", "reading"), [case for case in cases() if case[0] in SOME])
def test_slopes_are_differences_of_scores(name: str, reading: str) -> None:
    adapter, rows = made(name, reading)
    engine = engine_of(adapter, rows)
    engine.look(names_of(adapter))
    engine.reset_counts()
    slopes = engine.end_slopes(1e-2)
    assert slopes is not None
    assert engine.token_layers == 0
    plain = plain_scores(adapter, rows)
    assert slopes.shape == (32, *plain.shape)
    last = engine.order.blocks[-1].module
    texts = torch.zeros(rows.count, dtype=torch.bool)
    texts[engine.row_of_score[0].clamp(min=0)] = True
    there = plain.isfinite()
    for at in (0, 17, 31):
        unit = torch.zeros(32)
        unit[at] = 1e-2
        expected = (pushed(adapter, rows, last, unit, texts) - plain)[there] / 1e-2
        assert farthest(slopes[at][there], expected) < 0.03 * size_of(slopes[slopes.isfinite()])
    assert size_of(slopes[slopes.isfinite()]) > 1e-3


def test_a_model_that_does_not_resume_gives_none() -> None:
    adapter, rows = made("albert", "words")  # its one block runs three times
    engine = engine_of(adapter, rows)
    engine.look(names_of(adapter))
    assert engine.end_slopes(1e-2) is None
