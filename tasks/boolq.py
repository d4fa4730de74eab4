"""BoolQ: is the answer to a question about a passage yes? The validation set is the test set. Accuracy."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from dfolora.task import Example, Prompt, Task

from .common import Dataset, Hub
from .metrics import accuracy
from .reading import class_index, pick, text

CLASSES = ("false", "true")


def examples(record: Mapping[str, Any]) -> list[Example]:
    """A row with ``passage``, ``question`` (lower-cased, mostly without a question mark) and ``label``."""
    fields = {"passage": text(record, "passage"), "question": text(record, "question").rstrip("? ")}
    return [Example(fields, class_index(pick(record, "label"), CLASSES))]


DATA = Dataset(
    "superglue/boolq",
    folders=("BoolQ",),
    classes=CLASSES,
    examples=examples,
    hub=Hub("aps/super_glue", "boolq", "validation"),
)

TASK = Task(
    name=DATA.name,
    classes=CLASSES,
    prompts={
        "masked": Prompt("{passage} Question: {question}? Answer: {mask}.", ("No", "Yes")),
        "causal": Prompt("{passage} Question: {question}? Answer: {mask}", ("No", "Yes")),
        "seq2seq": Prompt("{passage} Question: {question}? Answer: {mask}.", ("No", "Yes")),
        "encoder": Prompt("{passage} {question}?", ("No, that is not true.", "Yes, that is true.")),
    },
    load=DATA.load,
    measure=accuracy,
    shorten="passage",
    sizes={"test": 3270},
)
