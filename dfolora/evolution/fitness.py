"""What scores an instruction: wrong answers to questions, or the loss of a task's choice scores."""

from __future__ import annotations

import dataclasses
import random
from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from dfolora.chat import Chat
from dfolora.engine import Engine
from dfolora.errors import UserError
from dfolora.models.bare import Bare
from dfolora.opening import check_examples, open_prompt, open_task
from dfolora.problems.encode import PromptEncoder
from dfolora.question import QuestionSet
from dfolora.reasoning import make_predictor, predictor_class
from dfolora.reasoning.asker import Asker
from dfolora.reasoning.instructions import PLAN, STEP_BY_STEP
from dfolora.reasoning.scores import score, wilson
from dfolora.reasoning.trace import Trace
from dfolora.settings.model import ModelSettings
from dfolora.settings.prompting import EvolveSettings
from dfolora.task import Example

Metrics = dict[str, Any]


class Fitness(ABC):
    """Scores instructions on a few examples, looks at others to select, and reports on the rest.

    Attributes:
        seeds: instructions that suit the task, to begin with.
    """

    seeds: tuple[str, ...]

    @abstractmethod
    def loss(self, text: str) -> float:
        """The loss of an instruction on the examples that score; lower is better."""

    @abstractmethod
    def look(self, text: str) -> float:
        """The same on the examples that select."""

    @abstractmethod
    def report(self, text: str | None) -> Metrics:
        """Metrics on the test set, in percent; None: without an instruction, or with the first seed."""


class QuestionFitness(Fitness):
    """The share of wrong answers, no answer being wrong, of a predictor whose instruction is searched for."""

    def __init__(self, settings: EvolveSettings, questions: QuestionSet, chat: Chat) -> None:
        """Draw the questions: the first ``shots`` of a fixed order score, the next select, ``limit`` more are the test.

        Raises:
            UserError: no such file, or a method that has no instruction of its own.
        """
        predictor_class(settings.method).with_text("", questions.family)
        self.settings, self.questions = settings, questions
        self.asker = Asker(
            chat, questions.kind, questions.family, settings.max_tokens, settings.temperature, settings.seed,
            settings.second_call,
        )  # fmt: skip
        self.seeds = (STEP_BY_STEP, PLAN[questions.family])
        pairs = list(enumerate(questions.load(Path(settings.data))))
        random.Random(0).shuffle(pairs)
        shots = min(settings.shots, len(pairs) // 3)
        self.train, self.dev, test = pairs[:shots], pairs[shots : 2 * shots], pairs[2 * shots :]
        self.test = test[: settings.limit]

    def loss(self, text: str) -> float:
        return 1 - self._scores(text, self.train)["accuracy"] / 100

    def look(self, text: str) -> float:
        return 1 - self._scores(text, self.dev)["accuracy"] / 100

    def report(self, text: str | None) -> Metrics:
        found = self._scores(self.seeds[0] if text is None else text, self.test)
        return {name: found[name] for name in ("questions", "accuracy", "interval", "no_answer")}

    def _scores(self, text: str, pairs: Sequence[tuple[int, Any]]) -> Metrics:
        method = predictor_class(self.settings.method)
        own = {**self.settings.predictor_options, **method.with_text(text, self.questions.family)}
        predictor = make_predictor(self.settings.method, self.asker, own)
        predictor.prepare()
        lines = []
        for start in range(0, len(pairs), self.settings.batch):
            traces = [Trace(index, question) for index, question in pairs[start : start + self.settings.batch]]
            predictor.answer(traces)
            lines += [trace.line(self.questions.kind) for trace in traces]
        return score(lines)


class ChoiceFitness(Fitness):
    """The mean cross-entropy of a task's choices, with the instruction before the task's own prompt."""

    seeds = (
        "Read carefully, then give the answer that fits best.",
        "Think about what is meant before you decide, and answer in one word.",
    )

    def __init__(self, settings: EvolveSettings) -> None:
        """Load the examples and the model.

        Raises:
            UserError: a task whose answers are generated, or what cannot be loaded.
        """
        self.settings = ModelSettings(
            model=settings.model, task=settings.task, data=settings.data, shots=settings.shots, seed=settings.seed,
            device=settings.device, dtype=settings.dtype, trust_remote_code=settings.trust_remote_code,
            test_limit=settings.limit,
        )  # fmt: skip
        task, examples = open_task(self.settings)
        if task.new_tokens:
            raise UserError(
                f"task: answers of {task.name!r} are generated; take a task of choices, or a set of questions"
            )
        self.train, self.dev, self.test = examples("train"), examples("dev"), examples("test")
        check_examples(task, self.train)
        self.plain = open_prompt(self.settings, task, self.train[0])
        self.plain.language_model.read_weights()
        self.bare = Bare(self.plain.language_model)

    def loss(self, text: str) -> float:
        return self._loss(text, self.train)

    def look(self, text: str) -> float:
        return self._loss(text, self.dev)

    def report(self, text: str | None) -> Metrics:
        encoder = self.plain if text is None else self.encoder(text)
        predicted = self._scores(encoder, self.test).argmax(-1).tolist()
        found = dict(encoder.task.measure(self.test, predicted))
        count = len(self.test)
        right = sum(guess == example.label for guess, example in zip(predicted, self.test, strict=True))
        return {"questions": count, **found, "interval": list(wilson(right, count))}

    def encoder(self, text: str) -> PromptEncoder:
        """The task's prompts with an instruction in front."""
        before = text.replace("{", "{{").replace("}", "}}")
        template = f"{before}\n{self.plain.prompt.template}"
        task, _ = open_task(dataclasses.replace(self.settings, template=template))
        return PromptEncoder(self.plain.language_model, task, self.settings.max_length or 0)

    def _loss(self, text: str, examples: Sequence[Example]) -> float:
        encoder = self.encoder(text)
        scores = self._scores(encoder, examples)
        right = encoder.labels(examples)
        return -float(scores.log_softmax(-1)[range(len(examples)), right].mean())

    def _scores(self, encoder: PromptEncoder, examples: Sequence[Example]) -> Any:
        """(N, C) float32 on the CPU."""
        return Engine(self.bare, encoder.encode(list(examples)), 0).incumbent_scores().cpu()
