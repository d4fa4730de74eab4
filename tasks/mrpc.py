"""MRPC: do two sentences say the same? GLUE's development set is the test set. F1 of "yes", and accuracy.

That test set was cut out of the corpus' own training file (``full_msr_train.tsv``), so a split drawn from that file is
tested on the corpus' own test file instead.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from dfolora.task import Example, Prompt, Task

from .common import Dataset, Hub
from .metrics import f1_and_accuracy
from .reading import class_index, pick, text

CLASSES = ("different", "paraphrase")


def examples(record: Mapping[str, Any]) -> list[Example]:
    """A row of the corpus (``#1 String``, ``#2 String``, ``Quality``) or of the Hub."""
    fields = {
        "sentence1": text(record, "sentence1", "#1 String"),
        "sentence2": text(record, "sentence2", "#2 String"),
    }
    return [Example(fields, class_index(pick(record, "label", "Quality"), CLASSES))]


DATA = Dataset(
    "glue/mrpc",
    folders=("MRPC",),
    classes=CLASSES,
    examples=examples,
    hub=Hub("nyu-mll/glue", "mrpc", "validation"),
    full=("full_msr_train.tsv",),
    full_test=("full_msr_test.tsv",),
)

# Templates and words but the encoder's: as released with DFO-LoRA (arXiv 2403.01754), without the fifty arbitrary words
# which that code puts in front for T5.
TASK = Task(
    name=DATA.name,
    classes=CLASSES,
    prompts={
        "masked": Prompt("{sentence1} ? {mask} , {sentence2}", ("No", "Yes")),
        "causal": Prompt("{sentence1} the {sentence2} ? Answer: {mask}", ("No", "Yes")),
        "seq2seq": Prompt("{sentence1} ? {mask} , {sentence2}", ("No", "Yes")),
        "encoder": Prompt(
            "{sentence1} {sentence2}",
            ("These two sentences say different things.", "These two sentences say the same thing."),
        ),
    },
    load=DATA.load,
    measure=f1_and_accuracy,
    shorten="sentence1",
    sizes={"test": 408},
)
