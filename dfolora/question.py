"""A question with its right answer, and a set of them: what `dfolora prompt` puts to a model."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

AnswerKind = Literal["number", "choice", "yes-no", "letters"]
Family = Literal["arithmetic", "commonsense", "coin", "letters"]


@dataclass(frozen=True)
class Question:
    """A question as text, and what is right.

    Attributes:
        text: the question, without its choices.
        gold: the right answer: a number in digits, the letter of a choice, ``yes`` or ``no``, or letters.
        choices: the texts of the choices A, B, C and so on; empty where the answer is free.
        where: file and row that it comes from, for errors and traces.
    """

    text: str
    gold: str
    choices: tuple[str, ...] = ()
    where: str = field(default="", compare=False)

    @property
    def letters(self) -> str:
        """The letters of the choices: ``ABCDE`` for five."""
        return "".join(chr(ord("A") + k) for k in range(len(self.choices)))

    @property
    def listed(self) -> str:
        """The choices as a model reads them; '' where there are none."""
        if not self.choices:
            return ""
        pairs = zip(self.letters, self.choices, strict=True)
        return "Answer choices: " + " ".join(f"({letter}) {text}" for letter, text in pairs)

    @property
    def whole(self) -> str:
        """The question and its choices."""
        return f"{self.text} {self.listed}".strip()


@dataclass(frozen=True)
class QuestionSet:
    """A set of questions whose answers are of one kind, and how it is loaded.

    Attributes:
        name: as the user types it, such as ``gsm8k``.
        kind: what its answers are.
        family: which instructions suit it.
        load: the questions in a folder or file, in their order; raises ``UserError`` with file and row.
        about: what it is, in one line.
    """

    name: str
    kind: AnswerKind
    family: Family
    load: Callable[[Path], list[Question]]
    about: str = field(default="", compare=False)
