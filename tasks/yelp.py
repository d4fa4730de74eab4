"""Yelp polarity: is a review of a business positive? Accuracy.

Reviews write a line break as backslash and n, and a quotation mark behind a backslash; both are undone here. In the
published few-shot files train and dev are raw text, while the test file (TextFooler's 1,000 reviews) is lower-cased and
tokenised: compare accuracies on it with each other, not with those on the official test set.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from dfolora.errors import UserError
from dfolora.task import Example, Prompt, Task

from .common import Dataset, Hub
from .metrics import accuracy
from .reading import Row, class_index, lines, pick, read_rows, text

CLASSES = ("negative", "positive")


def clean(review: str) -> str:
    """The review on one line, with its escaped line breaks and quotation marks undone."""
    return " ".join(review.replace("\\n", " ").replace('\\"', '"').split())


def rows(path: Path) -> Iterator[Row]:
    """Like every dataset's, and ``.txt`` files of ``<label> <text>`` lines, the text sometimes in quotation marks."""
    return _label_first(path) if path.suffix == ".txt" else read_rows(path)


def _label_first(path: Path) -> Iterator[Row]:
    for where, line in lines(path):
        label, space, review = line.partition(" ")
        if not space:
            raise UserError(f"{where}: a label, a space and a text are expected, not {line[:40]!r}")
        if len(review) > 1 and review[0] == review[-1] == '"':
            review = review[1:-1].replace('""', '"')
        yield where, {"text": review, "label": label}


def examples(record: Mapping[str, Any]) -> list[Example]:
    """A row with ``text`` and ``label``."""
    return [Example({"text": clean(text(record, "text", "sentence"))}, class_index(pick(record, "label"), CLASSES))]


DATA = Dataset(
    "yelp",
    folders=("yelp-2", "yelp", "yelp_polarity"),
    classes=CLASSES,
    examples=examples,
    hub=Hub("fancyzhx/yelp_polarity"),
    rows=rows,
    tests=("test_textfooler1000.txt",),
)

# Templates and words but the encoder's: as released with DFO-LoRA (arXiv 2403.01754).
TASK = Task(
    name=DATA.name,
    classes=CLASSES,
    prompts={
        "masked": Prompt("{text} . It was {mask} .", ("bad", "great")),
        "causal": Prompt("{text} . It is {mask}", ("negative", "positive")),
        "seq2seq": Prompt("text: {text} . It was {mask}", ("negative", "positive")),
        "encoder": Prompt("{text}", ("I had a terrible experience.", "I had a great experience.")),
    },
    load=DATA.load,
    measure=accuracy,
    shorten="text",
)
