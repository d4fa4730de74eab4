"""One candidate per forward of the PEFT model as it comes: the truth that the engine is held to, and its baseline."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager
from typing import Any

import torch
from torch import Tensor

from dfolora.engine.edits import as_edits, population_of, written
from dfolora.engine.engine import Engine
from dfolora.engine.rows import Rows
from dfolora.engine.savings import Savings
from dfolora.models.tuned import TunedModel


class SequentialEngine(Engine):
    """Scores like ``Engine``, with none of its savings: weights are written, the whole padded batch runs, full head.

    Args:
        adapter, rows: as for ``Engine``.
        chunk_tokens: not used: a candidate is one forward.
    """

    def __init__(self, adapter: TunedModel, rows: Rows, chunk_tokens: int = 0) -> None:
        super().__init__(adapter, rows, chunk_tokens, Savings.none())

    @torch.inference_mode()
    def scores(self, edits: Mapping[str, Any], examples: Tensor | None = None) -> Tensor:
        """As ``Engine.scores``; the incumbents are what they were when it returns."""
        rows, population = self._rows_of(examples), as_edits(edits)
        scores = []
        for p in range(population_of(population)):
            with self.running({name: edit.cut(p, p + 1) for name, edit in population.items()}, 1):
                scores.append(self.score_as_it_stands(rows))
        return torch.stack(scores)

    @torch.inference_mode()
    def incumbent_scores(self, examples: Tensor | None = None) -> Tensor:
        return self.score_as_it_stands(self._rows_of(examples))

    def running(self, edits: Mapping[str, Any], copies: int) -> AbstractContextManager[None]:
        """As ``Engine.running`` for one candidate: its factors are written, and what was there is put back."""
        assert copies == 1, "one candidate at a time"
        return written(self.model, as_edits(edits))

    def at_once(self, population: int, most: int) -> int:
        return 1

    def verify(self, edits: Mapping[str, Any]) -> None:
        """Nothing to compare: this is what others are compared with."""

    def score_as_it_stands(self, rows: Rows) -> Tensor:
        """(N, C) class scores of the weights as they are now, in one forward."""
        self.count(rows.inputs, 1)
        return rows.assemble(self.plain_readings(rows))[0]

    def _rows_of(self, examples: Tensor | None) -> Rows:
        return self.rows if examples is None else self.rows.of(examples.to(self.device))[1]
