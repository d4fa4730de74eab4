"""``dfolora.evaluate``: what a run says of itself, predictions in a file, test sets that are cut."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from tiny_models import FIRST_ORDER, Command, csv_files, given, model
from tiny_questions import model as reader
from tiny_questions import squad_folder

import dfolora
from dfolora.tasks.draw import some_of


def test_a_run_says_how_it_is_evaluated(command: Command, tmp_path: Path, options: dict[str, Any]) -> None:
    run = dfolora.tune(**options)
    for named in (run, run.folder, str(run.folder)):
        found = dfolora.evaluate(named)
        assert found["metrics"] == run.scores["tuned"]
        assert (found["split"], found["examples"], found["model"]) == ("test", 12, model("masked"))
    assert dfolora.evaluate(adapter=run.adapter)["metrics"] == run.scores["tuned"]
    assert dfolora.evaluate(run, split="dev")["metrics"] == run.scores["dev_tuned"]
    names = ("model", "train_file", "dev_file", "test_file", "template", "label_words")
    assert dfolora.evaluate(**{name: options[name] for name in names})["metrics"] == run.scores["zero_shot"]
    assert command.json("evaluate", run.folder)["metrics"] == run.scores["tuned"]
    assert command.json("evaluate", run.adapter, "--split", "dev")["metrics"] == run.scores["dev_tuned"]


@pytest.mark.parametrize("method", ["first-order", "full-parameter"])
def test_every_method_says_how_it_is_evaluated(tmp_path: Path, method: str) -> None:
    base = FIRST_ORDER if method == "first-order" else ["--method", method, "--budget", 8, "--lr", 1e-3]
    flags = ["--model", model("causal"), *csv_files(tmp_path), *base, "--output", tmp_path / "run"]
    run = dfolora.tune(**given(flags))
    assert dfolora.evaluate(run)["metrics"] == run.scores["tuned"]
    assert dfolora.evaluate(run, split="dev")["metrics"] == run.scores["dev_tuned"]


def test_predictions_in_a_file(command: Command, tmp_path: Path, options: dict[str, Any]) -> None:
    run = dfolora.tune(**options)
    found = command.json("evaluate", run.folder, "--predictions", tmp_path / "says.jsonl")
    text = (tmp_path / "says.jsonl").read_text(encoding="utf-8")
    lines = [json.loads(line) for line in text.splitlines()]
    assert [line["index"] for line in lines] == list(range(12))
    right = [line["prediction"] == line["gold"] for line in lines]
    assert [line["correct"] for line in lines] == right
    assert found["metrics"]["accuracy"] == pytest.approx(100 * sum(right) / 12)
    names = sorted({line["gold"] for line in lines})
    assert len(names) == 2
    for line in lines:
        assert len(line["scores"]) == 2
        gold = names.index(line["gold"])
        assert line["margin"] == pytest.approx(line["scores"][gold] - line["scores"][1 - gold])
        assert (line["margin"] > 0) == line["correct"]
        assert names[line["scores"].index(max(line["scores"]))] == line["prediction"]
    assert (run.folder / "predictions.jsonl").read_text(encoding="utf-8") == text
    assert command("evaluate", run.folder, "--predictions", tmp_path / "no" / "such" / "folder") == 2
    assert len(command.said) == 1


def test_predictions_of_generated_answers(command: Command, tmp_path: Path) -> None:
    flags = ["--task", "squad", "--model", reader("llama"), "--data", squad_folder(tmp_path / "data")]
    found = command.json("evaluate", *flags, "--predictions", tmp_path / "says.jsonl")
    lines = [json.loads(line) for line in (tmp_path / "says.jsonl").read_text(encoding="utf-8").splitlines()]
    assert len(lines) == found["examples"] == 5
    assert all(
        isinstance(line["prediction"], str) and "the hall" in " ".join(line["gold"] + ["the hall"]) for line in lines
    )
    assert {"index", "prediction", "gold", "score"} == set(lines[0])
    assert sum(100 * line["score"] for line in lines) / 5 == pytest.approx(found["metrics"]["f1"])
    exact = sum(line["prediction"].lower() in [gold.lower() for gold in line["gold"]] for line in lines)
    assert found["metrics"]["em"] >= 100 * exact / 5


def test_a_test_set_is_cut_to_the_same_examples(tmp_path: Path, options: dict[str, Any]) -> None:
    run = dfolora.tune(**options, test_limit=5)
    assert run.scores["examples"]["test"] == 5
    whole = dfolora.evaluate(run, test_limit=12, predictions=str(tmp_path / "all.jsonl"))
    again = dfolora.evaluate(run)  # the adapter knows its limit
    assert (whole["examples"], again["examples"], again["metrics"]) == (12, 5, run.scores["tuned"])
    scores = [json.loads(line)["scores"] for line in (run.folder / "predictions.jsonl").read_bytes().splitlines()]
    of_all = [json.loads(line)["scores"] for line in (tmp_path / "all.jsonl").read_bytes().splitlines()]
    assert len(scores) == 5
    assert all(min(abs(each[0] - one[0]) for one in of_all) < 1e-5 for each in scores)
    plain = [json.loads(line) for line in (run.folder / "zero_shot_predictions.jsonl").read_bytes().splitlines()]
    assert 100 * sum(line["correct"] for line in plain) / 5 == pytest.approx(run.scores["zero_shot"]["accuracy"])


def test_groups_stay_whole_where_a_test_set_is_cut() -> None:
    examples = [dfolora.Example({"text": str(i)}, 0, group=f"question {i // 4}") for i in range(40)]
    some = some_of(examples, 10)
    assert len(some) == 8
    assert some == some_of(examples, 10)
    assert all(sum(example.group == each.group for each in some) == 4 for example in some)
    assert [int(example.fields["text"]) for example in some] == sorted(int(e.fields["text"]) for e in some)
