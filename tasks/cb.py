"""CommitmentBank: does the speaker commit to the hypothesis? The validation set (56 examples) is the test set.

Accuracy and macro F1 over the three classes. The set is small and unbalanced: one of its five neutral examples moves
macro F1 by about ten points.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from dfolora.task import Example, Prompt, Task

from .common import Dataset, Hub
from .metrics import accuracy_and_macro_f1
from .reading import class_index, pick, text

CLASSES = ("entailment", "contradiction", "neutral")


def examples(record: Mapping[str, Any]) -> list[Example]:
    """A row with ``premise``, ``hypothesis`` and ``label``."""
    fields = {"premise": text(record, "premise"), "hypothesis": text(record, "hypothesis")}
    return [Example(fields, class_index(pick(record, "label"), CLASSES))]


DATA = Dataset(
    "superglue/cb",
    folders=("CB",),
    classes=CLASSES,
    examples=examples,
    hub=Hub("aps/super_glue", "cb", "validation"),
)

TASK = Task(
    name=DATA.name,
    classes=CLASSES,
    prompts={
        "masked": Prompt("{premise} ? {mask} , {hypothesis} .", ("Yes", "No", "Maybe")),
        "causal": Prompt("{premise} Question: {hypothesis}? Yes, No or Maybe? Answer: {mask}", ("Yes", "No", "Maybe")),
        "seq2seq": Prompt("{premise} ? {mask} , {hypothesis} .", ("Yes", "No", "Maybe")),
        "encoder": Prompt(
            "{premise} {hypothesis}.",
            (
                "The speaker believes the last statement.",
                "The speaker denies the last statement.",
                "The speaker leaves the last statement open.",
            ),
        ),
    },
    load=DATA.load,
    measure=accuracy_and_macro_f1(len(CLASSES)),
    shorten="premise",
    sizes={"test": 56},
)
