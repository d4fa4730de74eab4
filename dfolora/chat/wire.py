"""What goes over the wire of OpenAI's chat protocol: the body of a call, the reply in what comes back."""

from __future__ import annotations

import re
from collections.abc import Collection
from typing import Any

from dfolora.chat.chat import Reply, Request

# What a server may refuse to be told. Without ``n`` it gives one text a call, without ``stop`` its texts are cut here.
OPTIONAL = ("max_tokens", "max_completion_tokens", "temperature", "top_p", "stop", "seed", "n")

_THOUGHT = re.compile(r"\A\s*<think>.*?(</think>\s*|\Z)", re.DOTALL)  # of servers that do not take it apart


class BadReply(ValueError):
    """What came back with status 200 holds no reply."""


def body(model: str, request: Request, refused: Collection[str]) -> dict[str, Any]:
    """The body of a call.

    Args:
        model: what the server calls it.
        request: what is asked; what is as usual goes unsaid, as not every server knows every word.
        refused: of ``OPTIONAL``, what the server does not take.
    """
    limit = "max_completion_tokens" if "max_tokens" in refused else "max_tokens"
    said: dict[str, Any] = {limit: request.max_tokens, "temperature": request.temperature}
    if request.top_p < 1:
        said["top_p"] = request.top_p
    if request.stop:
        said["stop"] = list(request.stop)
    if request.seed is not None:
        said["seed"] = request.seed
    if request.n > 1:
        said["n"] = request.n
    messages = [{"role": message.role, "content": message.content} for message in request.messages]
    return {"model": model, "messages": messages, **{k: v for k, v in said.items() if k not in refused}}


def refusal(error: Any, text: str, said: Collection[str]) -> str | None:
    """Which of ``OPTIONAL`` a server's answer 400 or 422 refuses; None: none of them.

    Args:
        error: the ``error`` of its JSON, which may name a ``param``.
        text: all that it says.
        said: the names that the call held.
    """
    named = error.get("param") if isinstance(error, dict) else None
    if named in OPTIONAL and named in said:
        return str(named)
    no = r"(unsupported|not support|unknown|unrecogni|unexpected|not permitted|not allowed|extra|must be)"
    for name in OPTIONAL:
        if name in said and re.search(rf"['\"`]{name}['\"`]", text) and re.search(no, text, re.IGNORECASE):
            return name
    return None


def reply(answer: Any, request: Request, seconds: float) -> Reply:
    """The reply in a server's JSON: at most the n texts that were wanted, at least one.

    Raises:
        BadReply: there is no text in it.
    """
    choices = answer.get("choices") if isinstance(answer, dict) else None
    if not isinstance(choices, list) or not choices or not all(isinstance(choice, dict) for choice in choices):
        raise BadReply("its reply has no choices")
    usage = answer.get("usage")
    texts, finish = [], []
    for choice in choices[: request.n]:
        text, cut = until_stop(_text(choice), request.stop)
        texts.append(text)
        finish.append("length" if choice.get("finish_reason") == "length" and not cut else "stop")
    tokens = usage if isinstance(usage, dict) else {}
    asked, answered = _whole(tokens.get("prompt_tokens")), _whole(tokens.get("completion_tokens"))
    return Reply(tuple(texts), tuple(finish), asked, answered, seconds)


def until_stop(text: str, stop: Collection[str]) -> tuple[str, bool]:
    """The text before the first of some stop texts, and whether there was one."""
    ends = [place for place in (text.find(one) for one in stop) if place >= 0]
    return (text[: min(ends)], True) if ends else (text, False)


def _text(choice: dict[str, Any]) -> str:
    """What is said, without what is only thought: null is nothing, parts are put together, a refusal is an answer."""
    message = choice.get("message")
    if not isinstance(message, dict):
        raise BadReply("its reply has a choice without a message")
    content = message.get("content")
    if isinstance(content, list):
        parts = (part for part in content if isinstance(part, dict) and part.get("type") in ("text", "output_text"))
        content = "".join(str(part.get("text") or "") for part in parts)
    return _THOUGHT.sub("", str(content or message.get("refusal") or ""))


def _whole(number: Any) -> int | None:
    return number if isinstance(number, int) and not isinstance(number, bool) else None
