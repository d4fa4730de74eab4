"""The table of few-shot runs: methods with flags of their own, learning rates chosen by the dev sets alone."""

from __future__ import annotations

import json
from argparse import Namespace
from pathlib import Path
from typing import Any

import pytest

import dfolora
from dfolora import cli
from scripts import few_shot_table

ARGUMENTS = Namespace(seeds="13,21", rates="0.02,0.1", rates_first_order="0.001,0.01")


def test_options_of_a_method() -> None:
    assert few_shot_table.options("default --budget 9") == {"budget": "9"}
    assert few_shot_table.options("hybrid") == {"method": "hybrid"}
    assert few_shot_table.options("full-parameter --lr 1e-5") == {"method": "full-parameter", "lr": "1e-5"}
    assert few_shot_table.options("dfo-lora") == {"preset": "dfo-lora"}
    assert few_shot_table.options("guided --population 4") == {"optimizer": "guided", "population": "4"}
    assert few_shot_table.options("spsa --paper-scale --dev-every 8") == {
        "optimizer": "spsa",
        "paper_scale": True,
        "dev_every": "8",
    }


@pytest.mark.parametrize(
    ("method", "expected"),
    [
        ("default", [""]),
        ("fireworks", [""]),
        ("mezo-lora", [""]),
        ("nevergrad:PSO", [""]),
        ("spsa --lr 1", [""]),
        ("guided --population 4", ["0.02", "0.1"]),
        ("full-parameter --optimizer guided", [""]),
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
    good["tuned"] = {"accuracy": 1.0}
    monkeypatch.setattr(few_shot_table, "cell", lambda a, method, task, seed: None if "0.02" in method else good)
    assert few_shot_table.runs(ARGUMENTS, "es", "agnews")[0] == "0.1"


def test_only_the_chosen_rate_is_scored_on_the_test_set(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Real runs of the demo: the chosen run's figures are those of ``dfolora evaluate``; zero-shot is scored once."""
    asked: list[tuple[str, bool]] = []
    tune, evaluate = dfolora.tune, dfolora.evaluate

    def tuned_run(**options: Any) -> Any:
        asked.append(("tune", False))
        return tune(**options)

    def evaluated(**options: Any) -> Any:
        asked.append(("evaluate", (Path(options["model"]) / "adapter").exists()))
        return evaluate(**options)

    monkeypatch.setattr(dfolora, "tune", tuned_run)
    monkeypatch.setattr(dfolora, "evaluate", evaluated)
    words = ["--output", str(tmp_path), "--tasks", "demo/sentiment", "--seeds", "13", "--budget", "48"]
    words += ["--methods", "default,spsa --population 8", "--rates", "0.02,0.1"]
    monkeypatch.setattr("sys.argv", ["few_shot_table", *words])
    assert few_shot_table.main() == 0
    assert asked.count(("tune", False)) == 3
    assert asked.count(("evaluate", True)) == 2
    assert asked.count(("evaluate", False)) == 1
    found = sorted(path.parent.name for path in tmp_path.glob("*/test.json"))
    assert [name.split("-lr-")[0] for name in found] == [
        "demo-sentiment-default-13",
        "demo-sentiment-spsa-population-8",
    ]
    printed = capsys.readouterr().out.splitlines()
    rows = [line for line in printed if line.startswith("| demo/sentiment")]
    capsys.readouterr()
    assert cli.main(["evaluate", "--adapter", str(tmp_path / found[1] / "adapter"), "--json"]) == 0
    tuned = json.loads(capsys.readouterr().out)["metrics"]["accuracy"]
    assert rows[1].split("|")[6:8] == [" 59.2 ", f" {tuned:.1f} "]

    asked.clear()
    assert few_shot_table.main() == 0
    assert asked == []
    assert [line for line in capsys.readouterr().out.splitlines() if line in rows] == rows


@pytest.mark.parametrize("method", ["default", "full-parameter --dev-every 8", "first-order --dev-every 8"])
@pytest.mark.parametrize("lines", [0, 3])
def test_an_interrupted_cell_goes_on(tmp_path: Path, method: str, lines: int) -> None:
    """From its log, or from nothing where it was stopped before it began."""
    arguments = Namespace(output=str(tmp_path), read_only=False, budget=48, dtype="float32", model="", data="")
    whole = few_shot_table.cell(arguments, method, "demo/sentiment", 13)
    assert whole
    folder: Path = whole["folder"]
    log = (folder / "log.jsonl").read_text(encoding="utf-8").splitlines(keepends=True)
    (folder / "scores.json").unlink()
    (folder / "state.safetensors").unlink(missing_ok=True)  # a kept state is never ahead of its log
    (folder / "log.jsonl").write_text("".join(log[:lines]), encoding="utf-8")
    if not lines:
        (folder / "log.jsonl").unlink()
    again = few_shot_table.cell(arguments, method, "demo/sentiment", 13)
    assert again
    for name in ("dev_tuned", "dev_loss", "evaluations", "selected_at"):
        assert again[name] == whole[name]


@pytest.mark.parametrize(
    ("change", "said"),
    [({"budget": 56}, "with budget 48, not 56"), ({"dtype": "bfloat16"}, "with dtype 'float32', not 'bfloat16'")],
)
def test_a_run_of_other_settings_is_not_taken_for_the_one_asked(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], change: dict[str, Any], said: str
) -> None:
    """Rows of another model or budget once came out of the same folder."""
    asked = {"output": str(tmp_path), "read_only": False, "budget": 48, "dtype": "float32", "model": "", "data": ""}
    assert few_shot_table.cell(Namespace(**asked), "default", "demo/sentiment", 13)
    capsys.readouterr()
    assert few_shot_table.cell(Namespace(**asked | change), "default", "demo/sentiment", 13) is None
    assert said in capsys.readouterr().err
    asked["read_only"] = True
    assert few_shot_table.cell(Namespace(**asked), "default", "demo/sentiment", 13)
    assert few_shot_table.cell(Namespace(**asked), "default", "demo/sentiment", 14) is None
