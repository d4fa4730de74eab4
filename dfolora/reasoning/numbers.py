"""Numbers in running text: signs, thousands, decimals, fractions, currencies, and small numbers in words."""

from __future__ import annotations

import re

_SMALL = (
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen "
    "eighteen nineteen twenty"
).split()
WORDS = {word: number for number, word in enumerate(_SMALL)}
WORDS |= {
    word: 10 * tens
    for tens, word in enumerate("thirty forty fifty sixty seventy eighty ninety".split(), start=3)
}  # fmt: skip

NUMBER = re.compile(
    r"""(?<![\w.])                                 # not within a word or a number
    (?P<sign>(?<![\d)\]])-\s?)? [$€£]?\s? (?P<inner>-)?
    (?: (?P<mixed>\d+)\s+(?=\d+/\d) )?             # 1 1/2
    (?P<whole>\d{1,3}(?:,\d{3})+(?!\d)|\d+|(?=\.\d))
    (?P<decimals>\.\d+)?
    (?:\s?/\s?(?P<below>\d+))?                     # 3/4
    (?!(?:st|nd|rd|th)\b)""",
    re.VERBOSE,
)
_WORD = re.compile(rf"\b({'|'.join(sorted(WORDS, key=len, reverse=True))})(?:-({'|'.join(_SMALL[1:10])}))?\b", re.I)


def value_of(match: re.Match[str]) -> float | None:
    """The value of a match of ``NUMBER``; None for a fraction over zero."""
    value = float((match["whole"].replace(",", "") or "0") + (match["decimals"] or ""))
    if match["below"]:
        if not int(match["below"]):
            return None
        value = float(match["mixed"] or 0) + value / int(match["below"])
    return -value if match["sign"] or match["inner"] else value


def number_word(text: str) -> int | None:
    """The first small number that stands there in words: ``twenty-one`` is 21; None where there is none."""
    match = _WORD.search(text)
    return _word_value(match) if match else None


def numbers_in(text: str) -> set[float]:
    """Every number of a text, in digits or in words, without its sign (a dash is no minus)."""
    digits = {abs(value) for match in NUMBER.finditer(text) if (value := value_of(match)) is not None}
    return digits | {float(_word_value(match)) for match in _WORD.finditer(text)}


def digits_in(text: str) -> set[float]:
    """Every number of a text that is written in digits, without its sign."""
    return {abs(value) for match in NUMBER.finditer(text) if (value := value_of(match)) is not None}


def _word_value(match: re.Match[str]) -> int:
    return WORDS[match[1].lower()] + (WORDS[match[2].lower()] if match[2] else 0)
