"""What one model lets the engine save, found by running it, not from its name: once, for every batch that follows.

All of it is tried on a ``Sample``: short rows drawn from the first batch. What is found holds for every batch that is
read in the same way (label words, choices or sentences; the same arguments), however many rows it has, whatever their
lengths and however many tokens their answers have. Texts longer than any so far cost one forward of a single row, to
see whether a window or a bias in attention sets in. A layer that is tuned for the first time costs a few short runs.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn

from dfolora.engine.blocks import BlockOrder, Prefix
from dfolora.engine.masks import Sight
from dfolora.engine.model_call import ModelCall
from dfolora.engine.packing import packs
from dfolora.engine.padding_free import first_position
from dfolora.engine.patch import Forward, patched
from dfolora.engine.readout import Readout
from dfolora.engine.row_inputs import RowInputs
from dfolora.engine.rows import Rows
from dfolora.engine.sample import ANSWER_TOKENS, Sample
from dfolora.engine.savings import Savings
from dfolora.engine.shared import shared_maps
from dfolora.engine.trials import agree, attempt, poison
from dfolora.models.tuned import TunedModel


class Abilities:
    """What a model allows, for one way of reading.

    Attributes:
        call: calls the model.
    """

    def __init__(self, adapter: TunedModel, rows: Rows, savings: Savings) -> None:
        """Try nothing yet.

        Args:
            adapter: the model with its adapted modules.
            rows: the first batch, one row a choice, on the model's device.
            savings: what may be tried.
        """
        self._layers = adapter.layers
        self._savings = savings
        self.call = ModelCall(adapter.model, rows.sentences)
        self._pad, self._positions = _padding_and_positions(adapter.model)
        self._longest = self._most_tokens()
        sample = Sample(rows, self._longest, self._pad or 0)
        self._words = sample.words()
        # The hard case, several tokens an answer, wherever answers can have several.
        self._answers = sample.words(1 if rows.targets is None else ANSWER_TOKENS)
        self._sample = sample
        self._several_choices = rows.targets is not None and "decoder_input_ids" not in rows.inputs
        self._modules = [module.lora for layer in self._layers for module in layer.modules.values()]
        self._sights: dict[int, Sight] = {}
        self._shared: dict[int, frozenset[str]] = {}
        self._resumes: dict[int, bool] = {}

    def find(self, length: int) -> None:
        """Try all that an engine of texts of ``length`` tokens asks for, so that none tries it again."""
        _ = self.readout, self.ignores_full_mask
        self.first_position(length)
        if self._several_choices:
            self.shares_prompts(length)

    @cached_property
    def order(self) -> BlockOrder:
        """The blocks in running order."""
        with torch.inference_mode():
            order = BlockOrder(self.call.model, self._row_inputs, [layer.name for layer in self._layers])
            if order.resumable and self._savings.prefix and len(order.blocks) > 1:
                self._try_to_skip_stem(order)
            return order

    @cached_property
    def side_by_side(self) -> bool:
        """Whether several candidates can run in one forward."""
        return self.order is not None and self._row_inputs.always()

    @cached_property
    def plain_readout(self) -> Readout:
        """How answers are read with nothing cut short."""
        return Readout(self.call.model, self.call)

    @cached_property
    def readout(self) -> Readout:
        """How answers are read, with as little of the head and of the last block as the savings allow."""
        readout = Readout(self.call.model, self.call)
        if not self._savings.answer_rows:
            return readout
        with torch.inference_mode():
            readout.cut_to_answers(self._answers, self._savings.label_columns)
            last = self.order.blocks[-1]
            if self.order.resumable and self._savings.last_block and self._ends_in_answers(last.stack):
                modules = [layer.modules.values() for layer in self._layers if layer.name == last.name]
                readout.thin_out(self._words, last.module, [module.lora for part in modules for module in part])
        return readout

    @cached_property
    def ignores_full_mask(self) -> bool:
        """Whether a row without padding reads the same without its attention mask."""
        if not self._savings.no_mask:
            return False
        row = self._answers.take(torch.zeros(1, dtype=torch.long, device=self.call.device))
        inputs = {name: tensor for name, tensor in row.inputs.items() if name != "attention_mask"}
        with torch.inference_mode(), patched(self.readout.replacements(row, 1)):
            expected = self.readout.read(row, self.call(row.inputs), 1)
            tried = attempt(lambda: self.readout.read(row, self.call(inputs), 1))
            return agree(tried, expected, self.call.dtype)

    def shares_prompts(self, length: int) -> bool:
        """Whether the choices of an example can be read in one row, in texts of at most ``length`` tokens."""
        return self._savings.shared_prompt and self._packs and self._sees(length, "plain_masks")

    def first_position(self, length: int) -> int | None:
        """The number of a text's first token, where texts of at most ``length`` tokens can run without padding."""
        if not self._savings.padding_free or self._first_position is None:
            return None
        return self._first_position if self._sees(length, "plain_attention") else None

    def shared_maps(self, layer: int) -> frozenset[str]:
        """Linear maps of an adapted layer's block whose inputs are equal for all candidates where it alone is tuned."""
        if layer not in self._shared:
            block = self.order.index.get(self._layers[layer].name)
            possible = self._savings.shared and self._savings.prefix and self.order.resumable and block is not None
            self._shared[layer] = self._try_to_share(layer, block or 0) if possible else frozenset()
        return self._shared[layer]

    def resumes_at(self, block: int) -> bool:
        """Whether a run that starts at this block, on what the blocks below gave, reads as a whole one does."""
        if not block or not self.order.resumable or not self._savings.prefix:
            return False
        if block not in self._resumes:
            self._resumes[block] = self._try_to_resume(block)
        return self._resumes[block]

    # -- trials ------------------------------------------------------------------------------------------------------

    def _most_tokens(self) -> int | None:
        """How many tokens a row may have, whatever its positions are counted from; None: the model does not say."""
        if self._positions is None:
            return None
        behind_pad = self._positions - (self._pad or 0) - 1
        return behind_pad if 2 * behind_pad > self._positions else self._positions  # no model numbers from a late token

    @cached_property
    def _row_inputs(self) -> RowInputs:
        def run(count: int) -> Any:
            first = torch.arange(count, device=self.call.device)
            return self.call(self._words.take(first).inputs)

        return RowInputs(self._modules, run)

    @cached_property
    def _packs(self) -> bool:
        with torch.inference_mode():
            sample = self._sample.choices()
            return packs(sample, self.plain_readout, self._modules, self.call.dtype)

    @cached_property
    def _first_position(self) -> int | None:
        numbers = [0]
        most = max(map(int, self._answers.lengths))
        if self._pad is not None and (self._positions is None or self._pad + most < self._positions):
            numbers.append(self._pad + 1)  # RoBERTa's positions begin behind the number of its padding token
        with torch.inference_mode():
            return first_position(
                self._answers, self.readout, self.order.blocks[0].module, self.call, numbers, self.call.dtype
            )

    def _sees(self, length: int, what: str) -> bool:
        """Whether attention is that of plain texts up to this length; tried at twice the length where that works."""
        for tried, sight in self._sights.items():
            plain = getattr(sight, what)
            if (tried >= length and plain) or (tried <= length and not plain):
                return bool(plain)
        ahead = 1 << (length - 1).bit_length()
        ahead = length if self._longest is None else max(length, min(ahead, self._longest))
        return any(getattr(self._sight(tried), what) for tried in dict.fromkeys((ahead, length)))

    def _sight(self, length: int) -> Sight:
        if length not in self._sights:
            rows = self._sample.long(length)
            stacks = dict.fromkeys(layer.name.rsplit(".", 1)[0] for layer in self._layers)
            blocks = [block for stack in stacks for block in self.call.model.get_submodule(stack).children()]
            with torch.inference_mode():
                real = rows.inputs["attention_mask"].bool()
                self._sights[length] = Sight(real, blocks, lambda: self.call(rows.inputs))
        return self._sights[length]

    def _try_to_skip_stem(self, order: BlockOrder) -> None:
        """Leave the embeddings out of resumed runs where that changes nothing: some models read them again later."""
        sample = self._words
        prefix = order.advance(Prefix(0, {}), 1, lambda: self.call(sample.inputs))

        def poisoned(module: nn.Module) -> tuple[nn.Module, Forward]:
            forward = module.forward
            return module, lambda *args, **kwargs: poison(forward(*args, **kwargs))

        expected = self._resumed(order, prefix, [])
        tried = self._resumed(order, prefix, [poisoned(module) for module in order.stem])
        order.skip_stem = expected is not None and agree(tried, expected, self.call.dtype)

    def _try_to_resume(self, block: int) -> bool:
        prefix = attempt(lambda: self.order.advance(Prefix(0, {}), block, lambda: self.call(self._words.inputs)))
        if prefix is None:
            return False
        expected = self.plain_readout.plain(self._words)
        tried = self._resumed(self.order, prefix, [])
        return agree(tried, expected.expand(2, *expected.shape), self.call.dtype)

    def _resumed(self, order: BlockOrder, prefix: Prefix, more: Sequence[tuple[nn.Module, Forward]]) -> Tensor | None:
        """(2, R, ...) readings of two equal candidates that resume behind ``prefix``."""
        sample, plain = self._words, self.plain_readout

        def read() -> Tensor:
            with patched([*order.resume(prefix, 2), *more]):
                output = self.call({name: tensor.repeat(2, 1) for name, tensor in sample.inputs.items()})
            return plain.read(sample, output, 2)

        with torch.inference_mode():
            return attempt(read)

    def _try_to_share(self, layer: int, block: int) -> frozenset[str]:
        inputs = {name: tensor.repeat(2, 1) for name, tensor in self._words.inputs.items()}
        modules = [module.lora for module in self._layers[layer].modules.values()]
        with torch.inference_mode():
            names = attempt(lambda: shared_maps(self.order.blocks[block], modules, lambda: self.call(inputs)))
        return names or frozenset()

    def _ends_in_answers(self, stack: str) -> bool:
        """Whether answers are read behind this stack: not behind an encoder that alone is adapted."""
        return "decoder_input_ids" not in self._words.inputs or ".decoder." in f".{stack}."


