"""Alarms: each once, after a sweep, and only when there is reason to."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from tiny_models import Command
from tiny_questions import SMALL, model

from dfolora.problems.alarms import Alarms
from dfolora.problems.answers import Texts


def texts(*answers: str, truncated: bool = False) -> list[Texts]:
    return [Texts([answer], False, truncated) for answer in answers]


def test_ties() -> None:
    alarms = Alarms(sweep=4)
    for losses in ([1.0, 1.0], [1.0, 1.0], [1.0, 1.0], [1.0, 2.0], *[[0.5, 0.5]] * 3):
        alarms.see(torch.tensor(losses))
        assert alarms.take() == []
    alarms.see(torch.tensor([0.5, 0.5]))
    assert alarms.take() == ["all candidates of 4 generations have the same loss; there is nothing to choose by"]
    for _ in range(9):
        alarms.see(torch.tensor([0.5, 0.5]))
    assert alarms.take() == []


def test_a_single_candidate_ties_with_nobody_and_nan_is_no_tie() -> None:
    alarms = Alarms()
    for _ in range(9):
        alarms.see(torch.tensor([0.5]))
        alarms.see(torch.tensor([torch.nan, torch.nan]))
    assert alarms.take() == []


def test_no_effect_is_said_in_place_of_a_tie() -> None:
    alarms = Alarms()
    for _ in range(5):
        alarms.see(torch.tensor([0.5, 0.5]), texts("a", "a"))
    (said,) = alarms.take()
    assert said.startswith("no candidate of 3 generations has changed a single answer")
    for _ in range(5):
        alarms.see(torch.tensor([0.5, 0.5]), texts("a", "b"))
    assert alarms.take() == []


def test_truncated() -> None:
    alarms = Alarms()
    alarms.see(torch.tensor([0.5, 1.0]), [*texts("a", truncated=True), *texts("b")])
    assert alarms.take() == []
    alarms.see(torch.tensor([0.5, 1.0]), texts("a", "b", truncated=True))
    alarms.see(torch.tensor([0.5, 1.0]), texts("a", "b", truncated=True))
    (said,) = alarms.take()
    assert said.startswith("every answer of a generation was cut off at new_tokens")


def test_through_the_command(command: Command, tmp_path: Path) -> None:
    file = tmp_path / "train.jsonl"
    file.write_text("".join(json.dumps({"text": text}) + "\n" for text in ("Tom saw it", "Mary read")))
    files = ["--train-file", file, "--dev-file", file, "--test-split", "none"]
    flags = ["--model", model("llama"), *files, "--new-tokens", 2, *SMALL, "--budget", 20, "--scale", 1e-6]
    command("tune", *flags, "--reward", "length", "--output", tmp_path / "run")
    warnings = [line.partition(": ")[2] for line in command.said if line.startswith("warning")]
    assert [line.partition(": ")[0] for line in warnings] == ["generation 1", "generation 3"]
    assert "cut off at new_tokens" in warnings[0]
    assert "no candidate of 3 generations has changed a single answer" in warnings[1]
