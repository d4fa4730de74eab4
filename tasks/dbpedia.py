"""DBPedia-14: what kind of thing does an encyclopedia's first paragraph describe? Accuracy.

Two orders of the fourteen labels are about: the original one, counted from 0, and that of the test file
``test_dhim5000.csv`` (a re-split by the authors of DHIM), counted from 1. Some of that file's texts are also in the
few-shot training and dev files; they are left out of the test set, for every split alike.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from dfolora.errors import UserError
from dfolora.task import Example, Prompt, Task

from .common import Dataset, Hub, Source, split_name
from .metrics import accuracy
from .reading import Row, class_index, csv_cells, pick, read_rows, text

CLASSES = (
    "Company",
    "EducationalInstitution",
    "Artist",
    "Athlete",
    "OfficeHolder",
    "MeanOfTransportation",
    "Building",
    "NaturalPlace",
    "Village",
    "Animal",
    "Plant",
    "Album",
    "Film",
    "WrittenWork",
)
DHIM_CLASSES = (
    "Artist",
    "Company",
    "OfficeHolder",
    "Building",
    "Village",
    "Plant",
    "EducationalInstitution",
    "Animal",
    "Album",
    "WrittenWork",
    "NaturalPlace",
    "MeanOfTransportation",
    "Athlete",
    "Film",
)


def rows(path: Path) -> Iterator[Row]:
    """Like every dataset's, and DHIM's csv files without a header, their labels turned into class names."""
    return _dhim(path) if "dhim" in path.name else read_rows(path)


def _dhim(path: Path) -> Iterator[Row]:
    for where, cells in csv_cells(path):
        if len(cells) != 2:
            raise UserError(f"{where}: a label and a text are expected, not {len(cells)} columns")
        label, sentence = cells
        if not label.isdecimal() or not 1 <= int(label) <= len(DHIM_CLASSES):
            raise UserError(f"{where}: label {label[:40]!r} is none of 1 to {len(DHIM_CLASSES)}")
        yield where, {"sentence": sentence, "label": DHIM_CLASSES[int(label) - 1]}


def examples(record: Mapping[str, Any]) -> list[Example]:
    """A row with ``sentence`` (on the Hub ``content``) and ``label``; the title is not used, as in the paper."""
    sentence = text(record, "sentence", "content", "text")
    return [Example({"text": sentence}, class_index(pick(record, "label"), CLASSES))]


DATA = Dataset(
    "dbpedia",
    folders=("dbpedia", "dbpedia_14"),
    classes=CLASSES,
    examples=examples,
    hub=Hub("fancyzhx/dbpedia_14"),
    rows=rows,
    tests=("test_dhim5000.csv",),
)


def load(split: str, source: Source) -> list[Example]:
    """As any dataset's, less the test texts that a few-shot split of the same folder holds."""
    loaded = DATA.load(split, source)
    if split_name(split) != "test" or source.data is None:
        return loaded
    home, _ = DATA.home(source.data)
    seen = {
        " ".join(example.fields["text"].split())
        for name in ("train", "dev")
        for file in sorted(home.glob(f"*-*/{name}.*"))
        for _, record in rows(file)
        for example in examples(record)
    }
    return [example for example in loaded if " ".join(example.fields["text"].split()) not in seen]


WORDS = (
    "Company",
    "Education",
    "Artist",
    "Athlete",
    "Office",
    "Transportation",
    "Building",
    "Natural",
    "Village",
    "Animal",
    "Plant",
    "Album",
    "Film",
    "Written",
)

# Templates and words but the encoder's: as released with DFO-LoRA (arXiv 2403.01754), without the fifty arbitrary words
# which that code puts in front for GPT-2 and T5.
TASK = Task(
    name=DATA.name,
    classes=CLASSES,
    prompts={
        "masked": Prompt("[ Category: {mask} ] {text}", WORDS),
        "causal": Prompt("{text} The text above is about {mask}", tuple(word.lower() for word in WORDS)),
        "seq2seq": Prompt("[ Category: {mask} ] {text}", WORDS),
        "encoder": Prompt(
            "{text}",
            (
                "This is about a company.",
                "This is about a school or university.",
                "This is about an artist, a musician or a writer.",
                "This is about an athlete.",
                "This is about a politician.",
                "This is about a ship, an aircraft, a car or a train.",
                "This is about a building.",
                "This is about a river, a lake or a mountain.",
                "This is about a village.",
                "This is about a species of animal.",
                "This is about a species of plant.",
                "This is about a music album.",
                "This is about a film.",
                "This is about a book, a newspaper or a journal.",
            ),
        ),
    },
    load=load,
    measure=accuracy,
    shorten="text",
)
