"""SQuAD and DROP: every layout that they are published in, their metric, their few-shot split."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from dfolora.errors import UserError
from dfolora.task import Example
from dfolora.tasks import drop, squad
from dfolora.tasks.common import Source
from dfolora.tasks.metrics import squad as measure

Write = Callable[..., Path]
FIELDS = {"title": "Rivers_of_Rome", "passage": "The Tiber runs through Rome.", "question": "What runs there?"}
TIBER = Example(FIELDS, 0, gold=("The Tiber", "Tiber"))


def answered(*gold: str) -> Example:
    return Example({}, 0, gold=gold)


@pytest.mark.parametrize(
    ("text", "gold", "f1", "em"),
    [
        ("the Tiber.", ("Tiber",), 1.0, 1),  # case, punctuation and articles do not count
        ("Tiber", ("Rome", "the river Tiber"), 2 / 3, 0),  # 1 of 1, 1 of 2: 2 * 1 / (1 + 2)
        ("Tiber Tiber", ("Tiber",), 2 / 3, 0),  # a word counts as often as it is in both
        ("river of Rome", ("Rome river", "the Tiber"), 4 / 5, 0),
        ("river of Rome", ("the Tiber", "Rome river"), 4 / 5, 0),  # the best gold text, wherever it stands
        ("", ("Tiber",), 0.0, 0),
        ("Paris", ("Tiber", "Rome"), 0.0, 0),
    ],
)
def test_f1_and_exact_match(text: str, gold: tuple[str, ...], f1: float, em: int) -> None:
    assert measure([answered(*gold)], [text]) == pytest.approx({"f1": 100 * f1, "em": 100 * em})
    both = measure([answered(*gold), answered("yes")], [text, "Yes"])
    assert both == pytest.approx({"f1": 50 * f1 + 50, "em": 50 * em + 50})


def test_f1_selects() -> None:
    for task in (squad.TASK, drop.TASK):
        assert task.main({"f1": 40.0, "em": 10.0}) == 40.0
        assert task.new_tokens == 50
    with pytest.raises(UserError, match="no examples"):
        measure([], [])


def squad_row(i: int = 0, **changes: Any) -> dict[str, Any]:
    row = {"title": FIELDS["title"], "context": FIELDS["passage"] + " " * i, "question": FIELDS["question"]}
    return {**row, "answers": {"text": ["The Tiber", "Tiber", "The Tiber "], "answer_start": [0, 4, 0]}, **changes}


def squad_json(count: int = 1) -> str:
    """Articles of one paragraph with two questions each."""
    answers = [{"text": text, "answer_start": 0} for text in ("The Tiber", "Tiber")]
    question = {"id": "x", "question": FIELDS["question"], "answers": answers}
    articles = [
        {"title": FIELDS["title"], "paragraphs": [{"context": f"{FIELDS['passage']}{i}", "qas": [question] * 2}]}
        for i in range(count)
    ]
    return json.dumps({"version": "1.1", "data": articles})


def test_squad_as_published(write: Write, tmp_path: Path) -> None:
    write("SQuAD/train-v1.1.json", squad_json(8))
    write("SQuAD/dev-v1.1.json", squad_json(3))
    source = Source(tmp_path, shots=2, seed=1)
    train, dev, test = (squad.TASK.load(split, source) for split in ("train", "dev", "test"))
    # Twice the shots, as of every task without classes, and never two questions about one passage.
    assert (len(train), len(dev), len(test)) == (4, 4, 6)
    assert len({example.fields["passage"] for example in train + dev}) == 8
    assert train == squad.TASK.load("train", source) != squad.TASK.load("train", Source(tmp_path, shots=2, seed=2))
    assert test[0].fields == {**FIELDS, "passage": FIELDS["passage"] + "0"}
    assert test[0].gold == ("The Tiber", "Tiber")


def test_squad_as_rows(write: Write, tmp_path: Path, hub: dict) -> None:
    write("SQuAD/train.jsonl", squad_row(), squad_row(answers=["The Tiber", "Tiber"]))
    write("SQuAD/dev32.jsonl", squad_row())
    write("SQuAD/validation.jsonl", squad_row())
    for split, count in (("train", 2), ("dev", 1), ("test", 1)):
        assert squad.TASK.load(split, Source(tmp_path)) == [TIBER] * count
    hub["rajpurkar/squad", None, "validation"] = [squad_row()] * 3
    hub["rajpurkar/squad", None, "train"] = [squad_row(context=str(i)) for i in range(8)]
    assert squad.TASK.load("test", Source()) == [TIBER] * 3
    assert len(squad.TASK.load("dev", Source(shots=2))) == 4


def test_the_prompts_end_where_the_answer_begins() -> None:
    example = squad.examples(squad_row())[0]
    template = squad.TASK.prompts["causal"].template
    assert template.format(mask="", **example.fields).strip() == (
        "Title: Rivers_of_Rome\nContext: The Tiber runs through Rome.\nQuestion: What runs there?\nAnswer:"
    )
    template = drop.TASK.prompts["causal"].template
    assert template.format(mask="", **example.fields).strip() == (
        "Passage: The Tiber runs through Rome.\nQuestion: What runs there?\nAnswer:"
    )


def drop_answer(number: str = "", spans: tuple[str, ...] = (), **date: str) -> dict[str, Any]:
    return {"number": number, "spans": list(spans), "date": {"day": "", "month": "", "year": "", **date}}


def test_drop_as_published(write: Write, tmp_path: Path) -> None:
    more = [drop_answer("three"), drop_answer("3")]
    pairs = [
        {"question": "How many?", "answer": drop_answer("3"), "validated_answers": more},
        {"question": "Who?", "answer": drop_answer(spans=("Tom", "Mary"))},
        {"question": "When?", "answer": drop_answer(day="8", month="May", year="1901")},
        {"question": "Which year?", "answer": drop_answer(year="1901"), "validated_answers": []},
        {"question": "Why?", "answer": drop_answer()},
    ]  # fmt: skip
    write("drop_dataset/drop_dataset_dev.json", json.dumps({"nfl_1": {"passage": "Tom won.", "qa_pairs": pairs}}))
    found = drop.TASK.load("test", Source(tmp_path))
    assert [example.gold for example in found] == [("3", "three"), ("Tom", "Mary"), ("8 May 1901",), ("1901",)]
    assert found[1].fields == {"passage": "Tom won.", "question": "Who?"}


def test_drop_as_rows(write: Write, tmp_path: Path, hub: dict) -> None:
    row = {"passage": "Tom won.", "question": "Who?", "answers_spans": {"spans": ["Tom", "Tom"], "types": ["span"] * 2}}
    empty = {**row, "answers_spans": {"spans": [], "types": []}}
    write("DROP/validation.jsonl", row, empty)
    assert [example.gold for example in drop.TASK.load("test", Source(tmp_path))] == [("Tom",)]
    hub["ucinlp/drop", None, "validation"] = [row]
    assert len(drop.TASK.load("test", Source())) == 1


@pytest.mark.parametrize(
    ("task", "name", "content", "message"),
    [
        (squad, "train-v1.1.json", "{", r"train-v1.1.json: not JSON"),
        (squad, "train-v1.1.json", "[]", r"train-v1.1.json: a JSON object is expected"),
        (squad, "train-v1.1.json", '{"data": [1]}', r"train-v1.1.json: an object with a field 'paragraphs'"),
        (squad, "train-v1.1.json", '{"rows": []}', r"train-v1.1.json: no field 'data'; there are rows"),
        (squad, "train.jsonl", json.dumps(squad_row(answers=[])), "train.jsonl:1: the question has no answer"),
        (squad, "train.jsonl", json.dumps(squad_row(answers=[" "])), "train.jsonl:1: the question has no answer"),
        (squad, "train.jsonl", json.dumps(squad_row(answers=[3])), "train.jsonl:1: an object with a field 'text'"),
        (drop, "drop_dataset_train.json", '{"p": {"qa_pairs": [{}]}}', "train.json: no field 'answer'"),
        (drop, "drop_dataset_train.json", '{"p": {"qa_pairs": [{"answer": 3}]}}', "an answer has to be an object"),
        (drop, "train.jsonl", '{"answers_spans": {"spans": [3]}}', "train.jsonl:1: spans have to be texts"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_named(write: Write, tmp_path: Path, task: Any, name: str, content: str, message: str) -> None:
    write(f"{task.DATA.folders[0]}/{name}", content)
    with pytest.raises(UserError, match=message):
        task.TASK.load("train", Source(tmp_path))
