"""SST-2: is a movie review sentence positive? GLUE's development set is the test set. Accuracy."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from dfolora.task import Example, Prompt, Task

from .common import Dataset, Hub
from .metrics import accuracy
from .reading import class_index, pick, text

CLASSES = ("negative", "positive")


def examples(record: Mapping[str, Any]) -> list[Example]:
    """A row of GLUE's file or of the Hub: ``sentence``, ``label``."""
    return [Example({"text": text(record, "sentence", "text")}, class_index(pick(record, "label"), CLASSES))]


DATA = Dataset(
    "glue/sst2",
    folders=("SST-2", "sst2"),
    classes=CLASSES,
    examples=examples,
    hub=Hub("nyu-mll/glue", "sst2", "validation"),
    full=("full_train_alps.tsv",),
)

# Templates and words but the encoder's: as released with DFO-LoRA (arXiv 2403.01754).
TASK = Task(
    name=DATA.name,
    classes=CLASSES,
    prompts={
        "masked": Prompt("{text} . It was {mask} .", ("bad", "great")),
        "causal": Prompt("{text} . It was {mask}", ("negative", "positive")),
        "seq2seq": Prompt("text: {text} . It was {mask}", ("negative", "positive")),
        "encoder": Prompt("{text}", ("This movie is terrible.", "This movie is great.")),
    },
    load=DATA.load,
    measure=accuracy,
    shorten="text",
    sizes={"test": 872},
)
