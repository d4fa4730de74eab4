"""The base class of what answers questions."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

from dfolora.errors import UserError
from dfolora.question import Family
from dfolora.reasoning.answers import Answer, extract
from dfolora.reasoning.asker import Asker, Turn
from dfolora.reasoning.instructions import CONCLUDE
from dfolora.reasoning.trace import Trace

ANSWER_TOKENS = 32  # of the second call


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

    @staticmethod
    def with_text(text: str, family: Family) -> dict[str, Any]:
        """The options with which an instruction that was searched for takes its place.

        Raises:
            UserError: it has no such place.
        """
        raise UserError("method: it has no instruction to evolve; take zero-shot-cot or eot")

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
