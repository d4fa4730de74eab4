"""``dfolora compare`` on the demo: what is run, read, chosen, refused; cells run in this process but for one test."""

from __future__ import annotations

import csv
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any, ClassVar

import pytest
import torch

import dfolora
from dfolora import Baseline, Example, UserError, cli
from dfolora.baselines.few_shot import FewShot
from dfolora.comparison import run as runs
from dfolora.comparison import worker
from dfolora.comparison.cell import Cell
from dfolora.comparison.grid import make_grid
from dfolora.scoring import Predictions

SMALL = {"tasks": "demo/sentiment", "seeds": "13", "budget": 48}


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """Names of the cells whose process was started; they run here."""
    names: list[str] = []
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

    def process(cell: Cell) -> int:
        names.append(cell.name)
        return worker.main(cell.folder)

    monkeypatch.setattr(runs, "process", process)
    yield names
    for number, handler in before.items():
        signal.signal(number, handler)


def right(folder: Path) -> list[bool]:
    return [json.loads(line)["correct"] for line in (folder / "predictions.jsonl").read_bytes().splitlines()]


def test_a_grid(tmp_path: Path, asked: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    """The dev set chooses the rate, only the chosen run is scored on the test set, and nothing runs twice."""
    words = ["compare", "--tasks", "demo/sentiment", "--seeds", "13", "--budget", "48", "--output", str(tmp_path)]
    words += ["--methods", "default,spsa --population 8 --try lr=0.02/0.1", "--test-limit", "100"]
    assert cli.main([*words, "--json"]) == 0
    results = json.loads(capsys.readouterr().out)
    zero, default, spsa = results["rows"]
    assert [row["method"] for row in results["rows"]] == [
        "zero-shot",
        "default",
        "spsa --population 8 --try lr=0.02/0.1",
    ]
    assert len(asked) == 5, "zero-shot, default, two rates, and the chosen one's test"
    tried = sorted(path.parent for path in (tmp_path / "demo").glob("*/spsa*/*/seed-13/run"))
    assert [(each / "test.json").exists() for each in tried].count(True) == 1
    dev = {each.parent.name: json.loads((each / "run" / "scores.json").read_text())["dev_loss"] for each in tried}
    assert f"lr-{spsa['choice']['lr']}" in dev
    folder = Path(default["runs"][0]["folder"])
    evaluated = dfolora.evaluate(folder / "run")
    assert default["score"]["mean"] == evaluated["metrics"]["accuracy"]
    assert default["examples"] == evaluated["examples"] == 100
    assert default["evaluations"] == json.loads((folder / "run" / "scores.json").read_text())["evaluations"]
    assert 27 <= default["evaluations"] <= 48  # two rounds of 13 or more, and a look at the mean of the halves
    assert default["token_layers_with_dev"] > default["token_layers"] > 0
    assert default["peak_memory_bytes"] > 1e8
    assert default["processor_seconds"] > 0
    first, plain = right(folder), right(Path(zero["runs"][0]["folder"]))
    assert zero["difference"]["value"] == pytest.approx(sum(plain) - sum(first))
    assert default["difference"] is None
    assert results["failures"] == []
    assert results["command"].startswith("dfolora compare --tasks demo/sentiment")
    page = (tmp_path / "results.md").read_text(encoding="utf-8")
    assert results["command"] in page
    assert results["versions"]["torch"] in page
    assert "cut** to at most 100 examples" in page
    lines = (tmp_path / "results.csv").read_text(encoding="utf-8").splitlines()
    assert lines[0].startswith("# Made by")
    table = list(csv.DictReader(line for line in lines if not line.startswith("#")))
    assert [float(row["accuracy"]) for row in table] == [row["score"]["mean"] for row in results["rows"]]

    asked.clear()
    assert cli.main(words) == 0
    assert asked == []
    printed = capsys.readouterr().out
    assert f"{default['score']['mean']:.1f}" in printed
    again = json.loads((tmp_path / "results.json").read_text(encoding="utf-8"))
    assert again["rows"] == results["rows"]


@pytest.mark.parametrize("method", ["default", "full-parameter --dev-every 8", "first-order --dev-every 8"])
@pytest.mark.parametrize("lines", [0, 3])
def test_an_interrupted_cell_goes_on(tmp_path: Path, asked: list[str], method: str, lines: int) -> None:
    """From its log, or from nothing where it was stopped before it began."""
    options = {**SMALL, "methods": method, "output": str(tmp_path), "dtype": "float32"}
    whole = dfolora.compare(**options)["rows"][1]["runs"][0]
    folder = Path(whole["folder"]) / "run"
    log = (folder / "log.jsonl").read_text(encoding="utf-8").splitlines(keepends=True)
    (folder / "scores.json").unlink()
    (folder.parent / "test.json").unlink()
    (folder / "state.safetensors").unlink(missing_ok=True)  # a kept state is never ahead of its log
    (folder / "log.jsonl").write_text("".join(log[:lines]), encoding="utf-8")
    if not lines:
        (folder / "log.jsonl").unlink()
    asked.clear()
    again = dfolora.compare(**options)["rows"][1]["runs"][0]
    assert len(asked) == 1
    for name in ("metrics", "dev", "dev_loss", "evaluations", "token_layers"):
        assert again[name] == whole[name]
    assert again["processor_seconds"] > whole["processor_seconds"]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"budget": 56}, "with budget 48, not 56"),
        ({"dtype": "bfloat16"}, "with dtype 'float32', not 'bfloat16'"),
        ({"test_limit": 9}, "with test_limit None, not 9"),
        ({"tasks": "demo/pair"}, "holds another grid"),
    ],
)
def test_a_run_of_other_settings_is_not_taken_for_the_one_asked(
    tmp_path: Path, asked: list[str], change: dict[str, Any], said: str
) -> None:
    """Rows of another model or budget once came out of the same folder."""
    options = {**SMALL, "dtype": "float32", "output": str(tmp_path)}
    dfolora.compare(**options)
    asked.clear()
    with pytest.raises(UserError, match=said):
        dfolora.compare(**{**options, **change})
    assert asked == []
    more = dfolora.compare(**{**options, "seeds": [13, 21], "read_only": True})
    assert [row["seeds"] for row in more["rows"]] == [[13], [13]]


