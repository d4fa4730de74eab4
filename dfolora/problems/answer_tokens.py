"""The tokens of an answer as it stands behind its prompt, with a space in front or without."""

from __future__ import annotations

import unicodedata
from typing import Any

from dfolora.errors import UserError
from dfolora.task import Kind

# Scripts that put no space between words and are not as wide as Chinese characters are: Thai, Lao, Tibetan, Burmese,
# Khmer.
_WITHOUT_SPACES = ((0x0E00, 0x0FFF), (0x1000, 0x109F), (0x1780, 0x17FF))


class AnswerTokens:
    """Turns answers into tokens for one tokenizer and kind of model.

    Attributes:
        end: tokens that the tokenizer puts behind every text, such as an end token; empty where it puts none.
    """

    def __init__(self, tokenizer: Any, kind: Kind) -> None:
        """Find out what the tokenizer puts behind a text."""
        self.tokenizer = tokenizer
        self.kind = kind
        self.end = self._end()

    def tokens(self, answer: str, before: str) -> list[int]:
        """Tokens of an answer as it stands behind a text.

        Args:
            answer: a label word or a choice.
            before: what stands in front of it, not stripped: a text, or a template up to its ``{mask}``.
        """
        if self.kind == "causal" and before.endswith("\n"):
            # Tokens behind the line's end: SentencePiece begins a text with a space, which is not there.
            return self._behind("\n", answer) or self.ids(answer)
        if before.endswith((" ", "\n")) or (self.kind == "causal" and takes_a_space(before)):
            ids = self.ids(" " + answer)
        else:
            ids = (self._behind(before[-1], answer) if self.kind == "causal" and before else []) or self.ids(answer)
        # SentencePiece gives a text that starts with a space a piece of its own for it.
        return ids[1:] if len(ids) > 1 and self.tokenizer.convert_ids_to_tokens(ids[:1]) == ["▁"] else ids

    def _behind(self, text: str, answer: str) -> list[int]:
        """What the tokens of an answer are right behind a text; nothing where the two share a token."""
        front, both = self.ids(text), self.ids(text + answer)
        return both[len(front) :] if both[: len(front)] == front else []

    def ids(self, text: str, special: bool = False) -> list[int]:
        """Tokens of a text by itself; ``special``: with what the tokenizer puts around every text.

        Raises:
            UserError: it is no text that can be written, such as half of a surrogate pair.
        """
        try:
            # Not verbose: what is too long for the model is cut later, and nothing to warn of.
            return list(self.tokenizer(text, add_special_tokens=special, verbose=False)["input_ids"])
        except (TypeError, UnicodeError) as error:
            raise UserError(f"the text {text[:40]!r} cannot be tokenised; it is no text that can be written") from error

    def _end(self) -> list[int]:
        plain, full = self.ids("a"), self.ids("a", special=True)
        for start in range(len(full) - len(plain) + 1):
            if plain and full[start : start + len(plain)] == plain:
                return full[start + len(plain) :]
        end = self.tokenizer.eos_token_id
        return [end] if end is not None and full[-1:] == [end] else []


def gap(before: str) -> str:
    """What a causal model reads between a text and the answer behind it: a space, or nothing.

    Args:
        before: the text, not stripped.
    """
    return " " if not before.endswith("\n") and (before.endswith(" ") or takes_a_space(before)) else ""


def takes_a_space(before: str) -> bool:
    """Whether a word that goes on behind a text would have a space in front, in running text.

    It does behind a letter, a figure, a comma, a colon or the end of a sentence, and behind a template's field; not
    behind a quotation mark, an opening bracket, or in a script that writes words together.
    """
    if not before:
        return False
    last = before[-1]
    if any(first <= ord(last) <= end for first, end in _WITHOUT_SPACES):
        return False
    if unicodedata.east_asian_width(last) in "WF" and not unicodedata.name(last, "").startswith("HANGUL"):
        return False
    return unicodedata.category(last)[0] in "LNM" or last in ".,:;!?…%)]}"
