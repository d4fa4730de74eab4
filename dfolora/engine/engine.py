"""Score a population of candidate adapters in batched forwards of the unmodified model.

Layer-wise search leaves everything below the tuned layer as it is for every candidate, so those blocks run once per
visit and each candidate resumes at the tuned one; within it, products whose inputs are still equal run once. Only
answer positions reach the language-model head and only label tokens leave it. All of it is exact: the class scores are
those of setting the weights one candidate at a time, up to rounding.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from dfolora.engine import memory
from dfolora.engine.abilities import refused
from dfolora.engine.base import BatchRunner
from dfolora.engine.blocks import Prefix
from dfolora.engine.edits import Edit, as_edits, population_of
from dfolora.engine.lora import incumbent_forward, shared_forward
from dfolora.engine.packing import share_prompts
from dfolora.engine.padded import Padded
from dfolora.engine.padding_free import PaddingFree
from dfolora.engine.patch import Forward, patched
from dfolora.engine.rows import Rows
from dfolora.engine.savings import Savings
from dfolora.engine.verify import saving_to_leave_out
from dfolora.errors import UserError
from dfolora.models.tuned import TunedModel

Layout = Padded | PaddingFree


@dataclass
class Bucket:
    """Rows of similar length, and what is kept of the blocks below a depth.

    Attributes:
        index: positions of its rows in the whole batch.
        layout: how they run.
        prefix: the cached state.
        versions: of the layers below the prefix's depth.
    """

    index: Tensor
    layout: Layout
    prefix: Prefix
    versions: list[int]


class Engine(BatchRunner):
    """Class scores of a fixed batch under candidate adapters.

    Attributes:
        order: the model's blocks in running order.
        readout: how answers are read.
    """

    def __init__(self, adapter: TunedModel, rows: Rows, chunk_tokens: int = 0, savings: Savings | None = None) -> None:
        """Cut the batch into length buckets; what the model allows is found out with its first engine.

        Args:
            adapter: the model with its LoRA modules.
            rows: the batch.
            chunk_tokens: most padded tokens in one forward; 0: what is fastest on the device and fits.
            savings: what may be left out; None: all that can.
        """
        super().__init__(adapter, rows, chunk_tokens, savings or Savings())

    def use(self, savings: Savings) -> None:
        super().use(savings)
        self.abilities.find(int(self.single_rows.lengths.max()))
        self.order, self.readout = self.abilities.order, self.abilities.readout
        self._buckets = self._arranged()

    def _arranged(self) -> list[Bucket]:
        """The batch, packed or not, in buckets of the layout that the model allows."""
        rows, most = self.single_rows, int(self.single_rows.lengths.max())
        if self.savings.shared_prompt:
            packed = share_prompts(rows, int(self.model.config.get_text_config().hidden_size), self.chunk_tokens)
            if packed is not rows and self.abilities.shares_prompts(most):
                rows = packed
        self.rows = rows
        several = rows.choices is None and len(rows.lengths.unique()) > 1
        first = self.abilities.first_position(most) if several else None
        layouts: list[tuple[Tensor, Layout]]
        if first is None:
            unmasked = self.savings.no_mask and rows.choices is None and self.abilities.ignores_full_mask
            layouts = [(cut, Padded(rows.take(cut), unmasked)) for cut in self.cuts(rows)]
        else:
            layouts = [(cut, PaddingFree(rows.take(cut), first, self.call.dtype)) for cut in self._full_cuts()]
        return [Bucket(index, layout, Prefix(0, {}), []) for index, layout in layouts]

    @torch.inference_mode()
    def scores(self, edits: Mapping[str, Any], examples: Tensor | None = None) -> Tensor:
        """Score a population.

        Args:
            edits: module name -> ``Edit`` of P candidates, or a pair (A (P, r, in), B (P, out, r)); all other modules
                are at their incumbents. Blocks below the lowest one touched run once for all candidates.
            examples: (n,) int64, a minibatch: which examples to score, each once; None: all N in their order. The
                prefix cache is kept for all of them, so that another minibatch finds it.

        Returns:
            (P, N or n, C) float32; -inf for classes that an example does not have.
        """
        cast = {name: edit.to(self.call.dtype, self.call.device) for name, edit in as_edits(edits).items()}
        return self._all_buckets(cast, population_of(cast), examples)

    @torch.inference_mode()
    def incumbent_scores(self, examples: Tensor | None = None) -> Tensor:
        """(N or n, C) float32: class scores with every layer at its incumbent; ``examples`` as for ``scores``."""
        return self._all_buckets({}, 1, examples)[0]

    def running(self, edits: Mapping[str, Any], copies: int) -> AbstractContextManager[None]:
        """Within it a call of the model, whole, is ``copies`` candidates on rows in candidate-major order.

        Args:
            edits: as for ``scores``, P = ``copies``.
            copies: at most what ``at_once`` says.
        """
        cast = {name: edit.to(self.call.dtype, self.call.device) for name, edit in as_edits(edits).items()}
        return patched(self.module_forwards(cast, frozenset(), copies))

    def shared_blocks(self, edits: Mapping[str, Any]) -> int:
        """How many blocks, from the first on, are the same for all candidates and need to run but once."""
        depth = self._lowest_block(as_edits(edits)) if edits and self.savings.prefix else 0
        return depth if self.abilities.resumes_at(depth) else 0

    def at_once(self, population: int, most: int) -> int:
        """How many candidates to run together where ``most`` fit."""
        if not self.abilities.side_by_side:
            return 1
        chunks = -(-population // max(1, most))
        return -(-population // chunks)  # of equal size: a short last one wastes what a launch costs

    @torch.inference_mode()
    def verify(self, edits: Mapping[str, Any]) -> None:
        """Compare with one candidate at a time, on the longest and the shortest examples of the batch.

        Where class scores differ, savings are given up until they agree: by this engine, and by every later one on this
        model that reads in the same way. Nothing is added to the counts.

        Args:
            edits: some candidates, of which two are compared; none: the model as it stands.

        Raises:
            UserError: they differ with nothing saved, too.
        """
        names = saving_to_leave_out(self, as_edits(edits))
        if names:
            refused(self.adapter, self.single_rows).update(names)
            self.use(self.savings)

    def module_forwards(
        self, edits: Mapping[str, Edit], shared: frozenset[str], copies: int
    ) -> list[tuple[nn.Module, Forward]]:
        """What the adapted modules do in a forward of ``copies`` candidates.

        Args:
            edits: in the model's dtype, on its device.
            shared: names of linear maps whose inputs are known to be equal for all candidates.
            copies: P of the edits, 1 where there is none.
        """
        forwards = []
        for index, layer in enumerate(self.adapter.layers):
            for name, module in layer.modules.items():
                if name not in edits:
                    forwards.append((module.lora, incumbent_forward(module, self.adapter.active[index])))
        for name, edit in edits.items():
            module = self.model.get_submodule(name)
            forwards.append((module, edit.forward(module, name in shared)))
        if copies > 1:
            modules = [self.model.get_submodule(name) for name in shared if name not in edits]
            forwards += [(module, shared_forward(module, copies)) for module in modules]
        return forwards

    def _full_cuts(self) -> list[Tensor]:
        """Indices of rows, the shortest first, whose tokens fill a quarter of a chunk."""
        cuts: list[list[int]] = [[]]
        tokens = 0
        lengths = self.rows.lengths.tolist()
        for row in sorted(range(len(lengths)), key=lambda row: (lengths[row], row)):
            length = lengths[row]
            if cuts[-1] and tokens + length > self.chunk_tokens // 4:
                cuts.append([])
                tokens = 0
            cuts[-1].append(row)
            tokens += length
        return [torch.tensor(cut, device=self.device) for cut in cuts]

    def _all_buckets(self, edits: Mapping[str, Edit], population: int, examples: Tensor | None) -> Tensor:
        """As ``_in_chunks``; where memory is not enough, chunks are halved for good, down to one row at a time."""
        while True:
            try:
                return self._in_chunks(edits, population, examples)
            except (RuntimeError, MemoryError) as error:
                if not memory.is_used_up(error):
                    raise
                if self.chunk_tokens < int(self.single_rows.lengths.max()):
                    raise UserError(
                        f"chunk_tokens: memory is not enough for one row of {int(self.single_rows.lengths.max())} "
                        "tokens; take a smaller max_length, dtype bfloat16, or another device"
                    ) from error
            self.chunk_tokens //= 2
            memory.give_back(self.device)
            self.use(self.savings)

    def _in_chunks(self, edits: Mapping[str, Edit], population: int, examples: Tensor | None) -> Tensor:
        if any(getattr(self.savings, name) for name in refused(self.adapter, self.single_rows)):
            self.use(self.savings)  # another engine has found that they do not work here
        rows, chosen = self.rows, torch.ones(self.rows.count, dtype=torch.bool, device=self.device)
        if examples is not None:
            index, rows = self.rows.of(examples.to(self.device))
            chosen = torch.zeros_like(chosen).index_fill_(0, index, True)
        readings: Tensor | None = None
        for bucket in self._buckets:
            part = None if examples is None else chosen[bucket.index].nonzero()[:, 0]
            if part is not None and not len(part):
                continue
            index = bucket.index if part is None else bucket.index[part]
            layout, states = (bucket.layout, None) if part is None else bucket.layout.pick(part)
            chunk = self.at_once(population, self.chunk_tokens // layout.inputs["input_ids"].numel())
            for start in range(0, population, chunk):
                stop = min(start + chunk, population)
                some = {name: edit.cut(start, stop) for name, edit in edits.items()}
                reading = self._run(bucket, layout, states, some, stop - start)
                if readings is None:
                    readings = reading.new_empty(population, self.rows.count, *reading.shape[2:])
                readings[start:stop, index] = reading
        assert readings is not None, "a batch has rows"
        return rows.assemble(readings if examples is None else readings[:, chosen])

    def _run(
        self, bucket: Bucket, layout: Layout, states: Tensor | None, edits: Mapping[str, Edit], copies: int
    ) -> Tensor:
        """Readings of ``copies`` candidates on a bucket, or the part of it that has these hidden states."""
        prefix, shared = Prefix(0, {}), frozenset[str]()
        depth = self._lowest_block(edits)
        if edits and bucket.prefix.depth > depth:
            bucket.prefix = Prefix(0, {})
        if self.savings.prefix and self.abilities.resumes_at(depth):
            prefix = self._prefix(bucket, depth)
            if states is not None:
                prefix = self.order.pick(prefix, states)
        layer = self._only_layer(edits)
        if self.savings.shared and layer is not None:
            shared = self.abilities.shared_maps(layer)
        forwards = layout.replacements(self.readout, self.module_forwards(edits, shared, copies), copies)
        with patched([*forwards, *self.order.resume(prefix, copies)]):
            output = layout.run(self.call, copies)
        self.count(layout.inputs, copies, prefix.depth)
        return layout.read(self.readout, output, copies)

    def _lowest_block(self, edits: Mapping[str, Edit]) -> int:
        """The first block, in running order, that an edit touches; 0 where one lies outside all blocks."""
        return min((self.order.block_of(name) or 0 for name in edits), default=0)

    def _only_layer(self, edits: Mapping[str, Edit]) -> int | None:
        """The one layer that the edits belong to; None where they belong to several, or one to none."""
        layers = {
            next((index for index, layer in enumerate(self.adapter.layers) if name in layer.modules), None)
            for name in edits
        }
        return layers.pop() if len(layers) == 1 else None

    def _prefix(self, bucket: Bucket, depth: int) -> Prefix:
        """The bucket's cached state below ``depth``, carried up from where it stands if nothing beneath has moved."""
        if bucket.versions != self._versions_below(bucket.prefix.depth):
            bucket.prefix = Prefix(0, {})
        if bucket.prefix.depth < depth:
            self.count(bucket.layout.inputs, 1, bucket.prefix.depth, depth)
            with patched(self.module_forwards({}, frozenset(), 1)):
                run = lambda: bucket.layout.run(self.call, 1)  # noqa: E731
                bucket.prefix = self.order.advance(bucket.prefix, depth, run)
            bucket.versions = self._versions_below(depth)
        return bucket.prefix

    def _versions_below(self, depth: int) -> list[int]:
        layers = zip(self.adapter.layers, self.adapter.versions, strict=True)
        return [version for layer, version in layers if self.order.index.get(layer.name, 0) < depth]
