"""What happened on the way from a question to its answer: every reply, and what it took."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from dfolora.question import AnswerKind, Question
from dfolora.reasoning.answers import NONE, Answer, right


@dataclass
class Trace:
    """The way from one question to its answer; predictors fill it in.

    Attributes:
        index: the question's place in its set, from 0; requests for it are seeded by that.
        question: it; None: of the calls that a data set shares.
        answer: what was found.
        chain: the reasoning that the answer was read from.
        facts: whatever else a predictor wants to be written down, as JSON holds it.
        stages: the replies in order: ``stage``, ``prompt``, ``text``, ``finish``.
        calls: replies that it took; a sample counts as one.
        prompt_tokens, completion_tokens: of all calls; None where the server does not count.
    """

    index: int
    question: Question | None = None
    answer: Answer = NONE
    chain: str = ""
    facts: dict[str, Any] = field(default_factory=dict)
    stages: list[dict[str, str]] = field(default_factory=list)
    calls: int = 0
    prompt_tokens: int | None = 0
    completion_tokens: int | None = 0

    def line(self, kind: AnswerKind) -> dict[str, Any]:
        """What the trace file says of it, as JSON holds it."""
        cost = {
            "calls": self.calls, "prompt_tokens": self.prompt_tokens, "completion_tokens": self.completion_tokens,
            "cut": any(stage["finish"] == "length" for stage in self.stages), "stages": self.stages,
        }  # fmt: skip
        if self.question is None:
            return {"index": self.index, **self.facts, **cost}
        return {
            "index": self.index,
            "where": self.question.where,
            "question": self.question.whole,
            "gold": self.question.gold,
            "correct": right(self.answer, self.question, kind),
            "answer": self.answer.value,
            "how": self.answer.how,
            "raw": self.answer.raw,
            **self.facts,
            "chain": self.chain,
            **cost,
        }
