"""GEPA (arXiv 2507.19457) by the ``gepa`` package: a model reads what went wrong on a few examples and rewrites."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Annotated, Any, NamedTuple

from dfolora.chat import Chat, Message, Request
from dfolora.errors import UserError
from dfolora.texts.optimizer import TextOptimizer

PART = "instruction"  # what the package calls the only text that evolves
REFLECTION_TOKENS = 512


class Judged(NamedTuple):
    """How an instruction did on one example.

    Attributes:
        score: between 0 and 1, higher is better.
        asked: the example.
        replied: what the model made of it.
        feedback: what would have been right.
    """

    score: float
    asked: str
    replied: str
    feedback: str


Judge = Callable[[str, str, Sequence[int]], list[Judged]]
"""An instruction, ``train`` or ``dev``, and places in that set -> how it did on each."""


class Gepa(TextOptimizer):
    """Runs its search itself, as it scores a text on few examples first: there is ``search`` in place of ``ask``."""

    def __init__(
        self,
        chat: Chat,
        seeds: Sequence[str],
        seed: int = 0,
        *,
        minibatch: Annotated[int, "examples that a rewriting looks at"] = 3,
        evolve_temperature: Annotated[float, "temperature of the model's rewritings"] = 0.5,
    ) -> None:
        super().__init__(chat, seeds, seed, evolve_temperature=evolve_temperature)
        if minibatch < 1:
            raise UserError(f"minibatch: {minibatch} is too few; a rewriting looks at 1 example at least")
        self.minibatch, self.seed = minibatch, seed
        try:
            self.package: Any = importlib.import_module("gepa")
        except ImportError as error:
            raise UserError("evolve: gepa needs the package of that name; pip install 'dfolora[gepa]'") from error

    def _ask(self) -> list[str]:
        raise UserError("evolve: gepa scores texts on few examples at a time; it has no ask and tell, but search")

    def search(self, judge: Judge, train: int, dev: int, judgements: int) -> list[str]:
        """Search from the first seed; the texts that came so far as to be scored on all dev examples.

        ``best`` is the one that the dev examples like best, and ``known`` has 1 minus the mean dev score of each.

        Args:
            judge: scores an instruction.
            train: how many examples there are to learn from.
            dev: how many there are to select by.
            judgements: of one example each, after which no new rewriting begins.

        Raises:
            UserError: the model cannot answer; ``CallLimit`` where its calls are used up.
        """
        found = self.package.optimize(
            seed_candidate={PART: self.seeds[0]},
            trainset=[("train", number) for number in range(train)],
            valset=[("dev", number) for number in range(dev)],
            adapter=_Scored(judge),
            reflection_lm=self._reflect,
            reflection_minibatch_size=min(self.minibatch, train),
            max_metric_calls=judgements,
            logger=SimpleNamespace(log=lambda message: None),
            seed=self.seed,
        )
        texts = [str(candidate[PART]) for candidate in found.candidates]
        for text, score in zip(texts, found.val_aggregate_scores, strict=True):
            self.known[text] = 1 - float(score)
        self.best = min(self.known, key=lambda text: self.known[text])
        self.best_loss = self.known[self.best]
        return texts

    def _reflect(self, said: Any) -> str:
        """The model's reply to what the package tells it: a text, or messages."""
        text = said if isinstance(said, str) else "\n\n".join(str(message["content"]) for message in said)
        seed = self.rng.randrange(2**31)
        reply = self.chat(
            [
                Request(
                    (Message("user", text),),
                    REFLECTION_TOKENS,
                    self.temperature,
                    seed=seed if self.temperature else None,
                )
            ]
        )[0]
        return reply.texts[0] if reply.texts else ""


@dataclass
class _Scored:
    """What the package calls an adapter: it scores instructions and says what went wrong."""

    judge: Judge
    propose_new_texts: None = None  # the package's own way of rewriting

    def evaluate(
        self, batch: Sequence[tuple[str, int]], candidate: Mapping[str, str], capture_traces: bool = False
    ) -> Any:
        """Judge an instruction on places of one of the two sets."""
        judged = self.judge(candidate[PART], batch[0][0], [number for _, number in batch])
        made = importlib.import_module("gepa.core.adapter").EvaluationBatch
        return made(
            outputs=[each.replied for each in judged],
            scores=[each.score for each in judged],
            trajectories=judged if capture_traces else None,
        )

    def make_reflective_dataset(
        self, candidate: Mapping[str, str], eval_batch: Any, components_to_update: Sequence[str]
    ) -> dict[str, list[dict[str, str]]]:
        """What the model reads before it rewrites."""
        seen = [
            {"Inputs": each.asked, "Generated Outputs": each.replied, "Feedback": each.feedback}
            for each in eval_batch.trajectories
        ]
        return {name: seen for name in components_to_update}
