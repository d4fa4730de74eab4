"""Messages as the text that a local model continues: by its chat template, or as questions and answers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from dfolora.chat.chat import Message
from dfolora.errors import UserError, unknown

TEMPLATES = ("auto", "chat", "plain")
NEXT_QUESTION = "\nQ:"  # where a model without a template goes on to ask itself


def template_of(tokenizer: Any, wanted: str, name: str) -> bool:
    """Whether the tokenizer's chat template is used.

    Args:
        tokenizer: of the model.
        wanted: ``chat``, ``plain``, or ``auto``: the template where there is one.
        name: the model's, for errors.

    Raises:
        UserError: it has none and one is asked for.
    """
    if wanted not in TEMPLATES:
        raise unknown("template", wanted, TEMPLATES)
    there = bool(getattr(tokenizer, "chat_template", None))
    if wanted == "chat" and not there:
        raise UserError(f"template: {name!r} has no chat template in its tokenizer; say plain, or take a chat model")
    return there and wanted != "plain"


def prompt(tokenizer: Any, messages: Sequence[Message], chat: bool) -> list[int]:
    """The token ids behind which the model answers. A last message of the assistant is the beginning of the answer.

    Raises:
        UserError: the template does not take these messages.
    """
    begun = messages[-1].role == "assistant"
    if not chat:
        ids: list[int] = tokenizer(plain(messages))["input_ids"]
        end = tokenizer.eos_token_id
        return ids[:-1] if len(ids) > 1 and ids[-1] == end else ids
    turns = [message._asdict() for message in messages]
    try:
        text = tokenizer.apply_chat_template(
            turns, tokenize=False, add_generation_prompt=not begun, continue_final_message=begun
        )
    except Exception as error:  # of Jinja, or what the template raises itself
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise UserError(f"messages: the model's chat template does not take them ({reason:.200}); try plain") from error
    return list(tokenizer(text, add_special_tokens=False)["input_ids"])  # the template writes them itself


def plain(messages: Sequence[Message]) -> str:
    """``Q: ...`` and ``A: ...`` by turns behind what the system says, up to the answer."""
    parts = []
    for message in messages:
        parts.append({"user": "Q: ", "assistant": "A: ", "system": ""}[message.role] + message.content)
    if messages[-1].role != "assistant":
        parts.append("A:")
    return "\n".join(parts)
