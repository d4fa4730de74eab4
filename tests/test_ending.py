"""Runs that end before their budget: at a dev score, for want of progress, or because a listener asks."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
from tiny_models import FIRST_ORDER, SMALL, Command, StopAt, Tune, given, log

import dfolora
from dfolora import Listener, UserError
from dfolora.log import Line
from dfolora.runs.ending import Ending

LOOKS = [*SMALL, "--dev-every", "4", "--selection", "sample", "--sigma", "2", "--budget", "40", "--test-split", "none"]
FULL = [
    "--method",
    "full-parameter",
    "--budget",
    "24",
    "--lr",
    "0.01",
    "--sigma",
    "0.001",
    "--dev-every",
    "4",
    "--test-split",
    "none",
]
METHODS = {"search": LOOKS, "first-order": [*FIRST_ORDER, "--test-split", "none"], "full-parameter": FULL}


def looks(*pairs: tuple[float, float | None]) -> list[Line]:
    dev: list[dict[str, Any]] = [{"metrics": {}, "main": main, "loss": loss} for main, loss in pairs]
    return [Line(generation=number, dev=each) for number, each in enumerate(dev)]


def reasons(ending: Ending, lines: list[Line]) -> list[str]:
    return [ending.see(line) for line in lines]


def test_a_goal_is_a_score_or_a_loss() -> None:
    lines = looks((50.0, 0.9), (99.0, None), (70.0, 0.5), (60.0, 0.2))
    assert reasons(Ending("70"), lines) == ["", "", *["the dev score 70 is reached"] * 2]
    assert reasons(Ending("loss=0.3"), lines) == ["", "", "", "the dev loss 0.3 is reached"]
    for text in ("good", "loss=", "loss", "f1=80", "nan", "loss=inf"):
        with pytest.raises(UserError, match="stop_at: .* is no goal"):
            Ending(text)


def test_patience_counts_looks_without_a_better_one() -> None:
    ending = Ending(patience=2)
    lines = looks((50.0, 0.9), (50.0, 0.9), (50.0, 0.8), (99.0, None), (50.0, 0.8), (80.0, 0.1))
    lines.insert(1, Line(generation=1))  # a line without a look says nothing
    assert reasons(ending, lines)[:5] == [""] * 5
    assert ending.see(lines[5]) == "no better look at the dev set in 2"


@pytest.mark.parametrize("method", METHODS)
def test_a_run_ends_at_the_look_that_reaches_the_goal(command: Command, tmp_path: Path, method: str) -> None:
    """Its log is the beginning of that of the whole run, to the last bit; a resume ends at the same line."""
    tune = Tune(command, tmp_path, METHODS[method])
    _, whole = tune()
    seen = [line for line in whole if line["dev"] is not None]
    goal = min(line["dev"]["loss"] for line in seen[: len(seen) * 2 // 3])
    assert goal < seen[0]["dev"]["loss"]
    at = next(line["generation"] for line in seen if line["dev"]["loss"] <= goal)
    assert 0 < at < whole[-1]["generation"]
    scores, lines = tune("--stop-at", f"loss={goal}")
    assert scores["ended"] == f"the dev loss {goal:g} is reached"
    assert f"ended after {lines[-1]['evaluations']} evaluations: {scores['ended']}" in command.err
    assert lines[-1].pop("ended") == scores["ended"]
    assert lines == whole[: at + 1]
    if method == "search":
        return
    # What a kill between the last line and the scores leaves is finished without another step.
    run = Path(scores["run"])
    (run / "scores.json").unlink()
    again = command.json("tune", "--resume", run)
    for same in (again, scores):
        same.pop("seconds")
    assert again == scores


def test_patience_ends_a_run_and_a_resume_where_it_would_have_ended(command: Command, tmp_path: Path) -> None:
    tune = Tune(command, tmp_path, LOOKS)
    whole = tune()[1]
    scores, lines = tune("--patience", "3")
    ranks = [(line["dev"]["main"], -line["dev"]["loss"]) for line in whole if line["dev"]]
    expected = next(i for i in range(3, len(ranks)) if max(ranks[i - 2 : i + 1]) <= max(ranks[: i - 2]))
    assert sum(line["dev"] is not None for line in lines) == expected + 1
    assert lines[-1]["ended"] == scores["ended"] == "no better look at the dev set in 3"

    options = given(tune.flags("--patience", "3"))
    with pytest.raises(KeyboardInterrupt):
        dfolora.tune(**options, output=tmp_path / "cut", listener=StopAt(expected - 1))
    assert command("tune", "--resume", tmp_path / "cut") == 0
    assert log(tmp_path / "cut") == lines

    more = command.json("tune", "--resume", tmp_path / "cut", "--budget", 40, "--patience", 100)
    assert (more["evaluations"], more["ended"]) == (40, "")
    after = [{name: value for name, value in line.items() if name != "ended"} for line in log(tmp_path / "cut")]
    assert after == whole


def test_tangent_stops_at_a_score_but_has_no_patience(command: Command, tmp_path: Path) -> None:
    tune = Tune(command, tmp_path, ["--method", "tangent", "--budget", "200", "--test-split", "none"])
    scores, lines = tune("--stop-at", "loss=100")
    assert (len(lines), scores["selected_at"]) == (1, 0)  # the model as it was is good enough
    whole = tune()[1]
    loss = whole[1]["dev"]["loss"]
    if loss < whole[0]["dev"]["loss"]:
        scores, lines = tune("--stop-at", f"loss={loss}")
        assert scores["selected_at"] == lines[-1]["evaluations"] == whole[1]["evaluations"]
        assert scores["dev_loss"] == loss
    assert command("tune", *tune.flags("--patience", "2")) == 2
    assert "--patience: 2 has no use in the method tangent" in command.err


class Tells(Listener):
    """Writes down what it is told, and asks to end after some steps."""

    def __init__(self, most: float = math.inf) -> None:
        self.most = most
        self.told: list[str] = []
        self.looks = 0

    def started(self, run: Any, remark: str = "") -> None:
        self.told.append("started")

    def progress(self, line: Line, best: Line) -> str | None:
        self.told.append("step")
        self.looks += line.dev is not None
        return "enough is enough" if line.generation >= self.most else None

    def ended(self, line: Line) -> None:
        self.told.append(line.ended)

    def finished(self, run: Any) -> None:
        assert run.scores["tuned"]
        self.told.append("finished")

    def closed(self) -> None:
        self.told.append("closed")


def test_several_listeners_hear_all_and_one_may_end_the_run(options: dict[str, Any]) -> None:
    one, other = Tells(), Tells(3)
    run = dfolora.tune(**options, listener=[one, other])
    assert run.scores["ended"] == "enough is enough"
    assert one.told == other.told == ["started", *["step"] * 4, "enough is enough", "finished", "closed"]
    lines = [json.loads(line) for line in (run.folder / "log.jsonl").read_text("utf-8").splitlines()]
    assert one.looks == sum(line["dev"] is not None for line in lines)
    assert len(lines) == 4


def test_a_listener_is_told_of_the_end_of_a_run_that_fails(options: dict[str, Any], tmp_path: Path) -> None:
    tells = Tells()
    with pytest.raises(KeyboardInterrupt):
        dfolora.tune(**{**options, "output": tmp_path / "a"}, listener=(tells, StopAt(1)))
    assert tells.told == ["started", "step", "step", "closed"]
    with pytest.raises(UserError, match="listener: .* is no dfolora.Listener"):
        dfolora.tune(**options, listener=print)
