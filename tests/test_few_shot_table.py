"""The table of few-shot runs: methods with flags of their own, learning rates chosen by the dev sets alone."""

from __future__ import annotations

from argparse import Namespace
from typing import Any

import pytest

from scripts import few_shot_table

ARGUMENTS = Namespace(seeds="13,21", rates="0.02,0.1", rates_first_order="0.001,0.01")


def test_flags_of_a_method() -> None:
    assert few_shot_table.flags("default --budget 9") == ["--budget", "9"]
    assert few_shot_table.flags("hybrid") == ["--method", "hybrid"]
    assert few_shot_table.flags("dfo-lora") == ["--preset", "dfo-lora"]
    assert few_shot_table.flags("guided --population 4") == ["--optimizer", "guided", "--population", "4"]


@pytest.mark.parametrize(
    ("method", "expected"),
    [
        ("default", [""]),
        ("fireworks", [""]),
        ("mezo-lora", [""]),
        ("nevergrad:PSO", [""]),
        ("spsa --lr 1", [""]),
        ("guided --population 4", ["0.02", "0.1"]),
        ("first-order", ["0.001", "0.01"]),
        ("hybrid", ["0.001", "0.01"]),
    ],
)
def test_only_methods_with_a_rate_are_tried_with_several(method: str, expected: list[str]) -> None:
    assert few_shot_table.rates(ARGUMENTS, method) == expected


@pytest.mark.parametrize(("losses", "best"), [((0.5, 0.4), "0.1"), ((0.4, 0.5), "0.02")])
def test_dev_chooses_the_rate(monkeypatch: pytest.MonkeyPatch, losses: tuple[float, float], best: str) -> None:
    """Equal on the dev metric, so that its loss decides; the test score, which would say otherwise, has no say."""

    def cell(arguments: Namespace, method: str, task: str, seed: int) -> dict[str, Any]:
        small = method == "spsa --lr 0.02"
        return {
            "dev_tuned": {"accuracy": 80.0 + (seed if small else 34 - seed)},
            "dev_loss": losses[0 if small else 1],
            "tuned": {"accuracy": 99.0 if small == (best == "0.1") else 50.0},
            "seed": seed,
        }

    monkeypatch.setattr(few_shot_table, "cell", cell)
    rate, found = few_shot_table.runs(ARGUMENTS, "spsa", "glue/sst2")
    assert (rate, [run["seed"] for run in found]) == (best, [13, 21])


def test_a_rate_whose_runs_failed_is_not_chosen(monkeypatch: pytest.MonkeyPatch) -> None:
    good = {"dev_tuned": {"accuracy": 1.0}, "dev_loss": 9.0}
    monkeypatch.setattr(few_shot_table, "cell", lambda a, method, task, seed: None if "0.02" in method else good)
    assert few_shot_table.runs(ARGUMENTS, "es", "agnews")[0] == "0.1"
