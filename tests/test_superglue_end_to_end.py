"""All eight SuperGLUE tasks through the command, masked and causal: on records of our own, and on the real data.

The models are random: what is looked at is that every task runs from files to its official metrics, that the adapter
which is saved is the one that was scored, and that scores are plausible for guessing.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tiny_models import Command, model

SHARED = Path(__file__).resolve().parents[2] / "shared" / "data" / "superglue_fewshot"
TASKS = {
    "boolq": ("BoolQ", ["accuracy"]),
    "cb": ("CB", ["accuracy", "macro_f1"]),
    "copa": ("COPA", ["accuracy"]),
    "multirc": ("MultiRC", ["f1a", "em"]),
    "record": ("ReCoRD", ["em", "f1"]),
    "rte": ("RTE", ["accuracy"]),
    "wic": ("WiC", ["accuracy"]),
    "wsc": ("WSC", ["accuracy"]),
}
SMALL = ["--budget", "8", "--population", "4", "--subspace-dim", "16", "--rank", "2"]
TOWN = "The old hall in the town was cold in the winter. Mary read a long story there, and Tom made tea for all."


def boolq(i: int) -> dict[str, Any]:
    question = ("was the old hall warm", "did mary read a story")[i % 2]
    return {"passage": TOWN, "question": question, "label": bool(i % 2), "idx": i}


def cb(i: int) -> dict[str, Any]:
    label = ("entailment", "contradiction", "neutral")[i % 3]
    premise = ("Tom knew that the boat was lost.", "Tom never said the boat was lost.", "Was the boat lost, Tom?")[
        i % 3
    ]
    return {"premise": premise, "hypothesis": "the boat was lost", "label": label, "idx": i}


def copa(i: int) -> dict[str, Any]:
    relation = ("cause", "effect")[i // 2 % 2]
    return {"premise": "The grass was wet.", "choice1": "The rain fell all night.", "choice2": "The film was boring.",
            "question": relation, "label": i % 2, "idx": i}  # fmt: skip


def multirc(i: int) -> dict[str, Any]:
    answers = [{"text": text, "label": label, "idx": n} for n, (text, label) in enumerate((("Mary", 1), ("Tom", 0)))]
    questions = [
        {"question": f"Who read {what}?", "answers": answers, "idx": n} for n, what in enumerate(("it", "there"))
    ]
    return {"passage": {"text": TOWN, "questions": questions}, "idx": i}


def record(i: int) -> dict[str, Any]:
    text = "Anna saw the king in Paris.\n@highlight\nThe king left for Rome"
    spans = [(text.index(name), text.index(name) + len(name) - 1) for name in ("Anna", "Paris", "Rome")]
    entities = [{"start": start, "end": end} for start, end in spans]
    start, end = spans[i % 3]
    answer = {"start": start, "end": end, "text": text[start : end + 1]}
    query = {"query": "Then @placeholder was on the train", "answers": [answer], "idx": 0}
    return {"passage": {"text": text, "entities": entities}, "qas": [query], "idx": i}


def rte(i: int) -> dict[str, Any]:
    label = ("entailment", "not_entailment")[i % 2]
    return {"premise": TOWN, "hypothesis": ("Mary read.", "Tom read.")[i % 2], "label": label, "idx": i}


def wic(i: int) -> dict[str, Any]:
    second = ("a bank of the river", "the bank gave him money")[i % 2]
    return {"word": "bank", "sentence1": "he sat on the bank", "sentence2": second, "label": not i % 2, "idx": i}


def wsc(i: int) -> dict[str, Any]:
    target = {"span1_text": ("Tom", "the boat")[i % 2], "span1_index": 0, "span2_text": "he", "span2_index": 7}
    return {"text": "Tom saw the boat and then he went home.", "target": target, "label": not i % 2, "idx": i}


RECORDS: dict[str, Callable[[int], dict[str, Any]]] = {
    "boolq": boolq, "cb": cb, "copa": copa, "multirc": multirc, "record": record, "rte": rte, "wic": wic, "wsc": wsc,
}  # fmt: skip


def through(command: Command, task: str, kind: str, data: Path, output: Path, *more: str) -> dict[str, Any]:
    """Tune, then evaluate the saved adapter and the base model; the scores of tune."""
    longest = 96 if task == "record" else 128  # which has hundreds of rows
    flags = ["--task", f"superglue/{task}", "--model", model(kind), "--data", data, "--max-length", longest]
    scores = command.json("tune", *flags, *SMALL, *more, "--output", output)
    assert scores["task"] == f"superglue/{task}"
    names = TASKS[task][1]
    for part in ("dev_zero_shot", "dev_tuned", *(() if more else ("zero_shot", "tuned"))):
        assert list(scores[part]) == names
        assert all(0 <= value <= 100 for value in scores[part].values())
    split = "dev" if more else "test"
    before, after = ("dev_zero_shot", "dev_tuned") if more else ("zero_shot", "tuned")
    tuned = command.json("evaluate", *flags, "--adapter", scores["adapter"], "--split", split)
    assert tuned["metrics"] == scores[after]
    assert tuned["examples"] == scores["examples"][split]
    if not more:
        assert command.json("evaluate", *flags)["metrics"] == scores[before]
        assert command("evaluate", *flags) == 0
        printed = [line.split()[0] for line in command.out.splitlines()[1:]]
        assert printed == names
    log = [json.loads(line) for line in (output / "log.jsonl").read_text(encoding="utf-8").splitlines()]
    assert len({loss for line in log[1:] for loss in line["losses"]}) == 8  # every candidate is another model
    return scores


@pytest.mark.parametrize("kind", ["masked", "causal"])
@pytest.mark.parametrize("task", TASKS)
def test_on_records_of_our_own(command: Command, tmp_path: Path, task: str, kind: str) -> None:
    home = tmp_path / "data" / TASKS[task][0]
    home.mkdir(parents=True)
    for name, count in (("train", 4), ("dev32", 3), ("val", 6)):
        lines = "".join(json.dumps(RECORDS[task](i)) + "\n" for i in range(count))
        (home / f"{name}.jsonl").write_text(lines, encoding="utf-8")
    scores = through(command, task, kind, tmp_path / "data", tmp_path / "run")
    each = 4 if task == "multirc" else 1
    assert scores["examples"] == {"train": 4 * each, "dev": 3 * each, "test": 6 * each}


@pytest.mark.parametrize("task", ["boolq", "copa", "record"])
def test_a_sentence_encoder(command: Command, tmp_path: Path, task: str) -> None:
    home = tmp_path / TASKS[task][0]
    home.mkdir()
    lines = "".join(json.dumps(RECORDS[task](i)) + "\n" for i in range(6))
    for name in ("train", "dev32", "val"):
        (home / f"{name}.jsonl").write_text(lines, encoding="utf-8")
    through(command, task, "encoder", tmp_path, tmp_path / "run")


REAL = {"boolq": (32, 32), "cb": (32, 32), "copa": (32, 32), "rte": (32, 32), "wic": (32, 32), "wsc": (32, 32)}


@pytest.mark.skipif(not SHARED.is_dir(), reason=f"the real few-shot data are not at {SHARED}")
@pytest.mark.parametrize("kind", ["masked", "causal"])
@pytest.mark.parametrize("task", TASKS)
def test_on_the_real_few_shot_sets(command: Command, tmp_path: Path, task: str, kind: str) -> None:
    scores = through(command, task, kind, SHARED, tmp_path / "run", "--test-split", "none")
    if task in REAL:
        assert (scores["examples"]["train"], scores["examples"]["dev"]) == REAL[task]
    assert scores["examples"]["train"] >= 32
