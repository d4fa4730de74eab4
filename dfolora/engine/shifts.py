"""What class scores become when something is added to a module's output just where an answer is read.

An update q a' of a module's weights adds q (a . x) to its output for an input x. How much the scores change for a
direction q can therefore be tried without any a: q itself is added where the answer is read, and the inputs there,
which one forward shows, say what each a makes of it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from dfolora.engine import memory
from dfolora.engine.blocks import BlockOrder, Output, Prefix
from dfolora.engine.engine import Bucket, Engine
from dfolora.engine.padded import Padded
from dfolora.engine.patch import Forward, patched
from dfolora.engine.recorder import Recorder, elsewhere, keeping_outputs
from dfolora.engine.rows import Rows
from dfolora.engine.savings import Savings
from dfolora.engine.tails import Tail
from dfolora.engine.trials import agree, attempt
from dfolora.models.tuned import TunedModel


@dataclass(frozen=True)
class Look:
    """What one forward of the incumbents shows.

    Attributes:
        scores: (N, C) float32, on the CPU.
        inputs: module name -> (R, in) float32, on the CPU: what enters it where a row is read, the mean where a row is
            read at several places.
        outputs: module name -> its output's mean length at these places.
        spreads: module name -> (in, in) float32, the mean covariance of what enters it within a row; none of a module
            whose rows are read at one place each.
    """

    scores: Tensor
    inputs: dict[str, Tensor]
    outputs: dict[str, float]
    spreads: dict[str, Tensor]


class ShiftEngine(Engine):
    """An engine that can also shift a module's output where rows are read.

    In a causal model such a shift reaches the answer's own tokens alone, so these run on their own, behind cached keys
    and values of all tokens before them: a probe costs a token of each row and not all. Whether a model can do that is
    tried by the first ``look``, on the whole batch; where it cannot, whole rows run.
    """

    def __init__(self, adapter: TunedModel, rows: Rows, chunk_tokens: int = 0, savings: Savings | None = None) -> None:
        savings = (savings or Savings()).without(("shared_prompt", "padding_free", "last_block"))
        super().__init__(adapter, rows, chunk_tokens, savings)
        self._tails: list[Tail] = []
        self._alone: bool | None = None if _may_run_alone(self.rows) else False  # tails; None: not tried yet
        self._seen: list[int] = []
        self._readings = torch.empty(0)  # (1, R, ...) of the incumbents
        self._prefixes: list[dict[int, Prefix]] = []  # of each bucket: depth -> what the blocks below it gave

    @property
    def row_of_score(self) -> tuple[Tensor, Tensor]:
        """For every score, (N, C) int64, the row that it is read from, and of sentences that of its label.

        Where a class has several rows (choices that speak for it) the first stands for all; -1 where there is none.
        """
        owner, classes = self.rows.owner.cpu(), self.rows.classes.cpu()
        examples, most = len(classes), int(classes.max()) if self.rows.columns is None else len(self.rows.columns)
        own = torch.full((examples, most), -1)
        label = torch.full((examples, most), -1)
        for row, (example, number) in reversed(list(enumerate(owner.tolist()))):
            if number < 0 or self.rows.columns is not None:  # a text that all classes are read from
                own[example] = row
            elif not self.rows.sentences:
                own[example, number] = row
            elif example < 0:
                label[:, number] = row
            else:
                label[example, number] = row
        return own, label

    @torch.inference_mode()
    def look(self, names: list[str]) -> Look:
        """Score the incumbents, and note what enters some modules where rows are read.

        Args:
            names: of the adapted modules that are going to be shifted.

        Raises:
            UserError: a module does not run over the tokens that answers are read at.
        """
        self._seen = list(self.adapter.versions)
        readings: Tensor | None = None
        inputs: dict[str, Tensor] = {}
        lengths = dict.fromkeys(names, 0.0)
        spreads: dict[str, Tensor] = {}
        tails: list[Tail] = []
        self._prefixes = []
        counts = self.forwards, self.token_layers
        for bucket in self._buckets:
            layout = bucket.layout
            assert isinstance(layout, Padded), "rows run padded here"
            where = _places(layout.rows)
            recorder = Recorder(where, names)
            forwards = [recorder.watch(self.adapter.model, *each) for each in self.module_forwards({}, frozenset(), 1)]
            output, prefixes = None, dict[int, Prefix]()
            if self._alone is not False:
                tail = Tail(layout.rows, self.order, self.model)
                output = attempt(partial(tail.record, forwards, self.readout))
                self._alone = self._alone if output is not None else False
                tails.append(tail)
            if output is None:
                output, prefixes = self._run_and_keep(layout, forwards, names)
            self._prefixes.append(prefixes)
            self.count(layout.inputs, 1)
            reading = self.readout.read(layout.rows, output, 1)
            if readings is None:
                readings = reading.new_empty(1, self.rows.count, *reading.shape[2:])
            readings[:, bucket.index] = reading
            for name in names:
                x = recorder.inputs(name)
                inputs.setdefault(name, x.new_empty(self.rows.count, x.shape[1]))[bucket.index] = x
                spread = recorder.spread(name)
                if spread is not None:
                    spreads[name] = spreads.get(name, torch.zeros_like(spread)) + spread / self.rows.count
                lengths[name] += recorder.length(name) * len(x) / self.rows.count
        assert readings is not None, "a batch has rows"
        self._readings = readings
        if self._alone is None:
            self._alone = self._try_alone(names, lengths, tails)
            if not self._alone:  # anew, to keep what whole rows start from
                self.forwards, self.token_layers = counts
                return self.look(names)
        self._tails = tails if self._alone else []
        scores = self.rows.assemble(readings)[0].float().cpu()
        return Look(
            scores,
            {name: x.float().cpu() for name, x in inputs.items()},
            lengths,
            {name: each.cpu() for name, each in spreads.items()},
        )

    @torch.inference_mode()
    def shifted(self, name: str, shifts: Tensor, chosen: Tensor | None = None) -> Tensor:
        """Class scores with each of some vectors added to a module's output where rows are read.

        Args:
            name: an adapted module.
            shifts: (P, out).
            chosen: (R,) bool, the rows that are shifted; the others are not run again. None: all.

        Returns:
            (P, N, C) float32, on the CPU.
        """
        assert self._seen == self.adapter.versions, "look comes first, and anew after every move"
        shifts = shifts.to(self.call.device, self.call.dtype)
        chosen = torch.ones(self.rows.count, dtype=torch.bool) if chosen is None else chosen
        chosen = chosen.to(self.device)
        readings = self._readings.repeat(len(shifts), *[1] * (self._readings.dim() - 1))
        for number, bucket in enumerate(self._buckets):
            part = chosen[bucket.index].nonzero()[:, 0]
            if not len(part):
                continue
            tail = self._tails[number] if self._alone else None
            prefixes = self._prefixes[number]
            tokens = (tail.tokens if tail else bucket.layout.inputs["input_ids"].numel()) * len(part)
            most = self.chunk_tokens * len(bucket.index) // max(1, tokens)
            if tail:  # every candidate has keys and values of its own, of all tokens
                fitting = memory.generated_tokens(self.model, self.device, len(self.order.blocks))
                most = min(most, fitting // bucket.layout.inputs["input_ids"].numel())
            chunk = self.at_once(len(shifts), most)
            for start in range(0, len(shifts), chunk):
                some = shifts[start : start + chunk]
                reading = self._run_shifted(bucket, tail or prefixes, name, some, part)
                readings[start : start + chunk, bucket.index[part]] = reading
        return self.rows.assemble(readings).float().cpu()

    def still(self) -> None:
        """Say that what was written since the last look has changed no output."""
        self._seen = list(self.adapter.versions)

    @torch.inference_mode()
    def end_slopes(self, step_size: float) -> Tensor | None:
        """How class scores change with what the last block gives where rows are read; no block runs for it.

        Args:
            step_size: of the differences that are taken, as a share of the length of what it gives.

        Returns:
            (H, N, C) float32 on the CPU, a slope for each coordinate of the hidden state, of a text and not of its
            labels' sentences; None where the model cannot be started behind its last block.
        """
        depth = len(self.order.blocks)
        if not self._tails and any(depth not in prefixes for prefixes in self._prefixes):
            return None
        starts = [self._tails[number] if self._tails else each[depth] for number, each in enumerate(self._prefixes)]
        sizes = [start.size if isinstance(start, Tail) else _size(start, self.order) for start in starts]
        size = step_size * sum(sizes) / len(sizes)
        width = int(self.model.config.get_text_config().hidden_size)
        readings = self._readings.repeat(width, *[1] * (self._readings.dim() - 1))
        texts = torch.zeros(self.rows.count, dtype=torch.bool)
        texts[self.row_of_score[0].clamp(min=0)] = True
        shifts = size * torch.eye(width, device=self.call.device, dtype=self.call.dtype)
        for bucket, start in zip(self._buckets, starts, strict=True):
            part = texts.to(self.device)[bucket.index].nonzero()[:, 0]
            tokens = start.tokens if isinstance(start, Tail) else bucket.layout.inputs["input_ids"].numel()
            chunk = self.at_once(width, self.chunk_tokens // max(1, tokens))
            for first in range(0, width if len(part) else 0, chunk):
                some = shifts[first : first + chunk]
                readings[first : first + chunk, bucket.index[part]] = self._run_end(bucket, start, some, part)
        return ((self.rows.assemble(readings) - self.rows.assemble(self._readings)) / size).float().cpu()

    def _run_end(self, bucket: Bucket, start: Tail | Prefix, shifts: Tensor, part: Tensor) -> Tensor:
        """Readings (P, part, ...) of some rows of a bucket with vectors added to what the last block gives there."""
        copies = len(shifts)
        self.forwards += 1

        def end(where: Tensor) -> Callable[[Forward], Forward]:
            return partial(_of_block, partial(_shifting, shifts=shifts, where=where))

        forwards = self.module_forwards({}, frozenset(), copies)
        if isinstance(start, Tail):
            shifted = end(_places(start.rows) > 0)
            return start.run(len(self.order.blocks), forwards, self.readout, copies, shifted)[:, part]
        layout, states = bucket.layout.pick(part)
        last, shifted = self.order.blocks[-1].module, end(_places(layout.rows) > 0)
        resumed = [
            (module, shifted(forward) if module is last else forward)
            for module, forward in self.order.resume(self.order.pick(start, states), copies)
        ]
        with patched([*layout.replacements(self.readout, forwards, copies), *resumed]):
            output = layout.run(self.call, copies)
        return layout.read(self.readout, output, copies)

    def _run_shifted(
        self, bucket: Bucket, start: Tail | dict[int, Prefix], name: str, shifts: Tensor, part: Tensor
    ) -> Tensor:
        """Readings (P, part, ...) of some rows of a bucket, from what a look has kept of the blocks below."""
        copies, depth = len(shifts), self.order.block_of(name) or 0
        module = self.model.get_submodule(name)

        def forwards(rows: Rows) -> list[tuple[nn.Module, Forward]]:
            where = _places(rows) > 0
            return [
                (each, _shifting(forward, shifts, where) if each is module else forward)
                for each, forward in self.module_forwards({}, frozenset(), copies)
            ]

        if isinstance(start, Tail):  # of single tokens, which are not worth picking
            self.forwards += 1
            self.token_layers += copies * start.tokens * (len(self.order.blocks) - depth)
            return start.run(depth, forwards(start.rows), self.readout, copies)[:, part]
        prefix = start.get(depth)
        layout, states = bucket.layout.pick(part)
        resumed = [] if prefix is None else self.order.resume(self.order.pick(prefix, states), copies)
        with patched([*layout.replacements(self.readout, forwards(layout.rows), copies), *resumed]):
            output = layout.run(self.call, copies)
        self.count(layout.inputs, copies, prefix.depth if prefix else 0)
        return layout.read(self.readout, output, copies)

    def _run_and_keep(
        self, layout: Padded, forwards: list[tuple[nn.Module, Forward]], names: list[str]
    ) -> tuple[Any, dict[int, Prefix]]:
        """Run the incumbents; what the model returns, and what starts it again at each named module's block."""
        outputs: dict[nn.Module, Output] = {}
        depths = {self.order.block_of(name) or 0 for name in names} | {len(self.order.blocks)}
        wanted = {depth for depth in depths if self.savings.prefix and self.abilities.resumes_at(depth)}
        watched = keeping_outputs([block.module for block in self.order.blocks] if wanted else [], outputs)
        with patched([*forwards, *self.readout.replacements(layout.rows, 1), *watched]):
            output = layout.run(self.call, 1)
        below: dict[str, Output] = {}
        prefixes = {}
        for position, block in enumerate(self.order.blocks):
            if position in wanted:
                prefixes[position] = Prefix(position, dict(below))
            if wanted:
                below[block.stack] = outputs[block.module]
        if len(self.order.blocks) in wanted:
            prefixes[len(self.order.blocks)] = Prefix(len(self.order.blocks), below)
        return output, prefixes

    def _try_alone(self, names: list[str], lengths: dict[str, float], tails: list[Tail]) -> bool:
        """Whether answers that run alone read as they do in whole rows, where the lowest or highest module is shifted.

        Every bucket is tried: a window of attention shows in rows that are longer than it.
        """
        counts = self.forwards, self.token_layers
        widths = {name: module.out_features for each in self.adapter.layers for name, module in each.modules.items()}
        generator = torch.Generator().manual_seed(0)

        def agrees(name: str) -> bool:
            direction = torch.randn(1, widths[name], generator=generator)
            shift = (direction / direction.norm() * lengths[name]).to(self.call.device, self.call.dtype)
            for bucket, tail in zip(self._buckets, tails, strict=True):
                every = torch.arange(len(bucket.index), device=self.device)
                whole = self._run_shifted(bucket, {}, name, shift, every)
                alone = attempt(partial(self._run_shifted, bucket, tail, name, shift, every))
                if not agree(alone, whole, self.call.dtype):
                    return False
            return True

        by_depth = sorted(names, key=lambda name: self.order.block_of(name) or 0)
        incumbents = self.module_forwards({}, frozenset(), 1)
        agreed = all(attempt(partial(tail.is_causal, incumbents, self.readout)) for tail in tails)
        agreed = agreed and all(agrees(name) for name in dict.fromkeys([*by_depth[:1], *by_depth[-1:]]))
        self.forwards, self.token_layers = counts
        return agreed


