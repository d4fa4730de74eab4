"""A task whose answers are generated, through the command: SQuAD's rows, random models, every method."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_models import Command, log
from tiny_models import model as other_model
from tiny_questions import SMALL, model, record, squad_folder

from dfolora.engine import Engine
from dfolora.models import adapter as adapters
from dfolora.models.load import load
from dfolora.problems.answers import Answers
from dfolora.problems.encode import PromptEncoder
from dfolora.tasks import get_task
from dfolora.tasks.common import Source

METRIC = ["--objective", "metric"]
UNTESTED = [*SMALL, *METRIC, "--test-split", "none", "--budget", "4"]


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return squad_folder(tmp_path / "data")


def flags(data: Path, *more: object, architecture: str = "llama") -> list[object]:
    return ["--task", "squad", "--model", model(architecture), "--data", data, *more]


def through(command: Command, output: Path, given: list[object]) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    scores = command.json("tune", *given, "--output", output)
    return scores, log(output)


@pytest.mark.parametrize(
    ("architecture", "objective"), [("llama", "metric"), ("gpt2", "metric"), ("gpt2", "cross-entropy")]
)
def test_without_gradients(command: Command, tmp_path: Path, data: Path, architecture: str, objective: str) -> None:
    base = flags(data, architecture=architecture)
    scores, lines = through(command, tmp_path / "run", [*base, *SMALL, "--objective", objective])
    losses = {loss for line in lines[1:] for loss in line["losses"]}
    assert len(losses) > 4
    assert all((-100 <= loss <= 0) if objective == "metric" else loss > 0 for loss in losses)
    assert all(line["dev"]["loss"] > 0 for line in lines if line["dev"])  # token cross-entropy, whatever is minimised
    assert scores["examples"] == {"train": 6, "dev": 3, "test": 5}
    for before, after in (("zero_shot", "tuned"), ("dev_zero_shot", "dev_tuned")):
        assert list(scores[before]) == list(scores[after]) == ["f1", "em"]
    assert scores["dev_tuned"]["f1"] >= scores["dev_zero_shot"]["f1"]
    found = command.json("evaluate", *base, "--adapter", scores["adapter"])
    assert found["metrics"] == scores["tuned"]
    assert command("evaluate", *base) == 0
    assert [line.split()[0] for line in command.out.splitlines()[1:]] == ["f1", "em"]
    card = (Path(scores["adapter"]) / "README.md").read_text(encoding="utf-8")
    assert "generated greedily" in card
    assert "    Question: {question}\n    Answer: {mask}\n" in card


def test_the_same_one_by_one_and_in_chunks(command: Command, tmp_path: Path, data: Path) -> None:
    expected = through(command, tmp_path / "a", flags(data, *UNTESTED))[1]
    for name, change in (("b", ["--engine", "sequential"]), ("c", ["--chunk-tokens", 200])):
        lines = through(command, tmp_path / name, flags(data, *UNTESTED, *change))[1]
        assert [line["checksum"] for line in lines] == [line["checksum"] for line in expected]
        for line, other in zip(lines, expected, strict=True):
            assert line["losses"] == pytest.approx(other["losses"])


def test_minibatches(command: Command, tmp_path: Path, data: Path) -> None:
    """A generation's losses are of the examples that were drawn for it: all six, or two."""
    whole = through(command, tmp_path / "a", flags(data, *UNTESTED, "--batch", 6))[1]
    assert whole[1]["losses"] == through(command, tmp_path / "b", flags(data, *UNTESTED))[1][1]["losses"]
    part = through(command, tmp_path / "c", flags(data, *UNTESTED, "--batch", 2))[1]
    assert part[1]["losses"] != whole[1]["losses"]
    assert part[1]["token_layers"] < whole[1]["token_layers"] / 2


def test_first_order_learns_the_answers(command: Command, tmp_path: Path, data: Path) -> None:
    given = flags(data, "--method", "first-order", "--budget", 40, "--rank", 2, "--lr", 0.01, "--dev-every", 20)
    scores, lines = through(command, tmp_path / "run", given)
    assert lines[-1]["losses"][0] < 0.6 * lines[1]["losses"][0]
    assert scores["tuned"]["f1"] > scores["zero_shot"]["f1"] + 10
    assert command("tune", *given, *METRIC) == 2
    assert "metric has no gradient" in command.err


