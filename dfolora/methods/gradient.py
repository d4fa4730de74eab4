"""The gradient of the objective with respect to an adapter's factors, by back-propagation through the unmodified model.

It is the gradient of the same loss that ``Engine`` gives a candidate: the readings of ``Readout``, assembled by
``Rows``, in evaluation mode. Only answer positions reach the head and choices share their prompt, as in the
engine; of its other savings none is used.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from dfolora.engine import Engine, Rows, Savings
from dfolora.engine.memory import SHARE_OF_FREE, bytes_per_token, free_bytes
from dfolora.engine.patch import patched
from dfolora.engine.rows import buckets
from dfolora.models.adapter import Adapter
from dfolora.problems.objectives import Objective, check_result, mean_of


@dataclass(frozen=True)
class _Part:
    """Whole examples, with all the rows that their class scores need."""

    rows: Rows
    labels: Tensor
    share: float  # of all examples


class Gradient(Engine):
    """Computes losses and their gradients, in as many sub-batches as the memory needs.

    The objectives are means over examples, so the gradients of the parts add up to that of the batch. Label sentences
    that all examples share run once more in every part.

    A backward pass counts as two forwards in ``token_layers``, the usual convention. It is an upper bound here: weights
    that are frozen need no gradient of their own, which is up to half of it.

    Args:
        adapter, rows: as for ``Engine``.
        labels: (N,) right classes.
        chunk_tokens: most padded tokens in one forward and backward, label sentences aside; an example is never cut.
            0: as in ``Engine``, or less where what every block keeps for the backward pass does not fit.

    Attributes:
        deepest: the block, counted in running order, that back-propagation goes down to.
    """

    def __init__(self, adapter: Adapter, rows: Rows, labels: Tensor, chunk_tokens: int = 0) -> None:
        self.deepest = 0
        # Back-propagation goes through every token of every block.
        saved = Savings().without(("prefix", "shared", "last_block", "no_mask", "padding_free"))
        super().__init__(adapter, rows, chunk_tokens, saved)
        if not chunk_tokens:
            per_token = bytes_per_token(self.model) * len(self.order.blocks)
            fitting = int(SHARE_OF_FREE * free_bytes(self.device)) // per_token
            self.chunk_tokens = max(1, min(self.chunk_tokens, fitting))
        self.parts = self._cut(labels.to(self.device), self.launch_tokens())

    def __call__(self, objective: Objective) -> Tensor:
        """The loss of the current adapter, (1,); adds its gradient to ``grad`` of every tensor that requires it."""
        total = torch.zeros(1, device=self.device)
        for part in self.parts:
            with patched(self.readout.replacements(part.rows, 1)):
                output: Any = self.call(part.rows.inputs)
            scores = part.rows.assemble(self.readout.read(part.rows, output, 1))
            losses = check_result(objective(scores, part.labels), scores)
            loss = part.share * mean_of(losses)
            loss.sum().backward()
            total += loss.detach()
            self.count(part.rows.inputs, 1)
            self.token_layers += 2 * sum(self.tokens(part.rows)[self.deepest :])
            self.backwards += 1
        return total

    def block_of(self, layer: int) -> int:
        """The block, in running order, that an adapted layer is."""
        return self.order.index[self.adapter.layers[layer].name]

    def tokens(self, rows: Rows) -> list[int]:
        """Token-layers of one forward of these rows, block by block in running order."""
        return self.block_tokens(rows.inputs)

    def _cut(self, labels: Tensor, overhead: int) -> list[_Part]:
        """Parts of examples of similar length, none of more than ``chunk_tokens`` where that is possible."""
        rows, owner, lengths = self.rows, self.rows.owner[:, 0], self.rows.lengths
        of = [(owner == example).nonzero()[:, 0] for example in range(len(labels))]
        shared = (owner < 0).nonzero()[:, 0]  # label sentences of all examples
        most = max(len(index) for index in of)
        longest = [int(lengths[index].max()) for index in of]
        again = int(lengths[shared].sum())  # what one more part costs beside its launch
        parts = []
        for cut in buckets(longest, max(1, self.chunk_tokens // most), (overhead + again) // most):
            part = rows.take(torch.cat([*(of[example] for example in cut), shared]))
            number = torch.full((len(labels) + 1,), -1, device=owner.device)  # the last one is that of -1
            number[cut] = torch.arange(len(cut), device=owner.device)
            part_owner = torch.stack([number[part.owner[:, 0]], part.owner[:, 1]], 1)
            part = replace(part, owner=part_owner, classes=rows.classes[cut])
            parts.append(_Part(part, labels[cut], len(cut) / len(labels)))
        return parts
