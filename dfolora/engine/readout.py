"""Read class scores out of a model: only answer positions reach the head, only label tokens leave it.

Which module's output the head reads, and whether the head can be cut to the label tokens, differs between
architectures (OPT calls its decoder directly; BART adds a bias of vocabulary size after the head). Nothing is assumed:
each way is tried on a few rows and kept only where it gives what the plain model gives.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from dfolora.engine.patch import Forward, patched
from dfolora.engine.rows import Rows


class Readout:
    """How answers are read from one model.

    Attributes:
        backbone: the module whose ``last_hidden_state`` is cut to the answer positions; None: none was found to work.
        cut_head: whether the head computes label tokens only.
    """

    def __init__(self, model: Any, few: Rows, run: Callable[[dict[str, Tensor]], Any]) -> None:
        """Try the ways to read, cheapest first.

        Args:
            model: the unwrapped model.
            few: some rows to try on.
            run: one forward of the model.
        """
        self.backbone: nn.Module | None = None
        self.cut_head = False
        self.head: Any = None
        if few.sentences:
            return
        self.head = model.get_output_embeddings()
        plain = self.read(few, run(few.inputs), 1)
        tolerance = 1e-3 if plain.dtype == torch.float32 and next(model.parameters()).dtype == torch.float32 else 0.05
        for backbone in _backbones(model):
            for cut_head in (True, False):
                self.backbone, self.cut_head = backbone, cut_head
                if cut_head and (few.columns is None or type(self.head) is not nn.Linear):
                    continue
                try:
                    with patched(self.replacements(few, 1)):
                        tried = self.read(few, run(few.inputs), 1)
                except (RuntimeError, IndexError, AttributeError):
                    continue
                if torch.allclose(tried, plain, rtol=tolerance, atol=tolerance * float(plain.abs().max())):
                    return
        self.backbone, self.cut_head = None, False

    def replacements(self, rows: Rows, copies: int) -> list[tuple[nn.Module, Forward]]:
        """What to patch for a forward of ``copies`` candidates on these rows."""
        if self.backbone is None:
            return []
        run_backbone = self.backbone.forward
        positions = rows.positions.repeat(copies, 1)  # (copies R, K)
        row = torch.arange(len(positions), device=positions.device)[:, None]

        def backbone(*args: Any, **kwargs: Any) -> Any:
            output = run_backbone(*args, **kwargs)
            output.last_hidden_state = output.last_hidden_state[row, positions]  # (copies R, K, H)
            return output

        replacements: list[tuple[nn.Module, Forward]] = [(self.backbone, backbone)]
        if self.cut_head:
            weight = self.head.weight[rows.columns]
            bias = None if self.head.bias is None else self.head.bias[rows.columns]
            replacements.append((self.head, lambda x: nn.functional.linear(x, weight, bias)))
        return replacements

    def read(self, rows: Rows, output: Any, copies: int) -> Tensor:
        """(copies, R, C) label logits, (copies, R) mean log-probabilities or (copies, R, H) pooled vectors, float32."""
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
        target = rows.targets.clamp(min=0).expand(copies, -1, -1)[..., None]
        log_probability = logits.gather(-1, target)[..., 0] - logits.logsumexp(-1)  # (copies, R, K)
        return (log_probability * known).sum(-1) / known.sum(-1)


def _backbones(model: Any) -> list[nn.Module]:
    """Modules that may feed the head, the likeliest first."""
    candidates: list[Any] = [model.base_model]
    if hasattr(model, "get_decoder"):
        candidates.insert(0 if model.config.is_encoder_decoder else 1, model.get_decoder())
    return [c for c in candidates if isinstance(c, nn.Module) and c is not model]