def test_hybrid(command: Command, tmp_path: Path, data: Path) -> None:
    lines = through(command, tmp_path / "run", flags(data, "--method", "hybrid", "--budget", 6, "--rank", 2))[1]
    assert all(loss > 0 for line in lines[1:] for loss in line["losses"])
    assert [len(line["losses"]) for line in lines] == [0, 3, 3]


@pytest.mark.parametrize("objective", ["metric", "likelihood"])
def test_all_weights(command: Command, tmp_path: Path, data: Path, objective: str) -> None:
    given = flags(data, "--method", "full-parameter", "--budget", 8, "--sigma", 0.02, "--objective", objective)
    scores, lines = through(command, tmp_path / "run", [*given, "--lr", 1e-5])
    losses = [loss for line in lines[1:] for loss in line["losses"]]
    assert len(set(losses)) > 1
    assert all(-100 <= loss <= 0 if objective == "metric" else loss > 0 for loss in losses)
    found = command.json("evaluate", "--task", "squad", "--data", data, "--model", scores["model_folder"])
    assert found["metrics"] == scores["tuned"]


def test_resumed_where_it_was_killed(command: Command, tmp_path: Path, data: Path) -> None:
    run = tmp_path / "run"
    scores, whole = through(command, run, flags(data, *SMALL, *METRIC, "--test-split", "dev"))
    lines = (run / "log.jsonl").read_text(encoding="utf-8").splitlines(keepends=True)
    (run / "scores.json").unlink()
    (run / "log.jsonl").write_text("".join(lines[:2]) + lines[2][:20], encoding="utf-8")
    again = command.json("tune", "--resume", run)
    assert log(run) == whole
    assert {**again, "seconds": 0} == {**scores, "seconds": 0}


def test_what_is_refused_in_one_line(command: Command, tmp_path: Path, data: Path) -> None:
    for changes, words in (
        (["--objective", "hinge"], "--objective: hinge compares classes"),
        (["--method", "first-order", "--objective", "hinge"], "--objective: hinge compares classes"),
        (["--model", other_model("masked")], "no prompt for a masked model, only causal"),
        (["--max-length", 60], "train.jsonl:1: max_length: 60 tokens cannot hold its prompt"),
        (["--label-words", "a,b"], "label-words: squad has none"),
    ):
        assert command("tune", *flags(data, *changes, "--output", tmp_path / "run")) == 2
        assert words in command.err
        assert len(command.said) == 1
        assert not (tmp_path / "run").exists()
    bad = {**record(0), "answers": {"text": []}}
    (data / "SQuAD" / "train.jsonl").write_text(json.dumps(record(1)) + "\n" + json.dumps(bad) + "\n")
    assert command("tune", *flags(data, "--output", tmp_path / "run")) == 2
    assert "train.jsonl:2: the question has no answer" in command.err


def test_a_candidate_that_broke_the_model_does_not_win(data: Path) -> None:
    task, language_model = get_task("squad"), load(model("llama"))
    adapter, scorer = adapters.attach(language_model, 2), PromptEncoder(language_model, task)
    examples = task.load("train", Source(data))
    answers = Answers(Engine(adapter, scorer.encode(examples)), scorer, examples)
    factors = {
        name: (torch.randn(3, *a.shape), torch.randn(3, *b.shape))
        for name, (a, b) in ((name, module.factors()) for name, module in adapter.layers[0].modules.items())
    }
    next(iter(factors.values()))[1][1] = torch.nan
    losses = answers.losses(factors)
    assert losses.isnan().tolist() == [False, True, False]
    assert answers.population(factors)[1].texts == [""] * len(examples)
    by_hand = [task.measure(examples, found.texts)["f1"] for found in answers.population(factors)]
    assert losses[[0, 2]].tolist() == pytest.approx([-by_hand[0], -by_hand[2]])
