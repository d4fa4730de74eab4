"""Ten sets of questions that take reasoning, read from their files as they are published.

Arithmetic: GSM8K, SVAMP, MultiArith, AddSub, SingleEq, AQuA; commonsense: CommonsenseQA, StrategyQA (BIG-bench's file);
symbolic: last letters and coin flip (arXiv 2205.11916). A file may be a JSON list, an object with ``examples``, or one
JSON object a line, whatever its ending says.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dfolora.errors import UserError
from dfolora.question import AnswerKind, Family, Question, QuestionSet
from dfolora.registry import Registry

from .reading import Row, items, jsonl_rows, path_of, pick, text

ENDINGS = (".jsonl", ".json")
_NUMBER = re.compile(r"-?\d+(?:\.\d+)?(?:/\d+)?")
_CHOICE = re.compile(r"\s*\(?([A-J])\s*[).:]\s*")


@dataclass(frozen=True)
class Files:
    """Where a set of questions lies, and how a row of it is read. ``load`` is what a ``QuestionSet`` needs of it.

    Attributes:
        name: the set's.
        names: what its file may be called, in small letters and without marks or ending; the first is looked for first.
        generic: what the file may be called too where its folder has one of ``names``.
        question: a row to a question.
    """

    name: str
    names: tuple[str, ...]
    question: Callable[[Mapping[str, Any]], Question]
    generic: tuple[str, ...] = ("test", "dev", "validation", "questions", "task")

    def load(self, data: Path) -> list[Question]:
        """The questions of a file, or of the file with a fitting name in a folder or one level below.

        Raises:
            UserError: no such file, or a row that cannot be used: file and row.
        """
        file = self.file(data)
        questions = []
        for where, row in rows(file):
            try:
                found = self.question(row)
            except UserError as error:
                raise UserError(f"{where}: {error}") from None
            if not found.text:
                raise UserError(f"{where}: the question is empty")
            questions.append(Question(found.text, found.gold, found.choices, where))
        if not questions:
            raise UserError(f"{file}: no questions")
        return questions

    def file(self, data: Path) -> Path:
        """The set's file at or below ``data``."""
        data = path_of("data", data)
        if data.is_file():
            return data
        if not data.is_dir():
            raise UserError(f"data: {str(data)!r}: there is no such folder or file")
        here = [child for child in data.iterdir() if child.is_file()]
        below = [g for child in data.iterdir() if child.is_dir() for g in child.iterdir() if g.is_file()]
        wanted: list[tuple[str, str | None]] = [(name, None) for name in self.names]
        wanted += [(name, folder) for folder in self.names for name in self.generic]
        for name, folder in wanted:
            for file in sorted(here + below):
                fits = folder is None or _plain(file.resolve().parent.name) == folder
                if fits and file.suffix in ENDINGS and _plain(file.stem) == name:
                    return file
        raise UserError(
            f"data: {str(data)!r}: no file of {self.name}; looked here and one level below for "
            f"{' or '.join(name + '.json(l)' for name in self.names)}, whatever the case and the marks between words"
        )


def rows(path: Path) -> list[Row]:
    """The rows of a JSON list, of an object's ``examples``, or of lines with an object each, and where they stand."""
    try:
        whole = json.loads(path.read_text(encoding="utf-8-sig"))
    except (UnicodeDecodeError, OSError, RecursionError):
        whole = None
    except ValueError:
        whole = None  # several objects, or none: the reader of lines says which line is wrong
    if isinstance(whole, dict) and isinstance(whole.get("examples"), list):
        whole = whole["examples"]
    if not isinstance(whole, list):
        return list(jsonl_rows(path))
    for number, row in enumerate(whole, 1):
        if not isinstance(row, dict):
            raise UserError(f"{path}: row {number}: a JSON object is expected, not {str(row)[:40]!r}")
    return [(f"{path}: row {number}", row) for number, row in enumerate(whole, 1)]


def gsm8k(row: Mapping[str, Any]) -> Question:
    """``question``, and ``answer`` with a solution that ends in ``#### 18``."""
    _, mark, last = text(row, "answer").rpartition("####")
    if not mark:
        raise UserError("field 'answer' has no '####' with the number behind it")
    return Question(text(row, "question"), _number(last.replace(",", "").strip()))


def svamp(row: Mapping[str, Any]) -> Question:
    """``Body`` and ``Question``, which are joined, and the number ``Answer``."""
    body, question = text(row, "Body"), text(row, "Question")
    return Question(
        f"{body}{'' if body.endswith(('.', '?', '!', ',')) else '.'} {question}", _number(pick(row, "Answer"))
    )


def word_problem(row: Mapping[str, Any]) -> Question:
    """``sQuestion`` and ``lSolutions``, of which the first counts: MultiArith, AddSub and SingleEq."""
    solutions = items(row, "lSolutions")
    if not solutions:
        raise UserError("field 'lSolutions' is empty: the answer is missing")
    return Question(text(row, "sQuestion"), _number(solutions[0]))


def aqua(row: Mapping[str, Any]) -> Question:
    """``question``, ``options`` such as ``A)21``, and the letter ``correct``."""
    choices = []
    for number, option in enumerate(items(row, "options")):
        mark = _CHOICE.match(str(option))
        if not mark or ord(mark[1]) - ord("A") != number:
            raise UserError(f"field 'options': {str(option)[:40]!r} does not begin with {chr(ord('A') + number)})")
        choices.append(str(option)[mark.end() :].strip())
    return _chosen(text(row, "question"), tuple(choices), pick(row, "correct"))


