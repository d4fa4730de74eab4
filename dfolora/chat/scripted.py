"""A chat whose answers a function gives: for tests, for examples, and for models that are reached in another way."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from dfolora.chat.base import Chat, Reply, Request


class ScriptedChat(Chat):
    """Answers by a function of the request: one text, or ``n`` of them. Tokens are counted as words.

    Attributes:
        calls: so far.
    """

    def __init__(self, rule: Callable[[Request], str | Sequence[str]], name: str = "scripted") -> None:
        self.rule, self.name, self.calls = rule, name, 0

    def replies(self, requests: Sequence[Request]) -> Iterator[tuple[int, Reply]]:
        for place, request in enumerate(requests):
            self.calls += 1
            said = self.rule(request)
            texts = (said,) * request.n if isinstance(said, str) else tuple(said)
            words = sum(len(message.content.split()) for message in request.messages)
            yield place, Reply(texts, ("stop",) * len(texts), words, sum(len(text.split()) for text in texts))
