"""What scores an instruction: wrong answers to questions, or the loss of a task's choice scores."""

from __future__ import annotations

import contextlib
import dataclasses
import math
import random
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from dfolora.chat import Chat
from dfolora.engine import Engine
from dfolora.errors import UserError, unknown
from dfolora.models import adapter as adapters
from dfolora.models.bare import Bare
from dfolora.models.load import LanguageModel
from dfolora.models.tuned import TunedModel
from dfolora.opening import check_examples, open_prompt, open_task
from dfolora.problems.encode import PromptEncoder
from dfolora.question import Family, QuestionSet
from dfolora.reasoning import make_predictor, predictor_class
from dfolora.reasoning.asker import Asker
from dfolora.reasoning.predictor import Predictor, Slot
from dfolora.reasoning.scores import score, wilson
from dfolora.reasoning.trace import Trace
from dfolora.settings.model import ModelSettings
from dfolora.settings.prompting import EvolveSettings
from dfolora.settings.tune import TuneSettings
from dfolora.task import Example
from dfolora.texts.gepa import Judged

Metrics = dict[str, Any]
INSTRUCTION = "instruction in front"  # the field of an example in which a candidate stands


class Fitness(ABC):
    """Scores instructions on a few examples, looks at others to select, and reports on the rest.

    Attributes:
        seeds: instructions that suit the task, to begin with.
        train, dev: the examples that score, and those that select.
    """

    seeds: tuple[str, ...]
    train: Sequence[Any]
    dev: Sequence[Any]

    @abstractmethod
    def losses(self, texts: Sequence[str]) -> Iterable[float]:
        """The loss of each instruction on the examples that score; lower is better. One after the other or together."""

    @abstractmethod
    def look(self, text: str) -> float:
        """The same on the examples that select."""

    @abstractmethod
    def judge(self, text: str, split: str, places: Sequence[int]) -> list[Judged]:
        """How an instruction does on each of some examples that score (``train``) or select (``dev``)."""

    @abstractmethod
    def report(self, text: str | None) -> Metrics:
        """Metrics on the test set, in percent; None: without an instruction, or with the first seed."""


