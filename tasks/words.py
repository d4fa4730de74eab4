"""Label words as people give them: a mapping, a sequence, or text such as ``0=bad,1=great``."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from dfolora.errors import UserError

Words = str | Mapping[object, object] | Sequence[object]
"""Label -> word; or words in class order; or either of them as text, with ``\\,`` for a comma inside a word."""


def parse_label_words(words: Words, classes: Sequence[str] = ()) -> dict[str, str]:
    """Label -> word, in class order.

    Args:
        words: ``{"0": "bad", "1": "great"}``, ``["bad", "great"]``, ``"0=bad,1=great"`` or ``"bad,great"``. Labels of a
            mapping may be numbers or booleans; they are compared as text.
        classes: the labels in class order; empty: they are those that ``words`` names, in its order, and a sequence
            of bare words is for the labels ``0``, ``1`` and so on.

    Raises:
        UserError: a label twice or without a word, fewer than two, or not the labels that there are.
    """
    shown = f"label_words: {str(words)[:120]!r}"
    if isinstance(words, Mapping):
        pairs = [(label_text(label), _word(shown, word)) for label, word in words.items()]
    else:
        parts = _parts(words) if isinstance(words, str) else [_word(shown, word) for word in words]
        pairs = _pairs(parts, shown, classes, in_order=not isinstance(words, str) or bool(classes))
    named = {_known(label, classes): word for label, word in pairs}
    if classes and (len(named) < len(pairs) or set(named) != set(classes) or not all(named.values())):
        raise UserError(f"{shown}: one word is needed for each of {', '.join(classes)}")
    if len(named) < len(pairs) or len(named) < 2 or not all(named.values()):
        raise UserError(f"{shown}: two or more different labels are needed, each with its word")
    return {label: named[label] for label in classes or named}


def label_text(label: object) -> str:
    """A label as text: JSON and YAML write true where a csv file has the word."""
    return str(label).lower() if isinstance(label, bool) else str(label).strip()


def class_of(label: object, classes: Sequence[str]) -> int | None:
    """The class that a label of a file means; None where it is none of them. ``True`` and ``true`` are the same."""
    name = _known(label_text(label), classes)
    return classes.index(name) if name in classes else None


def _known(label: str, classes: Sequence[str]) -> str:
    if label in classes or label.lower() not in ("true", "false"):
        return label
    return next((name for name in classes if name.lower() == label.lower()), label)


def _pairs(parts: list[str], shown: str, classes: Sequence[str], in_order: bool) -> list[tuple[str, str]]:
    """Label and word of each part; ``in_order``: words without labels are taken in class order."""
    split = [(label.strip(), equals, word.strip()) for label, equals, word in (part.partition("=") for part in parts)]
    if in_order and not any(equals and (not classes or label in classes) for label, equals, _ in split):
        if classes and len(parts) != len(classes):
            raise UserError(f"{shown}: one word is needed for each of {', '.join(classes)}")
        return list(zip(classes or map(str, range(len(parts))), map(str.strip, parts), strict=True))
    for part, (_, equals, _) in zip(parts, split, strict=True):
        if not equals:
            like = f", such as {classes[0]}=word, for each of {', '.join(classes)}" if classes else ""
            raise UserError(f"{shown}: {part.strip()[:60]!r} is not label=word{like}")
    return [(label, word) for label, _, word in split]


def _parts(text: str) -> list[str]:
    return [part.replace("\\,", ",") for part in re.split(r"(?<!\\),", text)]


def _word(shown: str, word: object) -> str:
    if word is None or isinstance(word, (Mapping, list, tuple)):
        raise UserError(f"{shown}: {str(word)[:40]!r} is no word; put it in quotation marks if it is meant as one")
    return label_text(word)
