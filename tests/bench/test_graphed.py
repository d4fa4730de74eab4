"""The row that replays a CUDA graph, on a stand-in that records operations and repeats them into the same memory."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from models_zoo import ZOO, attached, candidates, word_rows
from plain_reading import farthest, one_by_one
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from dfolora.bench.contenders import GraphedEngine, contenders


class Tape(TorchDispatchMode):
    def __init__(self) -> None:
        super().__init__()
        self.steps: list[Any] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        output = func(*args, **(kwargs or {}))
        self.steps.append((func, args, kwargs or {}, output))
        return output

    def replay(self) -> None:
        for func, args, kwargs, before in self.steps:
            for old, new in zip(tree_leaves(before), tree_leaves(func(*args, **kwargs)), strict=True):
                if isinstance(old, torch.Tensor) and old.data_ptr() != new.data_ptr():
                    old.copy_(new)


class Stream:
    def wait_stream(self, other: Stream) -> None:
        pass


@pytest.fixture
def recorded(monkeypatch: pytest.MonkeyPatch) -> None:
    @contextlib.contextmanager
    def record(tape: Tape) -> Iterator[None]:
        with tape:
            yield

    monkeypatch.setattr(torch.cuda, "CUDAGraph", Tape)
    monkeypatch.setattr(torch.cuda, "graph", record)
    monkeypatch.setattr(torch.cuda, "Stream", Stream)
    monkeypatch.setattr(torch.cuda, "current_stream", Stream)
    monkeypatch.setattr(torch.cuda, "stream", lambda stream: contextlib.nullcontext())


@pytest.mark.parametrize("name", ["roberta", "llama"])
def test_a_replay_reads_the_candidate_that_was_written(recorded: None, name: str) -> None:
    adapter, rows = attached(name), word_rows(ZOO[name][0])
    engine = GraphedEngine(adapter, rows)
    for layer in (1, None):
        factors = candidates(adapter, layer, 3, seed=5)
        expected = one_by_one(adapter, rows, factors)
        assert farthest(engine.scores(factors), expected) < 1e-4 * float(expected.abs().max())
    assert engine.forwards == 6  # the first calls and the recording score nothing


def test_it_is_a_row_on_a_gpu_only_and_says_why_not(monkeypatch: pytest.MonkeyPatch) -> None:
    adapter, rows, said = attached("roberta"), word_rows("masked"), []
    assert "sequential-graph" not in {way.name for way in contenders(adapter, [rows], 2, 100, False, said.append)}
    assert said == []

    def refuse(self: GraphedEngine, adapter: Any, rows: Any) -> None:
        raise RuntimeError("operation not permitted when stream is capturing\nmore")

    monkeypatch.setattr(GraphedEngine, "__init__", refuse)
    monkeypatch.setattr("dfolora.bench.contenders._on_gpu", lambda adapter: True)
    assert "sequential-graph" not in {way.name for way in contenders(adapter, [rows], 2, 100, False, said.append)}
    assert said == ["sequential-graph is left out: operation not permitted when stream is capturing"]
