"""Crossover and mutation of instructions by a language model: what it is told, and how its reply is read."""

from __future__ import annotations

import re
from typing import NamedTuple

LONGEST = 120  # words of an instruction; more is talk about it

_CHILD = "Look at the facts first, then reason in small steps and check the result."
_EXAMPLE_CROSSOVER = (
    "Example\n"
    "Prompt 1: Look at the facts before you decide.\n"
    "Prompt 2: Reason in small steps and check what comes out.\n"
    f"Reply: <prompt>{_CHILD}</prompt>"
)
_OTHER = "Solve it one step after the other, and say why each step is right."
_EXAMPLE_MUTATION = f"Example\nPrompt: Solve this step by step.\nReply: <prompt>{_OTHER}</prompt>"
_THIRD = "Check every fact twice, reason in small steps, and put the result in one short line."
_EXAMPLE_DIFFERENCE = (
    "Example\n"
    "Prompt 1: Look at each fact and reason in small steps.\n"
    "Prompt 2: Look at each fact and guess quickly.\n"
    "Prompt 3: Check every fact and put the result in one line.\n"
    "Prompt 4: Reason in small steps and be brief.\n"
    '1. They differ in: "reason in small steps" and "guess quickly".\n'
    '2. Changed: "reason in small steps, twice if need be" and "estimate first".\n'
    "3. Put into Prompt 3: Check every fact twice and put the result in one line.\n"
    f"4. Crossed with Prompt 4: <prompt>{_THIRD}</prompt>"
)
_CLOSE = "Write the new prompt between <prompt> and </prompt>."

_TAGS = re.compile(r"<prompt>\s*(.*?)\s*(?:</prompt>|\Z)", re.DOTALL | re.IGNORECASE)
_LABEL = re.compile(r"^(?:(?:new|mutated|crossed|final|my)?\s*prompt(?:\s+\d+)?|reply|result)\s*:\s*", re.IGNORECASE)


CROSSOVER = "Two prompts for the same purpose follow. Cross them: make one new prompt that takes good parts of both."
MUTATION = (
    "A prompt follows. Mutate it: say it in other words, and change, drop or add a detail, with the same purpose."
)


def crossover(first: str, second: str, told: str = CROSSOVER) -> str:
    """What a model is told to make one instruction of two; ``told`` says what to do with them."""
    return f"{told} {_CLOSE}\n\n{_EXAMPLE_CROSSOVER}\n\nNow yours\nPrompt 1: {first}\nPrompt 2: {second}\nReply:"


def mutation(text: str, told: str = MUTATION) -> str:
    """What a model is told to change an instruction; ``told`` says what to do with it."""
    return f"{told} {_CLOSE}\n\n{_EXAMPLE_MUTATION}\n\nNow yours\nPrompt: {text}\nReply:"


def rewording(text: str) -> str:
    """What a model is told to say an instruction in other words, and no more."""
    return (
        "Say the following prompt in other words; its meaning stays. "
        f"{_CLOSE}\n\n{_EXAMPLE_MUTATION}\n\nNow yours\nPrompt: {text}\nReply:"
    )


def crossed_and_mutated(first: str, second: str) -> str:
    """What a model is told for a child of the genetic algorithm: crossover, then mutation, in one call."""
    return (
        "Two prompts for the same purpose follow. Work in two steps.\n"
        "1. Cross them: make one prompt that takes good parts of both.\n"
        f"2. Mutate what you have: change its wording or a detail. {_CLOSE}\n\n"
        f"{_EXAMPLE_CROSSOVER}\n\nNow yours\nPrompt 1: {first}\nPrompt 2: {second}\nReply:"
    )


def difference(first: str, second: str, best: str, base: str) -> str:
    """What a model is told for a child of differential evolution.

    Args:
        first, second: the donors, whose differing parts are changed.
        best: takes these parts up.
        base: is crossed with the outcome, and may be replaced by it.
    """
    return (
        "Four prompts for the same purpose follow. Work in four steps.\n"
        "1. Find the parts in which Prompt 1 and Prompt 2 differ.\n"
        "2. Change these parts.\n"
        "3. Put the changed parts into Prompt 3, in the place of what they fit.\n"
        f"4. Cross the outcome with Prompt 4. {_CLOSE}\n\n"
        f"{_EXAMPLE_DIFFERENCE}\n\nNow yours\n"
        f"Prompt 1: {first}\nPrompt 2: {second}\nPrompt 3: {best}\nPrompt 4: {base}\nReply:"
    )


class Variation(NamedTuple):
    """An instruction that was read from a reply.

    Attributes:
        text: the instruction; the one to fall back on where ``how`` is ``fallback``.
        how: ``tags``, ``plain`` (a short reply without tags) or ``fallback``.
    """

    text: str
    how: str


def read(reply: str, fallback: str) -> Variation:
    """The instruction in a reply: what stands in the last tags, or all of a reply of one short line.

    An example that is merely repeated, dots, and what is longer than ``LONGEST`` words do not count.

    Args:
        reply: of the model.
        fallback: the instruction that is taken where the reply holds none.
    """
    tagged = [" ".join(part.split()) for part in _TAGS.findall(reply)]
    for text in reversed(tagged):
        if _usable(text):
            return Variation(text, "tags")
    plain = _LABEL.sub("", reply.strip()).strip().strip("\"'“”")
    if not tagged and "\n" not in plain and _usable(plain):
        return Variation(plain, "plain")
    return Variation(fallback, "fallback")


def _usable(text: str) -> bool:
    words = re.findall(r"\w+", text)
    return 2 <= len(words) <= LONGEST and text not in (_CHILD, _OTHER, _THIRD) and "prompt>" not in text.lower()