def abilities_of(adapter: TunedModel, rows: Rows, savings: Savings) -> Abilities:
    """What is known of a model for rows that are read like these; kept with the adapter.

    It is found anew for another kind of reading, other arguments of the model or other savings, and where the model
    itself has changed: dtype, device, kind of attention, a forward that somebody has replaced.
    """
    model = adapter.model
    weights = next(part for part in model.parameters() if part.dtype.is_floating_point)
    attention = getattr(model.config, "_attn_implementation", None)
    state = weights.dtype, weights.device, attention, model.__dict__.get("forward")
    key = reading(rows), savings, state
    if key not in adapter.learned:
        adapter.learned[key] = Abilities(adapter, rows, savings)
    known: Abilities = adapter.learned[key]
    return known


def refused(adapter: TunedModel, rows: Rows) -> set[str]:
    """Savings that a comparison on a real batch has ruled out for rows that are read like these; may be added to."""
    names: set[str] = adapter.learned.setdefault((reading(rows), "refused"), set())
    return names


def reading(rows: Rows) -> Hashable:
    """How rows are read: what is found for some holds for all that are read in the same way."""
    kind = "sentences " + rows.pooling if rows.sentences else "words" if rows.targets is None else "choices"
    return kind, frozenset(rows.inputs)


def _padding_and_positions(model: Any) -> tuple[int | None, int | None]:
    """The padding token, and how many positions the model has; None where the configuration does not say."""
    config = model.config.get_text_config()
    pad, positions = getattr(config, "pad_token_id", None), getattr(config, "max_position_embeddings", None)
    return (
        pad if isinstance(pad, int) and pad >= 0 else None,
        positions if isinstance(positions, int) and positions > 0 else None,
    )