class QuestionFitness(Fitness):
    """The share of wrong answers, no answer being wrong, of a predictor whose instruction is searched for."""

    def __init__(self, settings: EvolveSettings, questions: QuestionSet, chat: Chat) -> None:
        """Draw the questions: the first ``shots`` of a fixed order score, the next select, ``limit`` more are the test.

        Raises:
            UserError: no such file, a method that has no such instruction, or one that its options leave unsaid.
        """
        self.slot = slot_of(settings, questions.family)
        self.settings, self.questions = settings, questions
        self.asker = Asker(
            chat, questions.kind, questions.family, settings.max_tokens, settings.temperature, settings.seed,
            settings.second_call,
        )  # fmt: skip
        self.seeds = self.slot.first
        self._predictor(self.seeds[0])  # a step that its options leave out cannot evolve
        pairs = list(enumerate(questions.load(Path(settings.data))))
        random.Random(0).shuffle(pairs)
        shots = min(settings.shots, len(pairs) // 3)
        self.train, self.dev, test = pairs[:shots], pairs[shots : 2 * shots], pairs[2 * shots :]
        self.test = test[: settings.limit]

    def losses(self, texts: Sequence[str]) -> Iterator[float]:
        for text in texts:
            yield 1 - self._scores(text, self.train)["accuracy"] / 100

    def look(self, text: str) -> float:
        return 1 - self._scores(text, self.dev)["accuracy"] / 100

    def judge(self, text: str, split: str, places: Sequence[int]) -> list[Judged]:
        pairs = self.train if split == "train" else self.dev
        lines = self._lines(text, [pairs[place] for place in places])
        return [
            Judged(float(line["correct"]), line["question"], line["chain"], f"The right answer is {line['gold']}.")
            for line in lines
        ]

    def report(self, text: str | None) -> Metrics:
        found = self._scores(self.seeds[0] if text is None else text, self.test)
        return {name: found[name] for name in ("questions", "accuracy", "interval", "no_answer")}

    def _predictor(self, text: str) -> Predictor:
        own = {**self.settings.predictor_options, **self.slot.options(text)}
        return make_predictor(self.settings.method, self.asker, own)

    def _scores(self, text: str, pairs: Sequence[tuple[int, Any]]) -> Metrics:
        return score(self._lines(text, pairs))

    def _lines(self, text: str, pairs: Sequence[tuple[int, Any]]) -> list[dict[str, Any]]:
        """What a trace file would say of each question, answered with an instruction."""
        predictor = self._predictor(text)
        predictor.prepare()
        lines = []
        for start in range(0, len(pairs), self.settings.batch):
            traces = [Trace(index, question) for index, question in pairs[start : start + self.settings.batch]]
            predictor.answer(traces)
            lines += [trace.line(self.questions.kind) for trace in traces]
        return lines


def slot_of(settings: EvolveSettings, family: Family) -> Slot:
    """The place whose instruction is searched for.

    Raises:
        UserError: the method has none of that name.
    """
    slots = predictor_class(settings.method).slots(family)
    if not slots:
        raise UserError(f"method: {settings.method} has no instruction to evolve; take zero-shot-cot or eot")
    if settings.slot not in slots:
        raise unknown("slot", settings.slot, slots)
    return slots[settings.slot]


class ChoiceFitness(Fitness):
    """The mean cross-entropy of a task's choices, with the instruction before the task's own prompt.

    Attributes:
        forwards: how many forwards of the model scoring has taken.
    """

    seeds = (
        "Read carefully, then give the answer that fits best.",
        "Think about what is meant before you decide, and answer in one word.",
    )

    def __init__(self, settings: ModelSettings) -> None:
        """Load the examples and the model.

        Raises:
            UserError: a task whose answers are generated, or what cannot be loaded.
        """
        self.settings = settings
        task, examples = open_task(settings)
        if task.new_tokens:
            raise UserError(
                f"task: answers of {task.name!r} are generated; take a task of choices, or a set of questions"
            )
        split = settings.test_split if isinstance(settings, TuneSettings) else "test"
        self.train, self.dev = examples("train"), examples("dev")
        self.test = [] if split == "none" else examples(split)
        check_examples(task, self.train)
        self.plain = open_prompt(settings, task, self.train[0])
        self.plain.language_model.read_weights()
        self.tuned: TunedModel = Bare(self.language_model)
        self.forwards = 0
        self._held: list[Any] = []
        self._behind = self._encoder("{" + INSTRUCTION + "}\n" + self.plain.prompt.template)

    @property
    def language_model(self) -> LanguageModel:
        """What is scored; between scorings it is as it was loaded, so that something else may use it too."""
        return self.plain.language_model

    def hold(self, folder: str) -> None:
        """Score with a tuned adapter from now on, which never changes.

        Raises:
            UserError: it is none of this model.
        """
        self.tuned = adapters.load(self.language_model, folder)
        self._held = self.tuned.state()
        self.tuned.clear()

    def losses(self, texts: Sequence[str]) -> list[float]:
        return self._losses(texts, self.train)

    def look(self, text: str) -> float:
        return self._losses([text], self.dev)[0]

    def judge(self, text: str, split: str, places: Sequence[int]) -> list[Judged]:
        examples = [(self.train if split == "train" else self.dev)[place] for place in places]
        likely = self._scores(self._behind, _told(text, examples)).softmax(-1)
        judged = []
        for example, asked, row in zip(examples, self.plain.texts(examples), likely, strict=True):
            words = self.plain.prompt.words or example.choices or ()
            names = dict(enumerate(words)) if example.choice_class is None else {}
            best = int(row.argmax())
            right = names.get(example.label, str(example.label))
            feedback = f"The right one is {right!r}; it was given the probability {float(row[example.label]):.2f}."
            judged.append(Judged(float(row[example.label]), asked, names.get(best, str(best)), feedback))
        return judged

    def report(self, text: str | None) -> Metrics:
        if not self.test:
            return {"questions": 0}
        encoder = self.plain if text is None else self._behind
        predicted = self._scores(encoder, self.test if text is None else _told(text, self.test)).argmax(-1).tolist()
        found = dict(encoder.task.measure(self.test, predicted))
        count = len(self.test)
        right = sum(guess == example.label for guess, example in zip(predicted, self.test, strict=True))
        return {"questions": count, **found, "interval": list(wilson(right, count))}

    def template(self, text: str) -> str:
        """The task's template with an instruction in front, as the option ``template`` takes it."""
        return text.replace("{", "{{").replace("}", "}}") + "\n" + self.plain.prompt.template

    def _encoder(self, template: str) -> PromptEncoder:
        task, kind = self.plain.task, self.plain.kind
        prompt = dataclasses.replace(task.prompts[kind], template=template)
        task = dataclasses.replace(task, prompts={**task.prompts, kind: prompt})
        return PromptEncoder(self.language_model, task, self.settings.max_length or 0)

    def _losses(self, texts: Sequence[str], examples: Sequence[Example]) -> list[float]:
        """The losses of K texts on N examples, from K x N rows that the engine gets at once; infinite: too long."""
        fitting = [text for text in texts if self._fits(text, examples)]
        if not fitting:
            return [math.inf] * len(texts)
        told = [example for text in fitting for example in _told(text, examples)]
        scores = self._scores(self._behind, told).log_softmax(-1)
        right = scores[range(len(told)), self._behind.labels(told)]
        found = dict(zip(fitting, (-right.view(len(fitting), -1).mean(1)).tolist(), strict=True))
        return [found.get(text, math.inf) for text in texts]

    def _fits(self, text: str, examples: Sequence[Example]) -> bool:
        """Whether an instruction leaves the prompts room; one that does not is as bad as can be."""
        try:
            self._behind.check(_told(text, examples))
        except UserError:
            return False
        return True

    def _scores(self, encoder: PromptEncoder, examples: Sequence[Example]) -> Any:
        """(N, C) float32 on the CPU."""
        with self._tuned():
            engine = Engine(self.tuned, encoder.encode(list(examples)), self.settings.chunk_tokens or 0)
            scores = engine.incumbent_scores().cpu()
        self.forwards += engine.forwards
        return scores

    @contextlib.contextmanager
    def _tuned(self) -> Iterator[None]:
        """Within it the adapter that is held adds what it adds."""
        if self._held:
            self.tuned.restore(self._held)
        try:
            yield
        finally:
            if self._held:
                self.tuned.clear()


def _told(text: str, examples: Sequence[Example]) -> list[Example]:
    """The examples with an instruction among their fields."""
    return [dataclasses.replace(each, fields={**each.fields, INSTRUCTION: text}) for each in examples]
