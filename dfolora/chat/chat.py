"""Messages, requests, replies, and what answers them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

from dfolora.chat.ledger import Ledger
from dfolora.errors import UserError

ROLES = ("system", "user", "assistant")


class Message(NamedTuple):
    """One turn of a conversation.

    Attributes:
        role: who says it: ``system``, ``user`` or ``assistant``.
        content: what is said.
    """

    role: str
    content: str


@dataclass(frozen=True)
class Request:
    """What is asked, and how the answer is to be decoded.

    Attributes:
        messages: the conversation so far, at least one message.
        max_tokens: most tokens of a text.
        temperature: T: words are drawn from softmax(logits / T); 0: the likeliest ones are taken.
        top_p: draw only from the likeliest tokens that together have this probability (arXiv 1904.09751).
        stop: a text ends before the first of these.
        n: how many texts.
        seed: of what is drawn. Requests that differ in nothing are the same request, and get the same reply.

    Raises:
        UserError: a value that cannot work.
    """

    messages: tuple[Message, ...]
    max_tokens: int = 256
    temperature: float = 0.0
    top_p: float = 1.0
    stop: tuple[str, ...] = ()
    n: int = 1
    seed: int | None = None

    def __post_init__(self) -> None:
        if not self.messages:
            raise UserError("messages: there are none; a request takes at least one")
        for message in self.messages:
            if message.role not in ROLES:
                raise UserError(f"messages: {message.role!r} is no role; it may be {', '.join(ROLES)}")
        for name, value in (("max_tokens", self.max_tokens), ("n", self.n)):
            if value < 1:
                raise UserError(f"{name}: {value} cannot work; the least is 1")
        if not self.temperature >= 0:
            raise UserError(f"temperature: {self.temperature} cannot work; it is 0 or more")
        if not 0 < self.top_p <= 1:
            raise UserError(f"top_p: {self.top_p} cannot work; it is more than 0 and at most 1")
        if "" in self.stop:
            raise UserError("stop: an empty text would end every answer at once; leave it out")


@dataclass(frozen=True)
class Reply:
    """The texts that answer a request.

    Attributes:
        texts: n texts.
        finish: per text ``stop``, or ``length`` where it was cut off by ``max_tokens``.
        prompt_tokens: tokens of the messages; None: the model does not say.
        completion_tokens: tokens of all texts together; None: the model does not say.
        seconds: how long it took.
        cached: whether it comes from the cache.
    """

    texts: tuple[str, ...]
    finish: tuple[str, ...]
    prompt_tokens: int | None
    completion_tokens: int | None
    seconds: float = 0.0
    cached: bool = False


Keep = Callable[[int, Reply], None]
"""Takes the number of a request and its reply, or some of the texts that it asked for; any thread may call it."""


class Chat(ABC):
    """Answers requests.

    Attributes:
        name: the model's; it goes into the keys of the cache.
        ledger: what it was asked, and what that cost.
    """

    def __init__(self, name: str, ledger: Ledger | None = None) -> None:
        self.name = name
        self.ledger = ledger or Ledger()

    def __call__(self, requests: Sequence[Request]) -> list[Reply]:
        """The replies, in the order of the requests, which are answered together.

        Raises:
            UserError: they cannot be answered; ``CallLimit`` where the calls are used up.
        """
        parts: list[list[Reply]] = [[] for _ in requests]
        self.answer(requests, lambda number, reply: parts[number].append(reply))
        return [joined(of_one) for of_one in parts]

    @abstractmethod
    def answer(self, requests: Sequence[Request], keep: Keep) -> None:
        """Answer requests, and hand over each reply as soon as it is there, in any order.

        The texts of one request may come in several replies. Calls are booked in ``ledger``. Before this raises, what
        was paid for has been handed over.

        Raises:
            UserError: as calling it.
        """


def joined(parts: Sequence[Reply]) -> Reply:
    """One reply with the texts of several replies to the same request."""
    first, *others = parts
    for part in others:
        first = replace(
            first,
            texts=first.texts + part.texts,
            finish=first.finish + part.finish,
            prompt_tokens=_sum(first.prompt_tokens, part.prompt_tokens),
            completion_tokens=_sum(first.completion_tokens, part.completion_tokens),
            seconds=first.seconds + part.seconds,
            cached=first.cached and part.cached,
        )
    return first


def _sum(one: int | None, other: int | None) -> int | None:
    return None if one is None or other is None else one + other
