"""One candidate per forward of the PEFT model as it comes: the truth that the engine is held to, and its baseline."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import torch
from torch import Tensor

from dfolora.engine.engine import Engine
from dfolora.engine.levers import Levers
from dfolora.engine.rows import Rows
from dfolora.models.adapter import Adapter, Factors


class SequentialEngine(Engine):
    """Scores like ``Engine``, with none of its savings: weights are written, the whole padded batch runs, full head.

    Args:
        adapter, rows: as for ``Engine``.
        chunk_tokens: not used: a candidate is one forward.
    """

    def __init__(self, adapter: Adapter, rows: Rows, chunk_tokens: int = 0) -> None:
        super().__init__(adapter, rows, chunk_tokens, Levers.none())

    @torch.inference_mode()
    def scores(self, factors: Factors, examples: Tensor | None = None) -> Tensor:
        """As ``Engine.scores``; the incumbents are what they were when it returns."""
        rows = self._rows_of(examples)
        readings = []
        for p in range(next(iter(factors.values()))[0].shape[0]):
            with self.running({name: (a[p : p + 1], b[p : p + 1]) for name, (a, b) in factors.items()}, 1):
                readings.append(self._read(rows))
        return rows.assemble(torch.cat(readings))

    @torch.inference_mode()
    def incumbent_scores(self, examples: Tensor | None = None) -> Tensor:
        rows = self._rows_of(examples)
        return rows.assemble(self._read(rows))[0]

    @contextlib.contextmanager
    def running(self, factors: Factors, copies: int) -> Iterator[None]:
        """As ``Engine.running`` for one candidate: its factors are written, and what was there is put back."""
        assert copies == 1, "one candidate at a time"
        own = self._own(factors)
        before = [(part, part.clone()) for pair in own.values() for part in pair]
        try:
            for name, pair in own.items():
                for part, candidates in zip(pair, factors[name], strict=True):
                    part.copy_(candidates[0])
            yield
        finally:
            for part, kept in before:
                part.copy_(kept)

    def at_once(self, population: int, most: int) -> int:
        return 1

    def _rows_of(self, examples: Tensor | None) -> Rows:
        return self.rows if examples is None else self.rows.of(examples.to(self.rows.owner.device))[1]

    def _own(self, factors: Factors) -> Factors:
        modules = {name: module for layer in self.adapter.layers for name, module in layer.modules.items()}
        return {name: modules[name].factors() for name in factors}

    def _read(self, rows: Rows) -> Tensor:
        """(1, R, ...): the readings of the weights as they stand."""
        output = self._forward(rows.inputs)
        self._count(rows.inputs, 1, 0, len(self.order.blocks))
        return self.readout.read(rows, output, 1)
