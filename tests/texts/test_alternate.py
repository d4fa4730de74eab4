"""The instruction and the weights in turn: one budget, what is held, runs that are stopped, the command."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from counted_chat import CountedChat
from tiny_models import Command, StopAt, csv_files, given, model

from dfolora import alternate, evaluate
from dfolora.chat import CallLimit, Request
from dfolora.errors import UserError
from dfolora.evolution.fitness import ChoiceFitness
from dfolora.opening import run_settings
from dfolora.runs.listener import Listener

SEARCH = {"method": "search", "population": 4, "subspace_dim": 20, "rank": 2, "sigma": 0.5, "seed": 3}
TEXTS = {"cycles": 2, "scored": 5, "text_population": 3, "budget": 40}
WORDS = "good bad great story music film play song warm cold people funny".split()


class Paid(CountedChat):
    """Makes texts of two words each, and counts what it was asked."""

    def reply(self, request: Request) -> str:
        seed = request.seed or 0
        return f"<prompt>{WORDS[seed % 12]} {WORDS[seed // 12 % 12]} it was</prompt>"


@pytest.fixture
def options(tmp_path: Path) -> dict[str, Any]:
    return {"model": model("masked"), **given(csv_files(tmp_path)), **SEARCH, **TEXTS}


def of(scores: dict[str, Any]) -> dict[str, Any]:
    """The result without clocks and places."""
    cycles = [{name: value for name, value in each.items() if name != "adapter"} for each in scores["cycles"]]
    return {**scores, "cycles": cycles, "seconds": 0, "run": "", "adapter": ""}


def lines(file: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]


def test_one_budget_and_each_step_holds_what_the_other_has_found(options: dict[str, Any], tmp_path: Path) -> None:
    run = tmp_path / "run"
    options = {name: value for name, value in options.items() if name not in SEARCH}
    options |= {"method": "first-order", "lr": 0.01, "dev_every": 2, "rank": 2}  # which leaves zero in a few steps
    scores = alternate(**options, chat=Paid(), output=str(run))
    assert scores["evaluations"] == 40
    first, second = scores["cycles"]
    assert first["evaluations"] + second["evaluations"] == scores["evaluations"]
    # The weights are searched with the instruction in front ...
    about = json.loads((run / "cycle-2/weights/adapter/dfolora.json").read_text(encoding="utf-8"))
    assert about["prompt"]["template"] == second["template"] == second["instruction"] + "\n{text} It was {mask}."
    # ... and the second instruction with the adapter of the first cycle, beginning with its instruction.
    settings = run_settings(**{name: options[name] for name in options if name not in TEXTS or name == "budget"})
    fitness = ChoiceFitness(settings)
    line = lines(run / "cycle-2/text/trace.jsonl")[0]
    assert line["texts"][0] == first["instruction"]
    bare = fitness.losses(line["texts"])
    fitness.hold(first["adapter"])
    assert fitness.losses(line["texts"]) == pytest.approx(line["losses"], abs=1e-5)
    assert max(abs(a - b) for a, b in zip(bare, line["losses"], strict=True)) > 1e-3
    # What is kept is the better cycle on the dev examples, and evaluate finds it.
    best = min(scores["cycles"], key=lambda cycle: cycle["dev_loss"])
    assert (scores["instruction"], scores["dev_loss"]) == (best["instruction"], best["dev_loss"])
    assert evaluate(adapter=str(run))["metrics"] == pytest.approx(best["tuned"])


class StopWeights(Listener):
    """Interrupts the weight search of a cycle after a generation of it."""

    def __init__(self, cycle: int) -> None:
        self.cycle, self.stop = cycle, StopAt(2)

    def started(self, run: Any, remark: str = "") -> None:
        self.here = f"cycle-{self.cycle}" in str(run.folder)

    def progress(self, line: Any, best: Any) -> str | None:
        return self.stop.progress(line, best) if self.here else None


def test_it_goes_on_where_it_was_stopped_and_pays_for_nothing_twice(options: dict[str, Any], tmp_path: Path) -> None:
    whole = Paid()
    scores = alternate(**options, chat=whole, output=str(tmp_path / "whole"))
    run, paid = tmp_path / "run", 0
    for chat, listener in ((Paid(2), None), (Paid(), StopWeights(1)), (Paid(3), None), (Paid(), StopWeights(2))):
        with pytest.raises(KeyboardInterrupt):
            alternate(**options, chat=chat, output=str(run), listener=listener)
        paid += chat.paid - (chat.stop_at == chat.paid)
        assert not (run / "scores.json").exists()
    last = Paid()
    again = alternate(chat=last, resume=run)
    assert of(again) == of(scores)
    assert paid + last.paid == whole.paid
    assert of(alternate(chat=last, resume=run)) == of(scores)  # it is finished


def test_calls_that_are_used_up_stop_it_and_more_go_on(options: dict[str, Any], tmp_path: Path) -> None:
    few = {**options, "cycles": 1, "budget": 20}
    with pytest.raises(CallLimit, match="max_calls: 2 calls are used up"):
        alternate(**few, chat=Paid(), output=str(tmp_path / "run"), max_calls=2)
    assert alternate(chat=Paid(), resume=tmp_path / "run", max_calls=100)["calls"] > 2


def test_what_cannot_work_is_one_line_and_leaves_nothing(
    options: dict[str, Any], tmp_path: Path, command: Command
) -> None:
    for changes, says in (
        ({"budget": 16}, "budget: 16 evaluations are 8 a cycle, and its instructions may take 8; give more than 16"),
        ({"cycles": 0}, "cycles: 0 cannot work"),
        ({"evolve": "evoprompt-gs"}, "evolve: unknown 'evoprompt-gs'; did you mean 'evoprompt-ga'"),
        ({"demonstrations": 2}, "demonstrations: 2 does not go with instructions that change"),
        ({"tune": "prompt"}, "tune: prompt does not alternate with instructions"),
        ({"sigmas": 1}, "option: unknown 'sigmas'"),
    ):
        with pytest.raises(UserError) as caught:
            alternate(**{**options, **changes}, chat=Paid(), output=str(tmp_path / "run"))
        assert str(caught.value).startswith(says)
        assert not (tmp_path / "run").exists()
    flags = [word for name, value in options.items() for word in ("--" + name.replace("_", "-"), value)]
    assert command("alternate", *flags, "--output", tmp_path / "run") == 2  # a masked model varies nothing
    assert "what answers messages is causal" in command.said[-1]
    assert not (tmp_path / "run").exists()
    assert command("alternate", *flags, "--cycle", "2") == 2
    assert "unknown '--cycle'; did you mean '--cycles'" in command.said[-1]
    assert command("alternate", "--resume", tmp_path) == 2
    assert "is no run of `dfolora alternate`" in command.said[-1]


def test_the_command_with_one_causal_model_for_everything(
    options: dict[str, Any], tmp_path: Path, command: Command
) -> None:
    few = {**options, "model": model("causal"), "cycles": 1, "scored": 3, "text_population": 2, "budget": 14}
    flags = [word for name, value in few.items() for word in ("--" + name.replace("_", "-"), value)]
    assert command("alternate", *flags, "--output", tmp_path / "run") == 0, command.err
    assert "cycle 1  dev loss" in command.out
    assert command.json("alternate", "--resume", tmp_path / "run")["best_cycle"] == 1
    assert command("evaluate", tmp_path / "run") == 0, command.err
