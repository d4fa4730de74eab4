"""A model, a fixed batch, and the count of what running one on the other costs: what every way of scoring shares."""

from __future__ import annotations

import torch
from torch import Tensor

from dfolora.engine import memory
from dfolora.engine.abilities import abilities_of, refused
from dfolora.engine.rows import Rows, buckets
from dfolora.engine.savings import Savings
from dfolora.models.tuned import TunedModel

# What one more forward costs, in tokens: the price of another length bucket.
LAUNCH_TOKENS = {"cpu": 16, "cuda": 512}


class BatchRunner:
    """Runs a model on a batch and counts.

    Attributes:
        adapter: the tuned model.
        model: the unwrapped model.
        rows: the batch as it is run.
        chunk_tokens: most padded tokens in one forward.
        savings: what may be left out.
        abilities: what the model allows.
        token_layers: tokens x blocks computed so far, padding included: the honest unit of cost.
        forwards: model forwards so far.
        backwards: backward passes so far.
    """

    def __init__(self, adapter: TunedModel, rows: Rows, chunk_tokens: int, savings: Savings) -> None:
        self.adapter = adapter
        self.model = adapter.model
        self.single_rows = rows.to(next(self.model.parameters()).device)
        self.rows = self.single_rows
        self.chunk_tokens = chunk_tokens or memory.chunk_tokens(self.model, self.device)
        self.token_layers = self.forwards = self.backwards = 0
        self.use(savings)

    def use(self, savings: Savings) -> None:
        """Leave out what these savings allow, the model is able to do and no comparison has ruled out."""
        self.savings = savings.without(refused(self.adapter, self.single_rows))
        self.abilities = abilities_of(self.adapter, self.single_rows, self.savings)
        self.call = self.abilities.call

    @property
    def device(self) -> torch.device:
        return self.rows.owner.device

    @property
    def batches(self) -> list[Rows]:
        """The batch in length buckets, one row a choice: what is measured on it does not depend on what is saved."""
        return [self.single_rows.take(cut) for cut in self.cuts(self.single_rows)]

    @torch.inference_mode()
    def run_plain(self, rows: Rows) -> None:
        """One forward of the model as it is, nothing cut short: for hooks that look at hidden states."""
        self.call(rows.inputs)

    def reset_counts(self) -> None:
        self.token_layers = self.forwards = self.backwards = 0

    def count(self, inputs: dict[str, Tensor], copies: int, start: int = 0, stop: int | None = None) -> None:
        """Count a forward of ``copies`` candidates through the blocks from ``start`` to ``stop`` (None: all)."""
        self.forwards += 1
        self.token_layers += copies * sum(self.block_tokens(inputs)[start:stop])

    def block_tokens(self, inputs: dict[str, Tensor]) -> list[int]:
        """Per block, in running order, the tokens that it computes for these arguments."""
        tokens = []
        for block in self.abilities.order.blocks:
            decoder = "decoder_input_ids" in inputs and ".decoder." in f".{block.stack}."
            tokens.append(inputs["decoder_input_ids" if decoder else "input_ids"].numel() * block.calls)
        return tokens

    def launch_tokens(self) -> int:
        """What one more forward costs on this device, in tokens."""
        return LAUNCH_TOKENS.get(self.device.type, LAUNCH_TOKENS["cuda"])

    def cuts(self, rows: Rows) -> list[Tensor]:
        """Indices of the rows of each length bucket."""
        if not self.savings.buckets:
            return [torch.arange(rows.count, device=self.device)]
        cuts = buckets(rows.lengths.tolist(), max(self.chunk_tokens // 4, 1), self.launch_tokens())
        return [torch.tensor(cut, device=self.device) for cut in cuts]

    def plain_readings(self, rows: Rows) -> Tensor:
        """(1, R, ...) what ``Rows.assemble`` takes: the weights as they stand, nothing cut short; not counted."""
        return self.abilities.plain_readout.read(rows, self.call(rows.inputs), 1)
