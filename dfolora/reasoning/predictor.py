"""The base class of what answers questions."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from dfolora.question import Family
from dfolora.reasoning.answers import Answer, extract
from dfolora.reasoning.asker import Asker, Turn
from dfolora.reasoning.instructions import CONCLUDE
from dfolora.reasoning.trace import Trace

ANSWER_TOKENS = 32  # of the second call


@dataclass(frozen=True)
class Slot:
    """A place of an instruction that may be searched for.

    Attributes:
        first: instructions to begin with, that of the package first.
        options: an instruction -> the options of the predictor that put it in its place.
    """

    first: tuple[str, ...]
    options: Callable[[str], dict[str, Any]]


class Predictor(ABC):
    """Answers questions by a chat model. Keyword parameters of a subclass's constructor are its options.

    Args:
        asker: what it asks by.
    """

    def __init__(self, asker: Asker) -> None:
        self.asker = asker

    def prepare(self) -> Trace | None:
        """Make what all questions share and return its trace, whose ``facts`` the trace file keeps; None: nothing."""
        return None

    @classmethod
    def slots(cls, family: Family) -> dict[str, Slot]:
        """The instructions that may be searched for, by name; none: there are none of its own."""
        return {}

    @abstractmethod
    def answer(self, traces: Sequence[Trace]) -> None:
        """Answer the questions of some traces, all at once, and fill the traces in.

        Raises:
            UserError: the model cannot answer; ``CallLimit`` where its calls are used up.
        """

    def solve(self, traces: Sequence[Trace], prompts: Sequence[str]) -> None:
        """Put a prompt for each question, and find the answer in the reply, or by a second call."""
        chains = self.asker.ask("solve", [Turn(t, (p,), t.index) for t, p in zip(traces, prompts, strict=True)])
        unclear: list[tuple[Trace, str]] = []
        for trace, prompt, chain in zip(traces, prompts, chains, strict=True):
            trace.chain, trace.answer = chain, self.read(trace, chain)
            if self.asker.second and trace.answer.how in ("last", "none"):
                unclear.append((trace, prompt))
        turns = [Turn(t, (prompt, t.chain, CONCLUDE[self.asker.kind]), t.index) for t, prompt in unclear]
        replies = self.asker.ask("extract", turns, max_tokens=min(ANSWER_TOKENS, self.asker.max_tokens))
        for (trace, _), reply in zip(unclear, replies, strict=True):
            found = self.read(trace, reply)
            if found.value is not None:
                trace.answer = Answer(found.value, "second call", reply)

    def read(self, trace: Trace, text: str) -> Answer:
        """The answer in a text, of the kind that the question wants."""
        assert trace.question is not None, "only questions have answers"
        return extract(text, self.asker.kind, trace.question.choices)

    @staticmethod
    def question_of(trace: Trace) -> str:
        """The question of a trace with its choices."""
        assert trace.question is not None, "only questions have answers"
        return trace.question.whole
