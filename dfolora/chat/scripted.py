"""A chat that answers by a rule, for tests and documentation."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from dfolora.chat.chat import Chat, Keep, Reply, Request


class ScriptedChat(Chat):
    """Answers by a rule; its tokens are words.

    Args:
        rule: request -> the text, or a list of n texts.
        name: goes into the keys of a cache.
    """

    def __init__(self, rule: Callable[[Request], str | Sequence[str]], name: str = "scripted") -> None:
        super().__init__(name)
        self.rule = rule

    def answer(self, requests: Sequence[Request], keep: Keep) -> None:
        for number, request in enumerate(requests):
            self.ledger.take()
            said = self.rule(request)
            texts = (said,) * request.n if isinstance(said, str) else tuple(said)
            asked = sum(len(message.content.split()) for message in request.messages)
            answered = sum(len(text.split()) for text in texts)
            self.ledger.book(asked, answered)
            keep(number, Reply(texts, ("stop",) * len(texts), asked, answered))
