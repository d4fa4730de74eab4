"""The ten sets of questions as their files are published, small files of our own; the real ones where they are."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from dfolora.errors import UserError
from dfolora.question import Question
from dfolora.tasks.reasoning import REGISTRY, question_set

WORDY = {"sQuestion": "Tom has 3 pears and eats 1. How many are left?", "lEquations": ["x=3-1"], "lSolutions": [2.0]}
SIDES = "A coin is heads up. Ann flips the coin. Is the coin still heads up?"
PLACES = [{"label": letter, "text": text} for letter, text in zip("ABC", ("bank", "park", "sea"), strict=True)]
ROWS: dict[str, tuple[str, Any, Question]] = {
    "gsm8k": (
        "test.jsonl",
        [{"question": "Six pears at $200 each?", "answer": "6*200=<<6*200=1200>>1200\n#### 1,200"}],
        Question("Six pears at $200 each?", "1200"),
    ),
    "svamp": (
        "SVAMP.json",
        [{"ID": "chal-1", "Body": "Ann has 5 pens", "Question": "How many pens?", "Answer": 5.0, "Type": "x"}],
        Question("Ann has 5 pens. How many pens?", "5"),
    ),
    "multiarith": ("MultiArith.json", [WORDY], Question(WORDY["sQuestion"], "2")),
    "addsub": ("AddSub.json", [WORDY], Question(WORDY["sQuestion"], "2")),
    "singleeq": ("questions.json", [{**WORDY, "lSolutions": [2.5]}], Question(WORDY["sQuestion"], "2.5")),
    "aqua": (
        "AQuA_test.jsonl",
        [{"question": "What is 3 * 7?", "options": ["A)21", "B) 22", "C)None of these"], "correct": "A"}],
        Question("What is 3 * 7?", "A", ("21", "22", "None of these")),
    ),
    "commonsenseqa": (
        "dev_rand_split.jsonl",
        [{"answerKey": "C", "id": "1", "question": {"stem": "Where are waves?", "choices": PLACES}}],
        Question("Where are waves?", "C", ("bank", "park", "sea")),
    ),
    "strategyqa": (
        "task.json",
        {"name": "strategyqa", "examples": [{"input": "Do cats fly?", "target_scores": {"Yes": 0, "No": 1}}]},
        Question("Do cats fly?", "no"),
    ),
    "last-letters": (
        "last_letters.json",
        {"examples": [{"question": 'The last letters of "Ann Wu"?', "answer": "nu"}]},
        Question('The last letters of "Ann Wu"?', "nu"),
    ),
    "coin-flip": ("coin_flip.json", {"examples": [{"question": SIDES, "answer": "no"}]}, Question(SIDES, "no")),
}
REAL = os.environ.get("DFOLORA_REASONING_DATA", "")  # a folder with the published files of four of them


def written(folder: Path, name: str, content: Any) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    text = json.dumps(content)
    if name.endswith("l"):
        text = "".join(json.dumps(row) + "\n" for row in content)
    (folder / name).write_text(text, encoding="utf-8")
    return folder / name


@pytest.mark.parametrize("name", ROWS)
def test_a_published_file_is_read(name: str, tmp_path: Path) -> None:
    file, content, question = ROWS[name]
    path = written(tmp_path / name.replace("-", "_"), file, content)
    for place in (path, path.parent, tmp_path):  # the file, its folder, the folder of all
        assert question_set(name).load(place) == [question]


def test_every_set_that_is_listed_is_tested() -> None:
    assert set(ROWS) == set(REGISTRY.builtin())


@pytest.mark.parametrize(
    ("name", "change", "says"),
    [
        ("gsm8k", {"answer": "It is 5."}, "1: field 'answer' has no '####'"),
        ("gsm8k", {"answer": "#### many"}, "1: the answer 'many' is no number"),
        ("svamp", {"Answer": None}, "row 1: the answer 'None' is no number"),
        ("addsub", {"lSolutions": []}, "row 1: field 'lSolutions' is empty"),
        ("aqua", {"correct": ""}, "1: the answer '' is none of the choices ABC"),
        ("aqua", {"correct": "D"}, "1: the answer 'D' is none of the choices ABC"),
        ("aqua", {"options": ["B)2"]}, "1: field 'options': 'B)2' does not begin with A)"),
        ("coin-flip", {"answer": "maybe"}, "row 1: the answer 'maybe' is neither yes nor no"),
        ("strategyqa", {"target_scores": {"Yes": 1, "No": 1}}, "row 1: field 'target_scores' has to give 1"),
        ("last-letters", {"answer": ""}, "row 1: field 'answer' has to be letters"),
    ],
)
def test_a_row_that_cannot_be_used_is_named(name: str, change: dict[str, Any], says: str, tmp_path: Path) -> None:
    file, content, _ = ROWS[name]
    rows = content if isinstance(content, list) else content["examples"]
    path = written(tmp_path / name.replace("-", "_"), file, [{**rows[0], **change}])
    with pytest.raises(UserError) as caught:
        question_set(name).load(tmp_path)
    assert str(caught.value).startswith(f"{path}:")
    assert says in str(caught.value)


def test_a_missing_answer_names_the_row(tmp_path: Path) -> None:
    path = written(tmp_path, "coin_flip.json", {"examples": [{"question": "a?", "answer": "yes"}, {"question": "b?"}]})
    with pytest.raises(UserError, match=f"{path}: row 2: no field 'answer'"):
        question_set("coin-flip").load(tmp_path)


def test_what_is_not_there_is_said(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"data: .* no file of gsm8k"):
        question_set("gsm8k").load(tmp_path)
    with pytest.raises(UserError, match="did you mean 'gsm8k'"):
        question_set("gsm-8k")
    written(tmp_path, "gsm8k.jsonl", [])
    with pytest.raises(UserError, match="no questions"):
        question_set("gsm8k").load(tmp_path)


@pytest.mark.skipif(not REAL, reason="DFOLORA_REASONING_DATA names no folder")
@pytest.mark.parametrize(
    ("name", "count", "last"),
    [("gsm8k", 1319, "14"), ("aqua", 254, ""), ("commonsenseqa", 1221, ""), ("coin-flip", 500, "")],
)
def test_the_published_files(name: str, count: int, last: str) -> None:
    questions = question_set(name).load(Path(REAL))
    assert len(questions) == count
    assert all(question.text for question in questions)
    assert not last or questions[-1].gold == last
