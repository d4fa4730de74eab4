"""The problem that a method minimises: a model's loss on the few-shot set, beside a dev set that selects."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from typing import Any, Generic, TypeVar

import torch
from torch import Tensor

from dfolora.engine import Engine, Rows
from dfolora.errors import UserError
from dfolora.models.adapter import Factors
from dfolora.models.checksum import sum_of_bits
from dfolora.models.tuned import TunedModel
from dfolora.optimizers import Evaluation
from dfolora.problems.answers import Answers
from dfolora.problems.encode import PromptEncoder
from dfolora.problems.objectives import (
    Objective,
    check_result,
    cross_entropy,
    loss_of_scores,
    make_objective,
    mean_of,
)
from dfolora.problems.selection import Selection
from dfolora.seeds import seed_of
from dfolora.task import Example

Tuned = TypeVar("Tuned", bound=TunedModel)
MakeEngine = Callable[[Any, Rows, int], Engine]


class Problem(Generic[Tuned]):
    """What a method minimises: the loss of a model on a few-shot set, with a dev set beside it.

    Attributes:
        adapter: what is tuned, as it stands; saving goes through it.
        engine: scores the few-shot set, and counts what that costs.
        selection: the dev set, and the best that it has seen.
        data_checksum: of the encoded sets, their labels and the model's weights.
    """

    def __init__(
        self,
        adapter: Tuned,
        encoder: PromptEncoder,
        train: Sequence[Example],
        dev: Sequence[Example],
        objective: str | Objective = "cross-entropy",
        batch: int | None = None,
        seed: int = 0,
        shown: str = "incumbent",
        chunk_tokens: int | None = None,
        make_engine: MakeEngine = Engine,
    ) -> None:
        """Encode the examples.

        Args:
            adapter: LoRA modules on a model, or the bare model.
            encoder: turns the task's examples into rows.
            train: the few-shot set, N examples.
            dev: the examples that select.
            objective: name or function, see ``objectives``.
            batch: examples of a minibatch; None: all N.
            seed: of the minibatches.
            shown: what the dev set is shown, see ``Selection``.
            chunk_tokens: most tokens in one forward; None: what is fastest and fits.
            make_engine: (adapter, rows, chunk_tokens) -> the engine of the few-shot set.

        Raises:
            UserError: an objective that cannot work, a prompt that does not fit.
        """
        self.adapter = adapter
        self.encoder = encoder
        self.train = train
        self.batch = batch
        self.seed = seed
        self._objective = make_objective(objective, encoder.task)
        rows = encoder.encode(train)
        self.selection = Selection(adapter, encoder, dev, shown, chunk_tokens or 0)
        self.engine = make_engine(adapter, rows, chunk_tokens or 0)
        self.device = self.engine.rows.owner.device
        self.labels = encoder.labels(train).to(self.device)
        self.data_checksum = digest([rows, self.selection.rows], [self.labels, self.selection.labels], adapter.model)
        self.answers: Answers | None = None
        if encoder.task.new_tokens and objective == "metric":  # of texts, which no class scores can tell
            self.answers = Answers(self.engine, encoder, train)
        if objective == "likelihood" and rows.targets is None:
            raise UserError(
                "objective: likelihood is for answers of several tokens, whose scores are log-probabilities; this task "
                "has label words or sentences: choose cross-entropy, hinge or metric"
            )

    def check_base(self) -> None:
        """Raise UserError if the base model's loss is not a number."""
        loss = cross_entropy(self.engine.incumbent_scores()[None], self.labels).mean(-1)
        if not bool(loss.isfinite().all()):
            dtype = str(next(self.adapter.model.parameters()).dtype).removeprefix("torch.")
            raise UserError(f"dtype: the model's own loss is {float(loss)} in {dtype}; try float32")

    def draw(self, generation: int) -> Tensor | None:
        """Draw the minibatch of a generation: (n,) int64, ascending, by the seed alone; None: all examples."""
        if self.batch is None:
            return None
        generator = torch.Generator().manual_seed(seed_of(self.seed, f"batch {generation}"))
        return torch.randperm(len(self.train), generator=generator)[: self.batch].sort().values

    def evaluate(self, edits: Factors, batch: Tensor | None = None, wants: str = "losses") -> Evaluation:
        """Score P candidates in as few forwards as possible.

        Args:
            edits: module name -> the candidates' factors; all else stays at the incumbent.
            batch: (n,) int64, a minibatch; None: all N examples.
            wants: ``losses``, ``example_losses`` or ``scores``: what the optimizer needs to see.

        Raises:
            UserError: the objective gives no such thing.
        """
        if self.answers is not None:
            return Evaluation(self.answers.losses(edits, batch))
        scores = self.engine.scores(edits, batch)
        objective, labels = self.objective(batch)
        losses = check_result(objective(scores, labels), scores)
        total = mean_of(losses).cpu()
        if wants == "losses":
            return Evaluation(total)
        example_losses = losses.float().cpu() if losses.dim() == 2 else None
        if wants != "scores":
            return Evaluation(total, example_losses=example_losses)
        return Evaluation(total, scores.float().cpu(), example_losses, loss_of_scores(objective, labels))

    def loss(self, batch: Tensor | None = None) -> Tensor:
        """The loss of the current model, 0-dimensional float32."""
        if self.answers is not None:
            return self.answers.losses({}, batch)[0]
        scores = self.engine.incumbent_scores(batch)[None]
        objective, labels = self.objective(batch)
        losses = check_result(objective(scores, labels), scores)
        return mean_of(losses)[0]

    def close(self) -> None:
        """Stop whatever was started to evaluate candidates; an evaluation starts it again."""

    def objective(self, batch: Tensor | None = None) -> tuple[Objective, Tensor]:
        """The objective of some examples, and their labels (n,) int64."""
        if batch is None:
            return self._objective(self.train), self.labels
        return self._objective([self.train[i] for i in batch.tolist()]), self.labels[batch.to(self.labels.device)]

    def objective_on_dev(self) -> tuple[Objective, Tensor]:
        """The objective of the dev examples, and their labels."""
        return self._objective(self.selection.dev), self.selection.labels


def digest(batches: Sequence[Rows], labels: Sequence[Tensor], model: torch.nn.Module) -> str:
    """A checksum of the encoded data, their labels, and the model's weights."""
    total = hashlib.blake2b(digest_size=8)
    for rows in batches:
        for tensor in (*rows.inputs.values(), rows.positions, rows.owner, rows.columns, rows.targets):
            total.update(b"" if tensor is None else tensor.cpu().numpy().tobytes())
    for each in labels:
        total.update(each.cpu().numpy().tobytes())
    for name, weight in model.named_parameters():
        if "lora_" not in name:
            total.update(str(sum_of_bits(weight)).encode())
    return total.hexdigest()