def commonsenseqa(row: Mapping[str, Any]) -> Question:
    """``question`` with ``stem`` and ``choices`` (``label`` and ``text`` each), and the letter ``answerKey``."""
    question = pick(row, "question")
    listed = [(text(choice, "label"), text(choice, "text")) for choice in items(question, "choices")]
    for number, (label, _) in enumerate(listed):
        if label != chr(ord("A") + number):
            raise UserError(f"field 'choices': {label[:10]!r} stands where {chr(ord('A') + number)!r} is due")
    return _chosen(text(question, "stem"), tuple(choice for _, choice in listed), pick(row, "answerKey"))


def strategyqa(row: Mapping[str, Any]) -> Question:
    """``input`` and ``target_scores`` (``Yes`` and ``No``, one of them 1); or ``question`` and a boolean ``answer``."""
    if "target_scores" not in row:
        answer = pick(row, "answer")
        return Question(text(row, "question", "input"), _yes_no({True: "yes", False: "no"}.get(answer, answer)))
    scores = pick(row, "target_scores")
    right = [name for name, score in scores.items() if score == 1] if isinstance(scores, Mapping) else []
    if len(right) != 1:
        raise UserError(f"field 'target_scores' has to give 1 to one answer, not {str(scores)[:40]!r}")
    return Question(text(row, "input"), _yes_no(right[0]))


def coin_flip(row: Mapping[str, Any]) -> Question:
    """``question`` and ``answer``: yes or no."""
    return Question(text(row, "question"), _yes_no(pick(row, "answer")))


def last_letters(row: Mapping[str, Any]) -> Question:
    """``question`` and ``answer``: some letters."""
    answer = text(row, "answer")
    if not answer.isalpha():
        raise UserError(f"field 'answer' has to be letters, not {answer[:40]!r}")
    return Question(text(row, "question"), answer.lower())


def _chosen(question: str, choices: tuple[str, ...], right: object) -> Question:
    found = Question(question, str(right).strip(), choices)
    if len(found.gold) != 1 or found.gold not in found.letters:
        raise UserError(
            f"the answer {str(right)[:40]!r} is none of the choices {found.letters}: it is missing or wrong"
        )
    return found


def _number(value: object) -> str:
    shown = str(value).strip()
    if isinstance(value, bool) or not _NUMBER.fullmatch(shown):
        raise UserError(f"the answer {shown[:40]!r} is no number: it is missing or wrong")
    return shown[:-2] if shown.endswith(".0") else shown


def _yes_no(value: object) -> str:
    shown = str(value).strip().lower()
    if shown not in ("yes", "no"):
        raise UserError(f"the answer {str(value)[:40]!r} is neither yes nor no: it is missing or wrong")
    return shown


def _plain(name: str) -> str:
    return re.sub(r"[^a-z0-9]", "", name.lower())


def _set(
    name: str, names: str, question: Callable[[Mapping[str, Any]], Question], kind: AnswerKind, family: Family
) -> QuestionSet:
    return QuestionSet(name, kind, family, Files(name, tuple(names.split()), question).load)


GSM8K = _set("gsm8k", "gsm8ktest gsm8k grademath", gsm8k, "number", "arithmetic")
SVAMP = _set("svamp", "svamp svamptest", svamp, "number", "arithmetic")
MULTIARITH = _set("multiarith", "multiarith multiarithtest", word_problem, "number", "arithmetic")
ADDSUB = _set("addsub", "addsub addsubtest", word_problem, "number", "arithmetic")
SINGLEEQ = _set("singleeq", "singleeq singleeqtest", word_problem, "number", "arithmetic")
AQUA = _set("aqua", "aquatest aqua aquadev", aqua, "choice", "arithmetic")
COMMONSENSEQA = _set(
    "commonsenseqa", "commonsenseqadev commonsenseqa devrandsplit csqadev", commonsenseqa, "choice", "commonsense"
)
STRATEGYQA = _set("strategyqa", "strategyqa strategyqadev strategyqatest", strategyqa, "yes-no", "commonsense")
LAST_LETTERS = _set("last-letters", "lastletters lastletterstest", last_letters, "letters", "letters")
COIN_FLIP = _set("coin-flip", "coinflip coinfliptest", coin_flip, "yes-no", "coin")

_HERE = "dfolora.tasks.reasoning:"
REGISTRY = Registry(
    "task",
    {
        "gsm8k": (_HERE + "GSM8K", "word problems of grade school, several steps each; a number"),
        "svamp": (_HERE + "SVAMP", "short word problems, varied so that skimming fails; a number"),
        "multiarith": (_HERE + "MULTIARITH", "word problems of two steps or more; a number"),
        "addsub": (_HERE + "ADDSUB", "word problems with sums and differences; a number"),
        "singleeq": (_HERE + "SINGLEEQ", "word problems of one equation; a number"),
        "aqua": (_HERE + "AQUA", "algebra with five choices; a letter"),
        "commonsenseqa": (_HERE + "COMMONSENSEQA", "everyday knowledge, five choices; a letter"),
        "strategyqa": (_HERE + "STRATEGYQA", "questions whose steps are not said; yes or no"),
        "last-letters": (_HERE + "LAST_LETTERS", "the last letters of a name's words; letters"),
        "coin-flip": (_HERE + "COIN_FLIP", "is a coin still heads up after some flips? yes or no"),
    },
    "dfolora.question_sets",
)


def question_set(name: str) -> QuestionSet:
    """The set of questions of that name.

    Raises:
        UserError: the name is not known (near ones are suggested), or stands for something else.
    """
    found = REGISTRY.get(name)
    if not isinstance(found, QuestionSet):
        raise UserError(f"task: {name!r} is a {type(found).__name__}, not a QuestionSet")
    return found
