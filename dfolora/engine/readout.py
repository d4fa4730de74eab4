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
from dfolora.engine.patch import Forward, patched
from dfolora.engine.rows import Choices, Rows
from dfolora.engine.trials import agree, attempt, poison


class Readout:
    """How answers are read from one model.

    Attributes:
        backbone: the module whose ``last_hidden_state`` is cut to the answer positions; None: the model gives all.
        cut_head: whether the head computes label tokens only.
        thin: linear maps of the last block that compute the answer positions only.
        last: the last block, where its attention computes the answer positions only; None: it computes all.
        unread: adapted linear maps of the last block of whose outputs only the answer positions are read (the query).

    The last three are used on rows that are read at one position.
    """

    def __init__(self, model: Any, run: Callable[[dict[str, Tensor]], Any]) -> None:
        """Read plainly, until one of the two methods below has found out more.

        Args:
            model: the unwrapped model.
            run: one forward of the model.
        """
        self.backbone: nn.Module | None = None
        self.cut_head = False
        self.thin: list[nn.Module] = []
        self.last: nn.Module | None = None
        self.unread: set[nn.Module] = set()
        self.head: Any = getattr(model, "get_output_embeddings", lambda: None)()
        self._model, self._run = model, run
        self._dtype = next(part.dtype for part in model.parameters() if part.dtype.is_floating_point)

    def cut_to_answers(self, sample: Rows, label_columns: bool) -> None:
        """Try to let only answer positions reach the head, and only label tokens leave it; the cheapest way first.

        Args:
            sample: rows to try on.
            label_columns: whether the head may be cut, too.
        """
        if sample.sentences:
            return
        expected = self.plain(sample)
        for backbone in _backbones(self._model):
            for cut_head in (True, False) if label_columns else (False,):
                if cut_head and (sample.columns is None or type(self.head) is not nn.Linear):
                    continue
                self.backbone, self.cut_head = backbone, cut_head
                if self._agrees(sample, expected):
                    return
        self.backbone, self.cut_head = None, False

    def thin_out(self, sample: Rows, last: nn.Module, adapted: Collection[nn.Module]) -> None:
        """Let the last block compute the answer position only, one linear map after the other, where scores stay equal.

        A map's input is cut to the answer row; the residual that is added to its output broadcasts, which makes rows
        that nobody reads wrong and leaves the answer row right. Maps that all rows are needed for (key, value) change
        the scores, or do not fit the shapes, and are left as they are.

        Args:
            sample: rows to try on, read at one position each.
            last: the last block to run.
            adapted: its modules with an adapter; the parts of these are left alone.
        """
        if self.backbone is None or sample.positions.shape[1] != 1:
            return
        expected = self.plain(sample)
        parts = {part for module in adapted for part in module.modules()}
        for module in last.modules():
            if type(module).__name__ not in ("Linear", "Conv1D") or module in parts:
                continue
            if self._agrees(sample, expected, [(module, self._poisoned(sample, module))]):
                self.thin.append(module)
                if not self._agrees(sample, expected):
                    self.thin.pop()
        self.last = last
        if not self._agrees(sample, expected):
            self.last = None
        for module in adapted:
            # What a block does with its output shows only when it is tried: some add to it in place.
            one = self._answer_rows(module.forward, sample, 1)
            poisoned = self._poisoned(sample, module)
            if all(self._agrees(sample, expected, [(module, forward)]) for forward in (poisoned, one)):
                self.unread.add(module)

    def plain(self, rows: Rows) -> Tensor:
        """(R, ...) what the model gives with nothing cut short."""
        return Readout(self._model, self._run).read(rows, self._run(rows.inputs), 1)[0]

    def _poisoned(self, sample: Rows, module: Any) -> Forward:
        """A forward that gives NaN wherever no answer is read."""
        forward, positions, tokens = module.forward, sample.positions, _tokens(sample)

        def poisoned(x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
            y = forward(x, *args, **kwargs)
            if y.dim() != 3 or y.shape[1] != tokens:
                return poison(y) if y.shape[1] != 1 else y  # answers only: nothing is left to go
            spared = torch.zeros(y.shape[:-1], dtype=torch.bool, device=y.device).scatter_(1, positions, True)
            return poison(y, spared)

        return poisoned

    def agrees(self, sample: Rows, more: Sequence[tuple[nn.Module, Forward]] = ()) -> bool:
        """Whether reading as set up now gives what the plain model gives on some rows.

        Args:
            sample: the rows.
            more: what else to patch.
        """
        return self._agrees(sample, self.plain(sample), more)

    def _agrees(self, sample: Rows, expected: Tensor, more: Sequence[tuple[nn.Module, Forward]] = ()) -> bool:
        def read() -> Tensor:
            with patched([*self.replacements(sample, 1), *more]):
                return self.read(sample, self._run(sample.inputs), 1)[0]

        return agree(attempt(read), expected, self._dtype)

    def ends_in_answers(self, rows: Rows) -> bool:
        """Whether the last block computes the answer positions only, for rows such as these."""
        return rows.positions.shape[1] == 1 and not rows.sentences

    def answer_rows(self, module: nn.Module, forward: Forward, rows: Rows, copies: int) -> Forward:
        """``forward`` of an adapted module, on the answer positions only where that is enough."""
        if module not in self.unread or not self.ends_in_answers(rows):
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

        if not self.ends_in_answers(rows):
            return replacements
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
                return states[:, :, rows.leading].float()
            mask = rows.inputs["attention_mask"].float()
            if rows.leading:
                mask = nn.functional.pad(mask[:, rows.leading :], (rows.leading, 0))
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
