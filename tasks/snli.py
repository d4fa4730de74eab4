"""SNLI: does the premise entail the hypothesis, contradict it, or neither? Accuracy.

Without an agreed label (``-1``, ``-``) an example is left out. A folder's test set is the first that is there of
``test.*``, the whole development set (``test_dev9842.jsonl``, LM-BFF's test set) and ``test_textfooler1000.tsv``; the
Hub's is the official test set.
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

CLASSES = ("entailment", "neutral", "contradiction")
UNLABELLED = (-1, "-1", "-")
PREMISE, HYPOTHESIS = 7, 8  # columns of GLUE's file; the label is the last of 11 columns, or of 15


def rows(path: Path) -> Iterator[Row]:
    """GLUE's tsv, whose rows have 11 or 15 columns; TextFooler's tsv without a header; jsonl."""
    if path.suffix != ".tsv":
        return read_rows(path)
    return _three_columns(path) if "textfooler" in path.name else _glue(path)


def _glue(path: Path) -> Iterator[Row]:
    for position, (where, line) in enumerate(lines(path)):
        cells = line.split("\t")
        if len(cells) <= HYPOTHESIS + 1:
            raise UserError(f"{where}: {len(cells)} columns, but the label comes after column {HYPOTHESIS + 1}")
        if position:
            yield where, {"premise": cells[PREMISE], "hypothesis": cells[HYPOTHESIS], "label": cells[-1]}


def _three_columns(path: Path) -> Iterator[Row]:
    for where, line in lines(path):
        cells = line.split("\t")
        if len(cells) != 3:
            raise UserError(f"{where}: label, premise and hypothesis are expected, not {len(cells)} columns")
        yield where, dict(zip(("label", "premise", "hypothesis"), cells, strict=True))


def examples(record: Mapping[str, Any]) -> list[Example]:
    """A row with ``premise``, ``hypothesis`` and ``label``; none where the annotators did not agree."""
    label = pick(record, "label")
    if label in UNLABELLED:
        return []
    fields = {"premise": text(record, "premise"), "hypothesis": text(record, "hypothesis")}
    return [Example(fields, class_index(label, CLASSES))]


DATA = Dataset(
    "snli",
    folders=("SNLI",),
    classes=CLASSES,
    examples=examples,
    hub=Hub("stanfordnlp/snli"),
    rows=rows,
    tests=("test_dev9842.jsonl", "test_textfooler1000.tsv"),
)

# Templates and words but the encoder's: as released with DFO-LoRA (arXiv 2403.01754), without the fifty arbitrary words
# which that code puts in front for T5.
TASK = Task(
    name=DATA.name,
    classes=CLASSES,
    prompts={
        "masked": Prompt("{premise} ? {mask} , {hypothesis}", ("Yes", "Maybe", "No")),
        "causal": Prompt("{premise} the {hypothesis} ? Answer: {mask}", ("Yes", "Maybe", "No")),
        "seq2seq": Prompt("{premise} ? {mask} , {hypothesis}", ("Yes", "Maybe", "No")),
        "encoder": Prompt(
            "{premise} {hypothesis}",
            (
                "The second sentence follows from the first.",
                "The second sentence may or may not be true.",
                "The second sentence contradicts the first.",
            ),
        ),
    },
    load=DATA.load,
    measure=accuracy,
    shorten="premise",
)
