"""Find the answer in what a model wrote: a number, the letter of a choice, yes or no, letters; and how it was found.

The rules are stricter than "the last number": what stands behind words that announce an answer goes first.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction

from dfolora.question import AnswerKind, Question
from dfolora.reasoning.numbers import NUMBER, number_word, value_of

CLOSE = 1e-3  # numbers as near as that are the same

_BOXED = re.compile(r"\\boxed\s*\{((?:[^{}]|\{[^{}]*\})*)\}")
_FRACTION = re.compile(r"\\[dt]?frac\s*\{\s*(\d+)\s*\}\s*\{\s*(\d+)\s*\}")
_MARKUP = re.compile(r"\*\*|__|`|\\[()\[\]]|\\text\s*(?=\{)|\\[,;! ]")
_ADDITION = r"(?:\s*\([^()\n]{0,60}\))?(?:\s+(?:to|for|of)\b[^.\n]{0,80}?)?"
_MARK = re.compile(
    rf"\b(?:answer|solution){_ADDITION}\s*(?:\bis\b|\bwould be\b|\bmust be\b|\bshould be\b|=|:)\s*:?|####",
    re.IGNORECASE,
)
_END = re.compile(r"[.!?](?=\s|$)|\n")
_QUOTED = re.compile(r"[\"'“‘”’]([A-Za-z][A-Za-z .,\-]*)[\"'“”‘’]")


@dataclass(frozen=True)
class Answer:
    """An answer that was found in a text.

    Attributes:
        value: a float, or a text in the form of ``Question.gold``; None: none was found.
        how: ``marker`` (behind words such as "the answer is"), ``choice text`` (it names a choice's text), ``last``
            (the last thing that fits), ``second call``, ``vote`` (of several samples) or ``none``.
        raw: the words that it was read from.
    """

    value: float | str | None
    how: str
    raw: str = ""


NONE = Answer(None, "none")


def extract(text: str, kind: AnswerKind, choices: tuple[str, ...] = ()) -> Answer:
    """The answer in a text; ``how`` is ``none`` where there is none.

    Args:
        text: what a model wrote.
        kind: what the answer is.
        choices: the texts of the choices A, B, ..., for ``choice``.
    """
    plain = _plain(text)
    find = _FINDERS[kind]
    for mark in reversed(list(_MARK.finditer(plain))):
        tail = _sentence(plain[mark.end() :])
        if (found := find(tail, choices, True)) is not None:
            return Answer(found[0], found[1] or "marker", tail)
    if (found := find(plain, choices, False)) is not None:
        return Answer(found[0], found[1] or "last", plain[-200:])
    return NONE


def right(answer: Answer, question: Question, kind: AnswerKind) -> bool:
    """Whether an answer is the right one: numbers within 0.001, all else to the letter."""
    if answer.value is None:
        return False
    if kind == "number":
        return abs(float(answer.value) - float(Fraction(question.gold))) < CLOSE
    return str(answer.value) == question.gold


def _plain(text: str) -> str:
    """The text without markup; a boxed answer becomes one that is announced."""
    text = _FRACTION.sub(r"\1/\2", text)
    text = _BOXED.sub(lambda box: f" the answer is: {box[1]} . ", text)
    return _MARKUP.sub("", text).replace("−", "-").strip()


def _sentence(tail: str) -> str:
    """The rest of a sentence behind a mark, which may stand alone on its line."""
    tail = tail.strip()
    end = _END.search(tail)
    return tail[: end.start()].strip() if end else tail


Found = tuple[float | str, str] | None
"""A value and how it was found ('': as the place says), or nothing."""


def _number(text: str, choices: tuple[str, ...], marked: bool) -> Found:
    if not marked:
        numbers = [value for match in NUMBER.finditer(text) if (value := value_of(match)) is not None]
        return (numbers[-1], "") if numbers else None
    result = text.rpartition("=")[2] if "=" in text else text
    for part in (result, text):
        for match in NUMBER.finditer(part):
            if (value := value_of(match)) is not None:
                return value, ""
    word = number_word(text)
    return None if word is None else (float(word), "")


def _choice(text: str, choices: tuple[str, ...], marked: bool) -> Found:
    letters = "".join(chr(ord("A") + k) for k in range(len(choices)))
    if not letters:
        return None
    if marked:
        first = re.match(rf"\W*(?:(?:option|choice|letter)\s+)?\(?([{letters}])\b(?!['’])", text)
        if first and not _article(first[1], text[first.end() :]):
            return first[1], ""
        inside = re.findall(rf"\(\s*([{letters}])\s*\)|\b([{letters}])[).:]", text)
        if len(named := {one or other for one, other in inside}) == 1:
            return named.pop(), ""
        return _choice_text(text, choices, letters)
    alone = re.match(rf"\W*([{letters}])\s*[).:](?!\w)", text)
    lines = [line for line in text.splitlines() if line.strip()]
    if lines and (last := re.fullmatch(rf"\W*([{letters}])\W*", lines[-1])):
        return last[1], ""
    if alone and len({*re.findall(rf"\b([{letters}])\s*[).:]", text)}) <= 1:
        return alone[1], ""
    pattern = re.compile(rf"(?<!\w)\(\s*([{letters}])\s*\)|\b(?:[Oo]ption|[Cc]hoice)\s+\(?([{letters}])\b")
    for line in reversed(lines):
        named = {one or other for one, other in pattern.findall(line)}
        if len(named) == 1:
            return named.pop(), ""
    sentences = [part for part in _END.split(text) if part.strip()]
    return _choice_text(sentences[-1], choices, letters) if sentences else None


def _article(letter: str, rest: str) -> bool:
    """Whether an A is the article of a word behind it."""
    return letter == "A" and bool(re.match(r"\s+(?!because|since|as\b|and\b|is\b|which\b|with\b)[a-z]", rest))


def _choice_text(text: str, choices: tuple[str, ...], letters: str) -> Found:
    """The one choice whose text occurs; a longer text hides those that are a part of it."""
    named: dict[str, str] = {}
    for letter, choice in zip(letters, choices, strict=True):
        if choice and re.search(rf"(?<![\w.,$-]){re.escape(choice)}(?!\w|[.,]\d)", text, re.IGNORECASE):
            named[letter] = choice.lower()
    longest = [a for a, one in named.items() if not any(one in other and one != other for other in named.values())]
    return (longest[0], "choice text") if len(longest) == 1 else None


def _yes_no(text: str, choices: tuple[str, ...], marked: bool) -> Found:
    # "no" before a noun ("no doubt") decides nothing.
    words = re.findall(r"\byes\b|\bno\b(?!\s+(?!the\b|it\b|they\b|he\b|she\b|because\b|since\b)[a-z])", text.lower())
    if not words:
        return None
    opens = re.match(r"\W*(yes|no)\b(?!\s+[a-z])", text.lower())
    return (words[0] if marked else opens[1] if opens else words[-1]), ""


def _letters(text: str, choices: tuple[str, ...], marked: bool) -> Found:
    quoted = [_joined(part) for part in _QUOTED.findall(text)]
    quoted = [part for part in quoted if part]
    if quoted:
        return quoted[0 if marked else -1], ""
    said = re.split(r"\b(?:is|are|get|gives?)\b|:|=", text)[-1] if marked else text
    found = _joined(said)
    return (found, "") if found else None


def _joined(text: str) -> str:
    """The letters of one word, or of single letters with marks or blanks between; '' for anything longer."""
    parts = re.findall(r"[A-Za-z]+", text)
    whole = len(parts) == 1 or all(len(part) == 1 for part in parts)
    joined = "".join(parts).lower()
    return joined if whole and 0 < len(joined) <= 12 else ""


_FINDERS: dict[AnswerKind, Callable[[str, tuple[str, ...], bool], Found]] = {
    "number": _number,
    "choice": _choice,
    "yes-no": _yes_no,
    "letters": _letters,
}
