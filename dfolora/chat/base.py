"""What a chat is: requests in, replies out, as they come."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from dfolora.errors import UserError


class Message(NamedTuple):
    """One turn. ``role`` is ``system``, ``user`` or ``assistant``."""

    role: str
    content: str


@dataclass(frozen=True)
class Request:
    """What is asked, and how the answer is to be decoded.

    Attributes:
        messages: the talk so far; the last one is the user's.
        max_tokens: most tokens of an answer.
        temperature: 0: the likeliest token each time.
        top_p: share of the probability that tokens are drawn from, the likeliest ones.
        stop: an answer ends before the first of these texts.
        n: how many answers.
        seed: of what is drawn; None: whatever the model takes.
    """

    messages: tuple[Message, ...]
    max_tokens: int = 256
    temperature: float = 0.0
    top_p: float = 1.0
    stop: tuple[str, ...] = ()
    n: int = 1
    seed: int | None = None


@dataclass(frozen=True)
class Reply:
    """What came back.

    Attributes:
        texts: n answers.
        finish: of each, ``stop``, or ``length`` where it was cut off at ``max_tokens``.
        prompt_tokens, completion_tokens: of all calls that it took; None where the model does not say.
        seconds: that it took.
        cached: whether it was there already, so that nothing was paid for it now.
        calls: that it took: more than one where a server gives fewer answers at once than were asked for.
    """

    texts: tuple[str, ...]
    finish: tuple[str, ...]
    prompt_tokens: int | None
    completion_tokens: int | None
    seconds: float = 0.0
    cached: bool = False
    calls: int = 1


class CallLimit(UserError):
    """The cap on calls is reached. What was answered before is in the cache."""


class Chat(ABC):
    """Answers requests. A subclass has a name and says how replies come.

    Attributes:
        name: of the model and whatever else its answers depend on; replies are cached by it.
    """

    name: str

    @abstractmethod
    def replies(self, requests: Sequence[Request]) -> Iterator[tuple[int, Reply]]:
        """Each reply as it comes, with the place of its request; in any order.

        Raises:
            UserError: no answer can be had; what has come before is good.
        """

    def __call__(self, requests: Sequence[Request]) -> list[Reply]:
        """The replies to some requests, in their order.

        Raises:
            UserError: as ``replies``.
        """
        found = dict(self.replies(requests))
        return [found[place] for place in range(len(requests))]
