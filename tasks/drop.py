"""DROP: questions that take counting, sorting or sums over a passage. The answer is generated; token F1, exact match.

Read as it is published (``drop_dataset_train.json``, the test set is ``drop_dataset_dev.json``) or as the Hub's rows in
jsonl files. A number, a date, or each of an answer's spans is a text of its own; any of them is right and the first one
is taught, measured as SQuAD is: the template and the metric of MeZO (arXiv 2305.17333), not DROP's own F1.
Questions without an answer, which the published files hold, are left out.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from dfolora.errors import UserError
from dfolora.task import Example, Prompt, Task

from .common import Dataset, Hub
from .metrics import squad
from .reading import Row, items, json_file, pick, read_rows, text, texts


def examples(record: Mapping[str, Any]) -> list[Example]:
    """A row with ``passage``, ``question`` and ``answers_spans``, an object whose ``spans`` are texts."""
    spans = texts(items(pick(record, "answers_spans"), "spans"), "spans")
    gold = tuple(dict.fromkeys(span.strip() for span in spans if span.strip()))
    if not gold:
        return []
    return [Example({"passage": text(record, "passage"), "question": text(record, "question")}, 0, gold=gold)]


def rows(path: Path) -> Iterator[Row]:
    """One row a question; a ``.json`` file holds passages by their names, which hold questions."""
    if path.suffix != ".json":
        yield from read_rows(path)
        return
    whole = json_file(path)
    try:
        for name, passage in whole.items():
            for k, pair in enumerate(items(passage, "qa_pairs")):
                answers = [pick(pair, "answer")]
                answers += items(pair, "validated_answers") if pair.get("validated_answers") else []
                spans = [span for answer in answers for span in answer_texts(answer)]
                row = {"passage": pick(passage, "passage"), "question": pick(pair, "question")}
                yield f"{path}: passage {name!r}, question {k}", {**row, "answers_spans": {"spans": spans}}
    except UserError as error:
        raise UserError(f"{path}: {error}") from None


def answer_texts(answer: object) -> list[str]:
    """The texts of a published answer: its number, its spans, or its date."""
    if not isinstance(answer, Mapping):
        raise UserError(f"an answer has to be an object, not {str(answer)[:40]!r}")
    if number := str(answer.get("number") or ""):
        return [number]
    if answer.get("spans"):
        return texts(items(answer, "spans"), "spans")
    date = answer.get("date") or {}
    if not isinstance(date, Mapping):
        raise UserError(f"a date has to be an object, not {str(date)[:40]!r}")
    day = " ".join(str(date.get(part) or "") for part in ("day", "month", "year")).split()
    return [" ".join(day)] if day else []


DATA = Dataset(
    "drop",
    folders=("DROP", "drop_dataset"),
    classes=(),
    examples=examples,
    hub=Hub("ucinlp/drop", None, "validation"),
    rows=rows,
    tests=("drop_dataset_dev.json", "validation.jsonl"),
    full=("drop_dataset_train.json",),
    one_class_train=True,
)

TASK = Task(
    name=DATA.name,
    classes=(),
    prompts={"causal": Prompt("Passage: {passage}\nQuestion: {question}\nAnswer: {mask}", answer="{choice}\n")},
    load=DATA.load,
    measure=squad,
    selection=("f1",),
    shorten="passage",
    one_class_train=True,
    new_tokens=50,
)
