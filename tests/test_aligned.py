"""The subspace ``aligned``: which directions it has, how far a candidate moves an output, and a search in it."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from models_zoo import ZOO, attached, word_rows
from shift_hooks import names_of
from torch import Tensor

import dfolora
from dfolora.engine import Engine
from dfolora.engine.shifts import ShiftEngine
from dfolora.errors import UserError
from dfolora.subspaces.aligned import Aligned
from dfolora.subspaces.measure import measure

RANK, SCALE = 3, 0.2


def made(model: str, target: str = "o", **options: Any) -> tuple[ShiftEngine, list[Aligned]]:
    adapter = attached(model, RANK, incumbents=False, targets=(target,))
    rows = word_rows(ZOO[model][0])
    measured = measure(adapter, Engine(adapter, rows), Aligned, RANK, 7)
    spaces = [
        Aligned(layer, each, RANK, 500, 7, SCALE, torch.device("cpu"), **options)
        for layer, each in zip(adapter.layers, measured, strict=True)
    ]
    return ShiftEngine(adapter, rows), spaces


def in_span(directions: Tensor, vectors: Tensor) -> Tensor:
    """How much of some vectors (n, H) lies in the span of orthonormal rows, as a share of their length."""
    return (vectors @ directions.T).norm(dim=1) / vectors.norm(dim=1)


@pytest.mark.parametrize("model", ["roberta", "gpt2", "llama", "t5"])
def test_outputs_move_where_the_scores_are_read(model: str) -> None:
    """The first directions span what the scores' slopes span; the others are at right angles to them, and random."""
    engine, spaces = made(model)
    look = engine.look(names_of(engine.adapter))
    slopes = engine.end_slopes(0.2)
    assert slopes is not None
    classes = look.scores.shape[1]
    differences = (slopes - slopes.mean(-1, keepdim=True)).flatten(1).T
    for space in spaces:
        assert space.dim == len(space.layer.modules) * 4 * RANK
        for directions in space.out.values():
            assert torch.allclose(directions.T @ directions, torch.eye(4), atol=1e-5)
            shares = in_span(directions.T[: classes - 1], differences)
            weights = differences.norm(dim=1)
            assert float((shares * weights).sum() / weights.sum()) > 0.9  # all but what differs from row to row


@pytest.mark.parametrize("model", ["roberta", "gpt2"])
def test_a_standard_normal_z_changes_the_output_by_scale_where_it_is_read(model: str) -> None:
    engine, spaces = made(model)
    look = engine.look(names_of(engine.adapter))
    z = torch.randn(400, spaces[0].dim, generator=torch.Generator().manual_seed(0))
    for space in spaces:
        for name, (a, b) in space.factors(z).items():
            x = look.inputs[name]
            change = torch.einsum("ti,pri,por->pto", x, a, b)
            own = (x @ space.layer.modules[name].weight.T).std()
            assert float(change.square().mean().sqrt() / own) == pytest.approx(SCALE, rel=0.12)


def test_as_many_directions_as_one_likes() -> None:
    _, spaces = made("gpt2", directions=1)
    assert {space.dim for space in spaces} == {RANK}
    for wrong in (0, 33):
        with pytest.raises(UserError, match=f"^directions: {wrong} cannot work; the adapted modules allow 1 to 32$"):
            made("gpt2", directions=wrong)


def test_a_module_that_writes_elsewhere_is_refused() -> None:
    with pytest.raises(UserError, match=r"residual stream.*c_fc' gives 128 numbers, not 32"):
        made("gpt2", target="c_fc")


def test_a_search_in_it_learns(tmp_path: Path) -> None:
    """It adapts the attention's output unless told otherwise, and says what its z has."""
    run = dfolora.tune(
        task="demo/sentiment", output=str(tmp_path / "run"), seed=13, method="search", subspace="aligned", rank=2,
        budget=300, population=5, shots=8,
    )  # fmt: skip
    losses = [json.loads(line)["losses"] for line in (tmp_path / "run" / "log.jsonl").read_text().splitlines()]
    first, last = (sum(map(min, part)) / len(part) for part in (losses[1:5], losses[-4:]))
    assert last < 0.6 * first
    assert math.isfinite(last)
    keys = (tmp_path / "run" / "adapter" / "adapter_config.json").read_text()
    assert "attention.output.dense" in keys
    assert run.scores["tuned"]["accuracy"] > run.scores["zero_shot"]["accuracy"]
