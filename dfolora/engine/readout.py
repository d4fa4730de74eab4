"""Read class scores out of a model: only answer positions reach the head, only label tokens leave it; in the last block
only answer positions are computed where that is enough.

Which module's output the head reads, and whether the head can be cut to the label tokens, differs between
architectures (OPT calls its decoder directly; BART adds a bias of vocabulary size after the head). Nothing is assumed:
each way is tried on a few rows and kept only where it gives what the plain model gives.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from dfolora.engine.attention import answer_attention
from dfolora.engine.levers import Levers
from dfolora.engine.patch import Forward, patched
from dfolora.engine.rows import Choices, Rows


class Readout:
    """How answers are read from one model.

    Attributes:
        backbone: the module whose ``last_hidden_state`` is cut to the answer positions; None: none was found to work.
        cut_head: whether the head computes label tokens only.
        thin: linear maps of the last block that compute the answer positions only.
        last: the last block, where its attention computes the answer positions only; None: it computes all.
        unread: adapted linear maps of the last block of whose outputs only the answer positions are read (the query).
    """

    def __init__(
        self, model: Any, few: Rows, run: Callable[[dict[str, Tensor]], Any], levers: Levers | None = None
    ) -> None:
        """Try the ways to read, cheapest first.

        Args:
            model: the unwrapped model.
            few: some rows to try on.
            run: one forward of the model.
            levers: which savings may be tried; None: all.
        """
        self.backbone: nn.Module | None = None
        self.cut_head = False
        self.thin: list[nn.Module] = []
        self.last: nn.Module | None = None
        self.unread: set[nn.Module] = set()
        self.head: Any = None
        self._run = run
        levers = levers or Levers()
        self._tolerance = 1e-3 if next(model.parameters()).dtype == torch.float32 else 0.05
        if few.sentences or not levers.answer_rows:
            return
        self.head = model.get_output_embeddings()
        self._few = few
        self._plain = self.read(few, run(few.inputs), 1)
        for backbone in _backbones(model):
            for cut_head in (True, False) if levers.label_columns else (False,):
                self.backbone, self.cut_head = backbone, cut_head
                if cut_head and (few.columns is None or type(self.head) is not nn.Linear):
                    continue
                if self._agrees():
                    return
        self.backbone, self.cut_head = None, False

    def thin_out(self, last: nn.Module, adapted: Collection[nn.Module]) -> None:
        """Let the last block compute the answer position only, one linear map after the other, where scores stay equal.

        A map's input is cut to the answer row; the residual that is added to its output broadcasts, which makes rows
        that nobody reads wrong and leaves the answer row right. Maps that all rows are needed for (key, value) change
        the scores, or do not fit the shapes, and are left as they are.

        Args:
            last: the last block to run.
            adapted: its modules with an adapter; the parts of these are left alone.
        """
        if self.backbone is None or self._few.positions.shape[1] != 1:
            return
        parts = {part for module in adapted for part in module.modules()}
        for module in last.modules():
            if type(module).__name__ not in ("Linear", "Conv1D") or module in parts:
                continue
            if self._agrees([(module, self._poisoned(module))]):
                self.thin.append(module)
                if not self._agrees():
                    self.thin.pop()
        self.last = last
        if not self._agrees():
            self.last = None
        for module in adapted:
            # What a block does with its output shows only when it is tried: some add to it in place.
            one = self._answer_rows(module.forward, self._few, 1)
            if self._agrees([(module, self._poisoned(module))]) and self._agrees([(module, one)]):
                self.unread.add(module)

    def _poisoned(self, module: Any) -> Forward:
        """A forward that gives NaN wherever no answer is read: whoever reads such a row cannot hide it."""
        forward, positions, tokens = module.forward, self._few.positions, _tokens(self._few)

        def poison(x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
            y = forward(x, *args, **kwargs)
            if y.dim() != 3 or y.shape[1] != tokens:
                return torch.full_like(y, torch.nan) if y.shape[1] != 1 else y  # answers only: nothing is left to go
            keep = torch.zeros(y.shape[:-1], dtype=torch.bool, device=y.device).scatter_(1, positions, True)
            return y.masked_fill(~keep[..., None], torch.nan)

        return poison

    def answer_rows(self, module: nn.Module, forward: Forward, rows: Rows, copies: int) -> Forward:
        """``forward`` of an adapted module, on the answer positions only where that is enough."""
        if module not in self.unread:
            return forward
        return self._answer_rows(forward, rows, copies)

    @staticmethod
    def _answer_rows(forward: Forward, rows: Rows, copies: int) -> Forward:
        positions, tokens = rows.positions[:, 0].repeat(copies), _tokens(rows)
        row = torch.arange(len(positions), device=positions.device)

        def one(x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
            if x.dim() != 3 or x.shape[:2] != (len(positions), tokens):
                return forward(x, *args, **kwargs)
            return forward(x[row, positions][:, None], *args, **kwargs).expand(-1, tokens, -1)

        return one

    def _agrees(self, more: Sequence[tuple[nn.Module, Forward]] = ()) -> bool:
        """Whether reading as set up now gives what the plain model gives on the few rows."""
        try:
            with patched([*self.replacements(self._few, 1), *more]):
                tried = self.read(self._few, self._run(self._few.inputs), 1)
        except (RuntimeError, IndexError, AttributeError):
            return False
        return self.close(tried, self._plain)

    def ignores_full_mask(self, row: Rows) -> bool:
        """Whether one row, which has no padding, reads the same without its attention mask."""
        inputs = {name: tensor for name, tensor in row.inputs.items() if name != "attention_mask"}
        with patched(self.replacements(row, 1)):
            expected = self.read(row, self._run(row.inputs), 1)
            try:
                return self.close(self.read(row, self._run(inputs), 1), expected)
            except (RuntimeError, TypeError, ValueError, AttributeError):
                return False

    def close(self, tried: Tensor, expected: Tensor) -> bool:
        """Whether two readings are equal up to rounding."""
        return torch.allclose(tried, expected, rtol=self._tolerance, atol=self._tolerance * float(expected.abs().max()))

    def replacements(self, rows: Rows, copies: int) -> list[tuple[nn.Module, Forward]]:
        """What to patch for a forward of ``copies`` candidates on these rows."""
        if self.backbone is None:
            return []
        run_backbone = self.backbone.forward
        positions = rows.positions.repeat(copies, 1)  # (copies R, K)
        row, tokens = torch.arange(len(positions), device=positions.device)[:, None], _tokens(rows)

        def backbone(*args: Any, **kwargs: Any) -> Any:
            output = run_backbone(*args, **kwargs)
            output.last_hidden_state = output.last_hidden_state[row, positions]  # (copies R, K, H)
            return output

        replacements: list[tuple[nn.Module, Forward]] = [(self.backbone, backbone), *self.label_head(rows)]

        def thin(module: nn.Module) -> tuple[nn.Module, Forward]:
            whole = module.forward
            return module, lambda x: whole(x[row, positions] if x.dim() == 3 and x.shape[1] == tokens > 1 else x)

        if self.last is not None:
            replacements.append((self.last, answer_attention(self.last, positions[:, 0], tokens)))
        return replacements + [thin(module) for module in self.thin]

    def label_head(self, rows: Rows) -> list[tuple[nn.Module, Forward]]:
        """The head that computes label tokens only, where that is enough."""
        if not self.cut_head:
            return []
        weight = self.head.weight[rows.columns]
        bias = None if self.head.bias is None else self.head.bias[rows.columns]
        return [(self.head, lambda x: nn.functional.linear(x, weight, bias))]

    def read(self, rows: Rows, output: Any, copies: int) -> Tensor:
        """What ``Rows.assemble`` takes, for ``copies`` candidates; float32.

        Returns:
            (copies, R, C) label logits; (copies, R) mean log-probabilities, (copies, R, S) for rows of S choices; or
            (copies, R, H) pooled vectors.
        """
        if rows.sentences:
            states = output.last_hidden_state.view(copies, rows.count, -1, output.last_hidden_state.shape[-1])
            if rows.pooling == "cls":
                return states[:, :, 0].float()
            mask = rows.inputs["attention_mask"].float()
            # A product with the averaging weights instead of a masked copy of all states.
            weights = (mask / mask.sum(1, keepdim=True)).to(states.dtype)
            return torch.einsum("prth,rt->prh", states, weights).float()
        logits = output.logits.view(copies, rows.count, -1, output.logits.shape[-1])
        if self.backbone is None:  # the model gave all positions
            logits = logits[:, torch.arange(rows.count, device=logits.device)[:, None], rows.positions]
        logits = logits.float()  # (copies, R, K, V or C)
        if rows.columns is not None:
            return logits[:, :, 0] if self.cut_head else logits[:, :, 0, rows.columns]
        assert rows.targets is not None, "rows without label words have answer tokens"
        known = rows.targets >= 0
        if rows.choices is not None:
            return _choice_means(logits, rows.targets, known, rows.choices)
        target = rows.targets.clamp(min=0).expand(copies, -1, -1)[..., None]
        log_probability = logits.gather(-1, target)[..., 0] - logits.logsumexp(-1)  # (copies, R, K)
        return (log_probability * known).sum(-1) / known.sum(-1)


def _choice_means(logits: Tensor, targets: Tensor, known: Tensor, choices: Choices) -> Tensor:
    """(copies, R, S): the mean log-probability of each choice of a row; 0 where it has fewer than S.

    Args:
        logits: (copies, R, U, V) at each place that is read.
        targets, known: (R, K) answer tokens, and where there are any.
        choices: which place and which choice each answer token belongs to.
    """
    row = torch.arange(logits.shape[1], device=logits.device)[:, None]
    value = logits[:, row, choices.at, targets.clamp(min=0)] - logits.logsumexp(-1)[:, row, choices.at]
    sums = value.new_zeros(len(logits), *choices.classes.shape)
    sums = sums.scatter_add(-1, choices.choice.expand_as(value), value * known)
    counts = torch.zeros_like(sums[0]).scatter_add_(-1, choices.choice, known.to(sums.dtype))
    return sums / counts.clamp(min=1)


def _tokens(rows: Rows) -> int:
    """T of the sequences that are answered in: the decoder's, if there is one. Positions lie below it."""
    return int(rows.inputs["decoder_input_ids" if "decoder_input_ids" in rows.inputs else "input_ids"].shape[1])


def _backbones(model: Any) -> list[nn.Module]:
    """Modules that may feed the head, the likeliest first."""
    candidates: list[Any] = [model.base_model]
    if hasattr(model, "get_decoder"):
        candidates.insert(0 if model.config.is_encoder_decoder else 1, model.get_decoder())
    return [c for c in candidates if isinstance(c, nn.Module) and c is not model]
