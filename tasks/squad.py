"""SQuAD v1.1: answer a question with words of a passage of Wikipedia. The answer is generated; token F1, exact match.

Read as it is published (``train-v1.1.json``, the test set is ``dev-v1.1.json``) or as the Hub's rows, one question
each, in jsonl files. Any of an example's answers is right; the first one is taught. The template is that of MeZO
(arXiv 2305.17333).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from dfolora.errors import UserError
from dfolora.task import Example, Prompt, Task

from .common import Dataset, Hub
from .metrics import squad
from .reading import Row, items, json_file, pick, read_rows, text


def examples(record: Mapping[str, Any]) -> list[Example]:
    """A row with ``title``, ``context``, ``question`` and ``answers``: texts, or objects that have one."""
    answers = pick(record, "answers")
    entries = items(answers, "text") if isinstance(answers, Mapping) else items(record, "answers")
    texts = [answer if isinstance(answer, str) else text(answer, "text") for answer in entries]
    gold = tuple(dict.fromkeys(answer.strip() for answer in texts if answer.strip()))
    if not gold:
        raise UserError("the question has no answer; SQuAD v1.1 has one for each")
    fields = {"title": text(record, "title"), "passage": text(record, "context"), "question": text(record, "question")}
    return [Example(fields, 0, gold=gold)]


def rows(path: Path) -> Iterator[Row]:
    """One row a question; a ``.json`` file holds articles, which hold paragraphs, which hold questions."""
    if path.suffix != ".json":
        yield from read_rows(path)
        return
    whole = json_file(path)
    try:
        for i, article in enumerate(items(whole, "data")):
            for j, paragraph in enumerate(items(article, "paragraphs")):
                for k, pair in enumerate(items(paragraph, "qas")):
                    row = {"question": pick(pair, "question"), "answers": items(pair, "answers")}
                    row |= {"title": pick(article, "title"), "context": pick(paragraph, "context")}
                    yield f"{path}: article {i}, paragraph {j}, question {k}", row
    except UserError as error:
        raise UserError(f"{path}: {error}") from None


DATA = Dataset(
    "squad",
    folders=("SQuAD", "squad-v1.1", "squad_v1.1"),
    classes=(),
    examples=examples,
    hub=Hub("rajpurkar/squad", None, "validation"),
    rows=rows,
    tests=("dev-v1.1.json", "validation.jsonl"),
    full=("train-v1.1.json",),
    one_class_train=True,
)

TASK = Task(
    name=DATA.name,
    classes=(),
    prompts={
        "causal": Prompt(
            "Title: {title}\nContext: {passage}\nQuestion: {question}\nAnswer: {mask}", answer="{choice}\n"
        ),
    },
    load=DATA.load,
    measure=squad,
    selection=("f1",),
    shorten="passage",
    one_class_train=True,
    new_tokens=50,
)
