"""A loss for ``FullParameter`` from a task's rows: plain forwards of the model as it stands."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from dfolora.engine import Levers, Rows, memory
from dfolora.engine.patch import patched
from dfolora.engine.readout import Readout
from dfolora.engine.rows import buckets
from dfolora.models import LanguageModel
from dfolora.objectives import Objective, cross_entropy, likelihood

_LAUNCH_TOKENS = 16  # the price of another forward: next to nothing, beside a pass over all weights


def rows_loss(
    language_model: LanguageModel,
    rows: Rows,
    labels: Tensor,
    objective: Objective | None = None,
    chunk_tokens: int = 0,
) -> Callable[[], Tensor]:
    """The function that asks the model as it stands for its loss on a batch.

    Only answer positions reach the language-model head, only label tokens leave it: their logits, not the weights, are
    what would take the memory. Class scores and loss are float32 whatever the model's dtype.

    Args:
        language_model: the model that is tuned; of any kind.
        rows: what ``Scorer.encode`` gives.
        labels: (N,) int64, what ``Scorer.labels`` gives.
        objective: scores (1, N, C) and labels to losses (1,); None: cross-entropy, that of the answers' tokens where no
            example has two to choose from.
        chunk_tokens: most padded tokens in one forward; 0: what is fastest and fits.

    Returns:
        () -> 0-dimensional float32 tensor.
    """
    model: Any = language_model.model
    device = language_model.device
    rows, labels = rows.to(device), labels.to(device)
    lower = objective or (likelihood if int(rows.classes.max()) == 1 else cross_entropy)
    options = (
        {"use_cache": False} if not rows.sentences and getattr(model.config, "use_cache", None) is not None else {}
    )

    def run(inputs: dict[str, Tensor]) -> Any:
        return model(**inputs, **options, return_dict=True)

    limit = chunk_tokens or memory.chunk_tokens(model, device)
    cuts = buckets(rows.lengths.tolist(), limit, _LAUNCH_TOKENS)
    parts = [rows.take(torch.tensor(cut, device=device)) for cut in cuts]
    order = torch.tensor([row for cut in cuts for row in cut], device=device).argsort()
    with torch.no_grad():
        few = rows.take(rows.lengths.argsort(descending=True, stable=True)[:3])
        readout = Readout(model, few, run, Levers())

    @torch.no_grad()
    def loss() -> Tensor:
        readings = []
        for part in parts:
            # Made anew each time: the columns of the head are copies, and the head is tuned too.
            with patched(readout.replacements(part, 1)):
                readings.append(readout.read(part, run(part.inputs), 1))
        return lower(rows.assemble(torch.cat(readings, 1)[:, order]), labels)[0]

    return loss