def test_a_failure_leaves_the_others_alone(
    tmp_path: Path, asked: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["compare", "--tasks", "demo/sentiment", "--seeds", "13", "--budget", "40", "--output", str(tmp_path)]
    words += ["--methods", "default --target no_such_module,default"]
    assert cli.main(words) == 1
    said = capsys.readouterr()
    assert "failed: demo, demo/sentiment, default --target no_such_module, seed 13: target: " in said.err
    assert len(asked) == 3
    asked.clear()
    assert cli.main(words) == 1, "a failure stays one"
    assert asked == []
    results = json.loads((tmp_path / "results.json").read_text(encoding="utf-8"))
    assert [(row["seeds"], row["failed"]) for row in results["rows"]] == [([13], []), ([], [13]), ([13], [])]
    assert "## Failed" in (tmp_path / "results.md").read_text(encoding="utf-8")
    assert cli.main([*words, "--retry"]) == 1
    assert asked == ["demo/sentiment, default --target no_such_module, seed 13"]


def test_a_file_with_options_of_its_own_everywhere(tmp_path: Path, asked: list[str]) -> None:
    (tmp_path / "grid.yaml").write_text(
        "tasks:\n"
        "- task: demo/sentiment\n"
        "  label: mood\n"
        "  max-length: 30\n"
        "- demo/pair\n"
        "methods:\n"
        "- method: fzoo\n"
        "  label: fzoo by dev\n"
        "  population: 4\n"
        "  try: {lr: [0.05, 0.2]}\n"
        "- cma --population 8\n"
        "seeds: [13]\n"
        "budget: 16\n"
        "test_limit: 50\n",
        encoding="utf-8",
    )
    results = dfolora.compare(config=tmp_path / "grid.yaml", output=str(tmp_path / "out"), against="cma --population 8")
    assert results["failures"] == []
    assert [(row["task"], row["method"]) for row in results["rows"]] == [
        (task, method)
        for task in ("mood", "demo/pair")
        for method in ("zero-shot", "fzoo by dev", "cma --population 8")
    ]
    assert results["rows"][1]["choice"]["lr"] in (0.05, 0.2)
    config = (tmp_path / "out/demo/mood/cma-population-8/seed-13/run/config.yaml").read_text(encoding="utf-8")
    assert "max_length: 30" in config
    averages = {row["method"]: row for row in results["averages"]}
    assert set(averages) == {"zero-shot", "fzoo by dev", "cma --population 8"}
    scores = [row["score"]["mean"] for row in results["rows"] if row["method"] == "fzoo by dev"]
    assert averages["fzoo by dev"]["score"] == pytest.approx(sum(scores) / 2)
    assert averages["fzoo by dev"]["difference"]["low"] <= averages["fzoo by dev"]["difference"]["value"]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--tasks", "demo/sentimnt"], "--task: unknown 'demo/sentimnt'; did you mean 'demo/sentiment'?"),
        (["--tasks", "demo/sentiment", "--methods", "firstorder"], "--methods: unknown 'firstorder'; did you mean"),
        (["--tasks", "demo/sentiment", "--seeds", "13,x"], "--seeds: 'x' is no whole number from 0"),
        (["--tasks", "demo/sentiment", "--seeds", "13,13"], "--seeds: 13 is given twice"),
        (["--tasks", "demo/sentiment", "--seeds", str(2**40)], "--seed: 1099511627776 cannot work"),
        ([], "--tasks: there are none; the grid is empty"),
        (["--tasks", "demo/sentiment", "--methods", "default,default"], "--methods: two have the label 'default'"),
        (
            ["--tasks", "demo/sentiment", "--methods", "cma --populatoin 3"],
            "option: unknown 'populatoin'; did you mean 'population'? (demo/sentiment, cma --populatoin 3)",
        ),
        (
            ["--tasks", "demo/sentiment", "--methods", "calibrated --rigde 3"],
            "option: unknown 'rigde'; did you mean 'ridge'? (demo/sentiment, calibrated --rigde 3)",
        ),
        (
            ["--tasks", "demo/sentiment", "--methods", "calibrated --ridge 0"],
            "ridge: 0.0 cannot work; give a number above 0",
        ),
        (["--tasks", "demo/sentiment", "--methods", "calibrated --by luck"], "by: unknown 'luck'"),
        (["--tasks", "demo/sentiment", "--methods", "majority --population 3"], "option: unknown 'population'"),
        (["--tasks", "demo/sentiment", "--methods", "cma --output x"], "--output: it is that of the whole comparison"),
        (["--tasks", "demo/sentiment", "--methods", "cma --test-split dev"], "--test-split: it is that of the whole"),
        (["--tasks", "demo/sentiment", "--methods", "cma 3"], "--methods: '3' in 'cma 3' is no flag"),
        (["--tasks", "demo/sentiment", "--methods", "spsa --try lr"], "--methods: --try lr in"),
        (
            ["--tasks", "demo/sentiment", "--against", "cma"],
            "--against: unknown 'cma'; choose one of default, zero-shot",
        ),
        (["--tasks", "demo/sentiment", "--budget", "many"], "--budget: 'many' is not a whole number"),
        (["--tasks", "demo/sentiment", "--data", "/no/such"], "--data: '/no/such': there is no such folder"),
        (["--tasks", "glue/sst2"], "--model: which one?"),
        (["--tasks", "demo/sentiment", "--populaton", "3"], "--populaton"),
        (["--config", "FILE"], "--config: "),
    ],
)
def test_bad_input_is_one_line_and_nothing_runs(
    tmp_path: Path, asked: list[str], capsys: pytest.CaptureFixture[str], words: list[str], said: str
) -> None:
    (tmp_path / "grid.yaml").write_text("taks: demo/sentiment\n", encoding="utf-8")
    words = [str(tmp_path / "grid.yaml") if word == "FILE" else word for word in words]
    assert cli.main(["compare", *words, "--output", str(tmp_path / "out")]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1
    assert said in lines[0]
    assert asked == []
    assert not (tmp_path / "out").exists()


def test_a_folder_of_something_else_is_left_alone(tmp_path: Path, asked: list[str]) -> None:
    (tmp_path / "thesis.txt").write_text("all my work", encoding="utf-8")
    with pytest.raises(UserError, match="is not empty and holds no comparison"):
        dfolora.compare(**SMALL, output=str(tmp_path))
    with pytest.raises(UserError, match="output: which folder"):
        dfolora.compare(**SMALL)
    with pytest.raises(UserError, match=r"methods: .* is no name; an object cannot be sent"):
        dfolora.compare(**SMALL, output=str(tmp_path / "new"), methods=[dfolora.Optimizer])
    assert asked == []


def test_zero_shot_is_there_once(tmp_path: Path) -> None:
    grid = make_grid({**SMALL, "methods": "zero-shot,default", "output": str(tmp_path / "x")})
    assert [cell.method for cell in grid.cells()] == ["zero-shot", "default"]


class Shrunk(Baseline):
    """A share of the test set is called 1; it needs no model."""

    reads_weights = False
    seen: ClassVar[list[tuple[int, int, int]]] = []

    def __init__(self, *, shrink: Annotated[int, "1 for every so many-th"] = 2) -> None:
        if shrink < 1:
            raise UserError(f"shrink: {shrink} cannot work; the least is 1")
        self.shrink = shrink

    def fit(self, few_shot: FewShot) -> dict[str, Any]:
        self.seen.append((self.shrink, few_shot.seed, len(few_shot.train)))
        return {}

    def predict(self, examples: Sequence[Example]) -> Predictions:
        guesses = [int(number % self.shrink == 0) for number in range(len(examples))]
        return Predictions(list(guesses), list(torch.eye(2)[guesses]))


def test_a_baseline_is_a_method(tmp_path: Path, asked: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """It is told what is about model, task and data, not what is about a search, and what it takes itself."""
    monkeypatch.setattr(Shrunk, "seen", [])
    dfolora.register("baseline", "shrunk", Shrunk)
    options = {**SMALL, "shots": 4, "test_limit": 30, "output": str(tmp_path), "against": "zero-shot"}
    results = dfolora.compare(**options, methods="cma,shrunk --shrink 3")
    zero_shot, _, row = results["rows"]
    assert (row["method"], row["failed"], row["evaluations"]) == ("shrunk --shrink 3", [], 0)
    assert Shrunk.seen == [(3, 13, 8)]
    run = Path(row["runs"][0]["folder"]) / "run"
    scores = json.loads((run / "scores.json").read_text(encoding="utf-8"))
    assert scores["method"] == "baseline"
    assert row["runs"][0]["metrics"] == scores["tuned"]
    lines = (run / "predictions.jsonl").read_text(encoding="utf-8").splitlines()
    assert [json.loads(line)["prediction"] for line in lines] == ["positive", "negative", "negative"] * 10
    assert row["difference"]["value"] == pytest.approx(row["score"]["mean"] - zero_shot["score"]["mean"])
    asked.clear()
    assert dfolora.compare(**options, methods="cma,shrunk --shrink 3")["rows"][2]["score"] == row["score"]
    with pytest.raises(UserError, match="with shrink 3, not 4"):
        dfolora.compare(**options, methods=[{"method": "shrunk", "label": "shrunk --shrink 3", "shrink": 4}])
    with pytest.raises(UserError, match=r"shrink: 0 cannot work; the least is 1 \(demo/sentiment, shrunk --shrink 0\)"):
        dfolora.compare(**options, methods="cma,shrunk --shrink 0")
    assert asked == []


def test_baselines_beside_the_default(tmp_path: Path, asked: list[str]) -> None:
    """The demo's model knows the truth and is biased in what it says: an offset is nearly all that it takes."""
    methods = "default,calibrated --ridge 0.1,logistic-regression"
    results = dfolora.compare(tasks="demo/sentiment", seeds=13, methods=methods, output=str(tmp_path))
    assert results["failures"] == []
    scores = {row["method"].split()[0]: row["score"]["mean"] for row in results["rows"]}
    assert scores["zero-shot"] == pytest.approx(59.2)
    assert min(scores["default"], scores["calibrated"]) > 98
    assert scores["logistic-regression"] > 98
    evaluations = [row["evaluations"] for row in results["rows"]]
    assert evaluations == [0, evaluations[1], 0, 0]
    assert 60 < evaluations[1] < 120


@pytest.mark.skipif(os.name != "posix", reason="signals")
def test_control_c_leaves_everything_resumable(tmp_path: Path, asked: list[str]) -> None:
    """A real process of its own, interrupted in the middle of a search; and one that is killed."""
    words = ["--tasks", "demo/sentiment", "--seeds", "13", "--budget", "1200", "--output", str(tmp_path)]
    words += ["--methods", "cma"]
    log = tmp_path / "demo/demo-sentiment/cma/seed-13/run/log.jsonl"
    # Python leaves SIGINT ignored where a shell ignores it for jobs in the background.
    start = "import signal, sys; signal.signal(signal.SIGINT, signal.default_int_handler); import dfolora.cli as c; "
    command = [sys.executable, "-c", start + "sys.exit(c.main())", "compare", *words]
    started = subprocess.Popen(command, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    deadline = time.monotonic() + 300
    while time.monotonic() < deadline and not (log.exists() and len(log.read_bytes().splitlines()) > 3):
        time.sleep(0.05)
    started.send_signal(signal.SIGINT)
    assert started.wait(120) == 130
    cell = log.parents[1]
    assert not (cell / "error.txt").exists()
    assert not (log.parent / "scores.json").exists()
    assert (log.parent / "adapter" / "adapter_config.json").exists()
    reached = len(log.read_bytes().splitlines())
    assert (tmp_path / "results.md").exists()
    measured = json.loads((cell / "measures.jsonl").read_text(encoding="utf-8"))
    assert measured["peak_memory_bytes"] > 1e8

    results = dfolora.compare(tasks="demo/sentiment", methods="cma", seeds=13, budget=1200, output=str(tmp_path))
    assert asked == ["demo/sentiment, cma, seed 13"]
    assert results["rows"][1]["evaluations"] == 1200
    assert len(log.read_bytes().splitlines()) > reached
    assert runs._ended(-9) == "its process was ended by SIGKILL; out of memory?"
