"""Rewards that ship: (texts, examples, what the user says in brackets) -> a number for each text, higher is better."""

from __future__ import annotations

import json as parser
import re
from collections.abc import Sequence

from dfolora.errors import UserError
from dfolora.task import Example

from .metrics import squad

_NUMBER = re.compile(r"-?\d[\d,]*(?:\.\d+)?|-?\.\d+")


def exact(texts: Sequence[str], examples: Sequence[Example]) -> list[float]:
    """1 for one of the gold texts; case, punctuation and articles aside, as SQuAD compares (arXiv 1606.05250)."""
    return _squad(texts, examples, "exact", "em")


def f1(texts: Sequence[str], examples: Sequence[Example]) -> list[float]:
    """SQuAD's F1 of words with the nearest gold text, 0 to 1 (arXiv 1606.05250)."""
    return _squad(texts, examples, "f1", "f1")


def numeric(texts: Sequence[str], examples: Sequence[Example]) -> list[float]:
    """1 where the last number of the text is the last number of a gold text, as GSM8K is scored (arXiv 2110.14168)."""
    wanted = [{_last_number(gold) for gold in _gold(example, "numeric")} - {None} for example in examples]
    for example, numbers in zip(examples, wanted, strict=True):
        if not numbers:
            raise UserError(f"reward: numeric compares numbers, and the gold text {example.gold[0][:60]!r} has none")
    return [float(_last_number(text) in numbers) for text, numbers in zip(texts, wanted, strict=True)]


def regex(texts: Sequence[str], examples: Sequence[Example], pattern: str) -> list[float]:
    """1 where a regular expression is found in the text; ^ and $ tie it to the ends."""
    try:
        compiled = re.compile(pattern)
    except re.error as error:
        raise UserError(f"reward: regex({pattern!r}) is no regular expression ({error})") from error
    return [float(compiled.search(text) is not None) for text in texts]


def json(texts: Sequence[str], examples: Sequence[Example], *keys: str) -> list[float]:
    """1 for a text that is one JSON object with all of these keys (none: any JSON object)."""
    return [float(_has_keys(text, keys)) for text in texts]


def length(texts: Sequence[str], examples: Sequence[Example], unit: str = "words") -> list[float]:
    """How long the text is, in words or in characters; with a weight below 0, a price."""
    if unit not in ("words", "characters"):
        raise UserError(f"reward: length({unit!r}) cannot work; give 'words' or 'characters'")
    return [float(len(text.split()) if unit == "words" else len(text)) for text in texts]


def _squad(texts: Sequence[str], examples: Sequence[Example], name: str, metric: str) -> list[float]:
    for example in examples:
        _gold(example, name)
    return [squad([example], [text])[metric] / 100 for text, example in zip(texts, examples, strict=True)]


def _gold(example: Example, name: str) -> tuple[str, ...]:
    if not example.gold:
        raise UserError(
            f"reward: {name} compares with a gold text, and {example.where or 'an example'} has none; name the column "
            "that holds it in label_column"
        )
    return example.gold


def _last_number(text: str) -> float | None:
    found = _NUMBER.findall(text)
    return float(found[-1].replace(",", "")) if found else None


def _has_keys(text: str, keys: Sequence[str]) -> bool:
    try:
        value = parser.loads(text)
    except (ValueError, RecursionError):
        return False
    return isinstance(value, dict) and all(key in value for key in keys)
