"""Put requests to a chat model for many questions at once, and book the replies where they belong."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from dfolora.chat import Chat, Message, Request
from dfolora.question import AnswerKind, Family
from dfolora.reasoning.trace import Trace


class Turn(NamedTuple):
    """One request: whose it is, and what is said, in turns of user and assistant that begin and end with the user."""

    trace: Trace
    said: tuple[str, ...]
    seed: int = 0


@dataclass(frozen=True)
class Asker:
    """What predictors ask by.

    Attributes:
        chat: answers messages.
        kind: of the answers that are wanted.
        family: of the questions.
        max_tokens: most tokens of a reply.
        temperature: of solving; 0: the likeliest words.
        seed: of every sampled reply, with what tells replies apart added.
        second: make a second call where a chain announces no answer.
    """

    chat: Chat
    kind: AnswerKind
    family: Family
    max_tokens: int = 256
    temperature: float = 0.0
    seed: int = 0
    second: bool = True

    def ask(
        self, stage: str, turns: Sequence[Turn], temperature: float | None = None, max_tokens: int | None = None
    ) -> list[str]:
        """The replies, in order; they are booked in the traces under the stage's name.

        Args:
            stage: what the requests are for.
            turns: the requests.
            temperature: None: that of solving.
            max_tokens: None: as many as a chain may have.

        Raises:
            UserError: the model cannot answer; ``CallLimit`` where its calls are used up.
        """
        if not turns:
            return []
        warmth = self.temperature if temperature is None else temperature
        requests = [
            Request(
                tuple(Message(("user", "assistant")[k % 2], said) for k, said in enumerate(turn.said)),
                max_tokens=max_tokens or self.max_tokens,
                temperature=warmth,
                seed=self.seed + turn.seed if warmth else None,
            )
            for turn in turns
        ]
        texts = []
        for turn, reply in zip(turns, self.chat(requests), strict=True):
            trace = turn.trace
            text = reply.texts[0] if reply.texts else ""
            finish = reply.finish[0] if reply.finish else ""
            trace.stages.append({"stage": stage, "prompt": turn.said[-1], "text": text, "finish": finish})
            trace.calls += 1
            trace.prompt_tokens = _sum(trace.prompt_tokens, reply.prompt_tokens)
            trace.completion_tokens = _sum(trace.completion_tokens, reply.completion_tokens)
            texts.append(text)
        return texts


def _sum(known: int | None, more: int | None) -> int | None:
    return None if known is None or more is None else known + more
