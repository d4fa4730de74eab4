"""Word in Context: has a word the same sense in two sentences? The validation set is the test set. Accuracy.

Few-shot accuracies near 50 are usual for every published method.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from dfolora.task import Example, Prompt, Task

from .common import Dataset, Hub
from .metrics import accuracy
from .reading import class_index, pick, text

CLASSES = ("false", "true")


def examples(record: Mapping[str, Any]) -> list[Example]:
    """A row with ``word`` (the lemma: one sentence in five has another form of it), two sentences and ``label``."""
    fields = {name: text(record, name) for name in ("word", "sentence1", "sentence2")}
    return [Example(fields, class_index(pick(record, "label"), CLASSES))]


DATA = Dataset(
    "superglue/wic",
    folders=("WiC",),
    classes=CLASSES,
    examples=examples,
    hub=Hub("aps/super_glue", "wic", "validation"),
)

QUESTION = '{sentence1} {sentence2} Does "{word}" mean the same in both sentences?'
TASK = Task(
    name=DATA.name,
    classes=CLASSES,
    prompts={
        "masked": Prompt(QUESTION + " {mask}.", ("No", "Yes")),
        "causal": Prompt(QUESTION + " Answer: {mask}", ("No", "Yes")),
        "seq2seq": Prompt(QUESTION + " {mask}.", ("No", "Yes")),
        "encoder": Prompt(
            '{sentence1} {sentence2} The word is "{word}".',
            ("The word has two different meanings.", "The word has the same meaning twice."),
        ),
    },
    load=DATA.load,
    measure=accuracy,
    shorten="sentence1",
    sizes={"test": 638},
)
