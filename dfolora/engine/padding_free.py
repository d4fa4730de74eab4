"""A batch without padding: every real token is a row of its own, and attention alone knows which belong together.

The model is called with S rows of one token instead of R rows of T, S being the number of real tokens. All its maps
work token by token and notice nothing; positions are given; attention, replaced for the length of the call, puts the
tokens of each sequence together again: on CUDA by torch's kernel for sequences of various lengths (``varlen_attn``, for
16-bit numbers), elsewhere sequence by sequence. Candidates, the prefix cache and minibatches count rows and need not
know.

Which models can do that (attention from transformers' registry with no bias of its own, positions as an argument) is
found by watching and trying, not by a list of names.
"""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from dfolora.engine.attention import attending, is_causal
from dfolora.engine.patch import Forward, Stop, patched
from dfolora.engine.readout import Readout
from dfolora.engine.rows import Rows
from dfolora.engine.trials import agree, attempt, poison

# How far what the first block is given may be from what it is given in a padded row, in units of rounding. In low
# precision positions next to each other look alike, and readings would not tell which are right.
INPUT_ROUNDING = 4

Attention = Callable[[Tensor, Tensor, Tensor, bool, float | None], Tensor]


class PaddingFree:
    """The real tokens of some rows.

    Attributes:
        rows: the R padded rows that they come from.
        inputs: the model's arguments, each (S, 1), the sequences one after another.
    """

    def __init__(self, rows: Rows, first_position: int, dtype: torch.dtype) -> None:
        """Take the tokens out.

        Args:
            rows: padded on the right.
            first_position: the number that the model gives to a sequence's first token.
            dtype: the model's.
        """
        self.rows = rows
        self._first, self._dtype = first_position, dtype
        real = rows.inputs["attention_mask"].bool()
        self._row, self._column = real.nonzero(as_tuple=True)
        ends = real.sum(1).cumsum(0)
        self._bounds = [0, *ends.tolist()]
        self._ends = ends
        self.inputs = {name: part[real][:, None] for name, part in rows.inputs.items() if name != "attention_mask"}
        self.inputs["position_ids"] = (self._column + first_position)[:, None]

    def pick(self, rows: Tensor) -> tuple[PaddingFree, Tensor]:
        """The tokens of some rows, ascending, and where they stand among these."""
        index = torch.isin(self._row, rows).nonzero()[:, 0]
        return PaddingFree(self.rows.pick(rows), self._first, self._dtype), index

    def run(self, forward: Callable[[dict[str, Tensor]], Any], copies: int) -> Any:
        """One forward of ``copies`` candidates, candidate-major."""
        # A ready mask of one element, which models pass on to attention, where it is ignored.
        mask = torch.zeros(1, 1, 1, 1, dtype=self._dtype, device=self._row.device)
        inputs = {name: part.repeat(copies, 1) for name, part in self.inputs.items()}
        with attending(self._attention(copies)):
            return forward({**inputs, "attention_mask": mask})

    def replacements(
        self, readout: Readout, lora: list[tuple[nn.Module, Forward]], copies: int, poisoned: bool = False
    ) -> list[tuple[nn.Module, Forward]]:
        """What to patch for it: the adapted modules, and what ``readout``, which found it on padded rows, cuts short.

        Args:
            readout: of the model.
            lora: the adapted modules.
            copies: P of this forward.
            poisoned: put NaN and not 0 where nobody is to look (``trials.poison``).
        """
        if readout.backbone is None:
            return lora
        run_backbone = readout.backbone.forward
        hidden = int(readout.backbone.config.get_text_config().hidden_size)  # type: ignore[union-attr, operator]
        starts = self._ends - self.rows.inputs["attention_mask"].sum(1)
        shift = len(self._row) * torch.arange(copies, device=starts.device)[:, None, None]
        answers = (shift + (starts[:, None] + self.rows.positions)).flatten(0, 1)  # (copies R, K) among the tokens
        total = copies * len(self._row)

        def backbone(*args: Any, **kwargs: Any) -> Any:
            output = run_backbone(*args, **kwargs)
            output.last_hidden_state = output.last_hidden_state[:, 0][answers]  # (copies R, K, H)
            return output

        def among_all(y: Tensor) -> Tensor:
            """What was computed for answers, in its place among all tokens."""
            filled = y.new_zeros(total, *y.shape[1:])
            filled = poison(filled) if poisoned else filled
            filled[answers[:, 0]] = y
            return filled

        def thin(module: nn.Module) -> tuple[nn.Module, Forward]:
            whole = module.forward

            def run(x: Tensor) -> Tensor:
                y = whole(x[answers[:, 0]] if len(x) == total else x)
                # What is as wide as the hidden states is added to those of all tokens.
                return among_all(y) if y.shape[-1] == hidden else y

            return module, run

        def unread(module: nn.Module, forward: Forward) -> tuple[nn.Module, Forward]:
            if not short or module not in readout.unread:
                return module, forward
            return module, lambda x, *args, **kwargs: among_all(forward(x[answers[:, 0]], *args, **kwargs))

        short = readout.ends_in_answers(self.rows)
        adapted = [unread(module, forward) for module, forward in lora]
        thinned = list(map(thin, readout.thin)) if short else []
        return [*adapted, (readout.backbone, backbone), *readout.label_head(self.rows), *thinned]

    def read(self, readout: Readout, output: Any, copies: int) -> Tensor:
        """(copies, R, ...): readings of what the model gave."""
        if self.rows.sentences:
            output.last_hidden_state = self._padded(output.last_hidden_state[:, 0].unflatten(0, (copies, -1)))
        return readout.read(self.rows, output, copies)

    def _padded(self, states: Tensor) -> Tensor:
        """(copies, S, H) -> (copies R, T, H), 0 where there is no token."""
        shape = self.rows.inputs["attention_mask"].shape
        filled = states.new_zeros(len(states), *shape, states.shape[-1])
        filled[:, self._row, self._column] = states
        return filled.flatten(0, 1)

    def _attention(self, copies: int) -> Forward:
        """An attention that joins the tokens of each sequence."""
        attention = self._varlen(copies) if self._row.is_cuda else self._one_by_one(copies)

        def attend(
            module: nn.Module, query: Tensor, key: Tensor, value: Tensor, attention_mask: Tensor | None, **options: Any
        ) -> tuple[Tensor, None]:
            q, k, v = query[:, :, 0], key[:, :, 0], value[:, :, 0]  # (copies S, heads, width)
            if len(k[0]) != len(q[0]):  # groups of heads share a key and a value
                k, v = (part.repeat_interleave(len(q[0]) // len(k[0]), 1) for part in (k, v))
            return attention(q, k, v, is_causal(module, options), options.get("scaling"))[:, None], None

        return attend

    def _varlen(self, copies: int) -> Attention:
        from torch.nn.attention.varlen import varlen_attn  # not in every torch that will do

        shift = len(self._row) * torch.arange(copies, device=self._ends.device)[:, None]
        ends = (shift + self._ends).flatten()
        bounds = torch.cat([ends.new_zeros(1), ends]).int()
        longest = max(end - start for start, end in itertools.pairwise(self._bounds))

        def attention(q: Tensor, k: Tensor, v: Tensor, causal: bool, scale: float | None) -> Tensor:
            window = (-1, 0 if causal else -1)
            output = varlen_attn(
                q.contiguous(), k.contiguous(), v.contiguous(), bounds, bounds, longest, longest, scale=scale,
                window_size=window,
            )  # fmt: skip
            assert isinstance(output, Tensor), "varlen_attn returns more only where it is asked for"
            return output

        return attention

    def _one_by_one(self, copies: int) -> Attention:
        attend = nn.functional.scaled_dot_product_attention

        def attention(q: Tensor, k: Tensor, v: Tensor, causal: bool, scale: float | None) -> Tensor:
            output = torch.empty_like(q)
            whole = [part.unflatten(0, (copies, -1)).transpose(1, 2) for part in (q, k, v, output)]
            for start, end in itertools.pairwise(self._bounds):
                one = [part[:, :, start:end] for part in whole]  # (copies, heads, length, width)
                one[3].copy_(attend(one[0], one[1], one[2], is_causal=causal, scale=scale))
            return output

        return attention


def first_position(
    sample: Rows, readout: Readout, first_block: nn.Module, run: Callable[[dict[str, Tensor]], Any],
    numbers: Sequence[int], dtype: torch.dtype,
) -> int | None:  # fmt: skip
    """The number that a model gives to the first token, where it reads tokens as rows of their own as it reads rows.

    Args:
        sample: some padded rows of several lengths.
        readout: of the model, on padded rows.
        first_block: the first block of the model to run.
        run: one forward of the model.
        numbers: those to try; a position that the model does not have must not come of any, for a GPU cannot forget it.
        dtype: the model's.

    Returns:
        None where the model cannot do it: no argument for positions, an adapted map that needs what is left out; or
        where nothing is there to run it on this device. That its attention is that of plain sequences (``Sight``) is
        for the caller to see to.
    """
    if not set(sample.inputs) <= {"input_ids", "attention_mask", "token_type_ids"}:
        return None
    if readout.backbone is None and not sample.sentences:
        return None
    expected = readout.plain(sample)

    def number_that_agrees() -> int | None:
        tokens = {first: PaddingFree(sample, first, dtype) for first in numbers}
        differences = {first: _input_difference(part, first_block, run) for first, part in tokens.items()}
        first = min(differences, key=lambda first: differences[first])
        if differences[first] > INPUT_ROUNDING:
            return None
        return first if agree(_read(tokens[first], readout, run)[0], expected, dtype) else None

    return attempt(number_that_agrees)


def _read(tokens: PaddingFree, readout: Readout, run: Callable[[dict[str, Tensor]], Any]) -> Tensor:
    unread = [(module, module.forward) for module in readout.unread]
    with patched(tokens.replacements(readout, unread, 1, poisoned=True)):
        output = tokens.run(run, 1)
    return tokens.read(readout, output, 1)


def _input_difference(tokens: PaddingFree, block: nn.Module, run: Callable[[dict[str, Tensor]], Any]) -> float:
    """How far what the first block is given for a token is from what it is given in that token's padded row.

    Hidden states and rotary tables alike, in units of rounding.
    """
    real = tokens.rows.inputs["attention_mask"].bool()
    padded = _arguments(block, lambda: run(tokens.rows.inputs))
    single = _arguments(block, lambda: tokens.run(run, 1))
    differences = []
    for whole, one in zip(padded, single, strict=True):
        if whole.shape[1] == real.shape[1]:
            expected = whole.expand(len(real), -1, -1)[real]
            rounding = torch.finfo(expected.dtype).eps * expected.abs().max()
            differences.append(float((one[:, 0].expand_as(expected) - expected).abs().max() / rounding))
    return max(differences)


def _arguments(block: nn.Module, run: Callable[[], Any]) -> list[Tensor]:
    """The tensors of three dimensions that a block is called with: hidden states, rotary tables."""
    tensors: list[Tensor] = []

    def stop(*args: Any, **kwargs: Any) -> Any:
        for value in (*args, *kwargs.values()):
            parts: Sequence[Any] = value if isinstance(value, tuple) else (value,)
            tensors.extend(part for part in parts if isinstance(part, Tensor) and part.dim() == 3)
        raise Stop

    with contextlib.suppress(Stop), patched([(block, stop)]):
        run()
    return tensors
