"""A loss for ``FullParameter`` from a task's rows: plain forwards of the model as it stands."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from dfolora.engine import Engine, Rows
from dfolora.models.bare import Bare
from dfolora.models.load import LanguageModel
from dfolora.problems.objectives import Objective, cross_entropy, likelihood


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
        rows: what ``PromptEncoder.encode`` gives.
        labels: (N,) int64, what ``PromptEncoder.labels`` gives.
        objective: scores (1, N, C) and labels to losses (1,) or (1, N); None: cross-entropy, that of the
            answers' tokens where no example has two to choose from.
        chunk_tokens: most padded tokens in one forward; 0: what is fastest and fits.

    Returns:
        () -> 0-dimensional float32 tensor.
    """
    engine = Engine(Bare(language_model), rows, chunk_tokens)
    labels = labels.to(engine.rows.owner.device)
    lower = objective or (likelihood if int(rows.classes.max()) == 1 else cross_entropy)
    return lambda: lower(engine.incumbent_scores()[None], labels).mean()
