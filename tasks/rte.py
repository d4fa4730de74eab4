"""RTE: does the premise entail the hypothesis? The validation set is the test set. Accuracy.

GLUE's and SuperGLUE's RTE are the same data; FewGLUE's jsonl files and LM-BFF's tsv files are both read.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from dfolora.task import Example, Prompt, Task

from .common import Dataset, Hub
from .metrics import accuracy
from .reading import class_index, pick, text

CLASSES = ("entailment", "not_entailment")


def examples(record: Mapping[str, Any]) -> list[Example]:
    """SuperGLUE's ``premise`` and ``hypothesis``, or GLUE's ``sentence1`` and ``sentence2``."""
    fields = {
        "premise": text(record, "premise", "sentence1"),
        "hypothesis": text(record, "hypothesis", "sentence2"),
    }
    return [Example(fields, class_index(pick(record, "label"), CLASSES))]


DATA = Dataset(
    "superglue/rte",
    folders=("RTE",),
    classes=CLASSES,
    examples=examples,
    hub=Hub("aps/super_glue", "rte", "validation"),
)

# Templates and words but the encoder's: as released with DFO-LoRA (arXiv 2403.01754), without the fifty arbitrary words
# which that code puts in front for T5.
TASK = Task(
    name=DATA.name,
    classes=CLASSES,
    prompts={
        "masked": Prompt("{premise} ? {mask} , {hypothesis}", ("Yes", "No")),
        "causal": Prompt("{premise} {hypothesis} Answer: {mask}", ("Yes", "No")),
        "seq2seq": Prompt("{premise} ? {mask} , {hypothesis}", ("Yes", "No")),
        "encoder": Prompt(
            "{premise} {hypothesis}",
            ("The last sentence follows from the text.", "The last sentence does not follow from the text."),
        ),
    },
    load=DATA.load,
    measure=accuracy,
    shorten="premise",
    sizes={"test": 277},
)