def _may_run_alone(rows: Rows) -> bool:
    return not rows.sentences and "decoder_input_ids" not in rows.inputs


def _places(rows: Rows) -> Tensor:
    """(R, T) float32: where a row is read, as shares that sum to 1: at its answer, or at what makes its vector."""
    mask = rows.inputs["attention_mask"]
    if rows.sentences:
        if rows.pooling == "cls":
            first = torch.zeros_like(mask, dtype=torch.float32)
            first[:, 0] = 1
            return first
        return mask.float() / mask.sum(1, keepdim=True)
    tokens = rows.inputs["decoder_input_ids" if "decoder_input_ids" in rows.inputs else "input_ids"].shape[1]
    read = torch.ones_like(rows.positions) if rows.targets is None else (rows.targets >= 0).long()
    shares = torch.zeros(rows.count, tokens, device=rows.positions.device)
    shares.scatter_add_(1, rows.positions, read.float())
    return shares / shares.sum(1, keepdim=True)


def _size(prefix: Prefix, order: BlockOrder) -> float:
    """Mean length of what the last block gives at a token."""
    output = prefix.outputs[order.blocks[-1].stack]
    states = output[0] if isinstance(output, tuple) else output
    return float(states.float().norm(dim=-1).mean())


def _of_block(shifted: Callable[[Forward], Forward], forward: Forward) -> Forward:
    """``shifted`` on the hidden states of a block, whatever it gives beside them."""

    def run(*args: Any, **kwargs: Any) -> Any:
        output = forward(*args, **kwargs)
        if isinstance(output, tuple):
            return (shifted(lambda x: output[0])(output[0]), *output[1:])
        return shifted(lambda x: output)(output)

    return run


def _shifting(forward: Forward, shifts: Tensor, where: Tensor) -> Forward:
    """A module's forward, with each candidate's vector added at some tokens: shifts (P, out), where (R, T) bool."""
    places = where.flatten()[None, :, None].to(shifts.dtype)

    def shifted(x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        y = forward(x, *args, **kwargs)
        if y.numel() != len(shifts) * where.numel() * y.shape[-1]:
            raise elsewhere()
        flat = y.reshape(len(shifts), -1, y.shape[-1])
        return (flat + shifts[:, None].to(y.dtype) * places.to(y.dtype)).view(y.shape)

    return shifted
