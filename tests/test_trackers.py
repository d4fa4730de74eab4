"""Where the numbers of a run can be followed: the same numbers as the log's, and no run lost by a tracker."""

from __future__ import annotations

import json
import sys
import types
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from tiny_models import Command, Tune, log

import dfolora
from dfolora.runs.trackers import Tracker


class Kept(Tracker):
    """Keeps what it is given."""

    def begin(self, folder: Path, settings: Mapping[str, Any]) -> None:
        self.folder, self.settings = folder, dict(settings)
        self.numbers: dict[str, dict[int, float]] = {}
        self.over = False

    def write(self, values: Mapping[str, float], step: int) -> None:
        for name, value in values.items():
            self.numbers.setdefault(name, {})[step] = value

    def end(self) -> None:
        self.over = True


def expected(run: str | Path) -> dict[str, dict[int, float]]:
    """The numbers that the log and the scores of a run have, by name and evaluations."""
    lines, numbers = log(run), {}
    numbers["search/loss"] = {line["evaluations"]: min(line["losses"]) for line in lines if line["losses"]}
    numbers["search/token_layers"] = {line["evaluations"]: line["token_layers"] for line in lines}
    numbers["dev/accuracy"] = {line["evaluations"]: line["dev"]["metrics"]["accuracy"] for line in lines if line["dev"]}
    numbers["dev/loss"] = {line["evaluations"]: line["dev"]["loss"] for line in lines if line["dev"]}
    scores = json.loads((Path(run) / "scores.json").read_text("utf-8"))
    numbers["test/accuracy"] = {scores["evaluations"]: scores["tuned"]["accuracy"]}
    numbers["test/accuracy_zero_shot"] = {scores["evaluations"]: scores["zero_shot"]["accuracy"]}
    return numbers


def same(found: Mapping[str, Mapping[int, float]], run: str | Path) -> None:
    for name, values in expected(run).items():
        assert found[name] == pytest.approx(values, rel=1e-6), name


def test_a_tracker_of_ones_own(options: dict[str, Any]) -> None:
    kept = Kept()
    run = dfolora.tune(**options, track=kept)
    same(kept.numbers, run.folder)
    assert kept.over
    assert (kept.settings["population"], kept.folder) == (4, run.folder)
    assert len(kept.numbers["dev/best"]) == len(kept.numbers["dev/loss"])


def test_tensorboard(command: Command, tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    scores, _ = Tune(command, tmp_path)("--track", "tensorboard")
    read = EventAccumulator(str(Path(scores["run"]) / "tensorboard")).Reload()
    found = {name: {e.step: e.value for e in read.Scalars(name)} for name in read.Tags()["scalars"]}
    same(found, scores["run"])
    (text,) = read.Tensors("settings/text_summary")
    assert b"    population: 4" in text.tensor_proto.string_val[0]


@pytest.mark.parametrize("name", ["wandb", "trackio"])
def test_wandb_and_trackio_are_called_as_they_ask(
    command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """By stand-ins with the calls of their documentation: init, log with a step, finish."""
    calls: list[tuple[str, Any]] = []
    module: Any = types.ModuleType(name)
    module.__spec__ = types.SimpleNamespace()
    module.init = lambda **options: calls.append(("init", options)) or module
    module.log = lambda values, step: calls.append(("log", (values, step)))
    module.finish = lambda: calls.append(("finish", None))
    monkeypatch.setitem(sys.modules, name, module)
    scores, _ = Tune(command, tmp_path)("--track", name)
    kinds = [kind for kind, _ in calls]
    assert (kinds[0], kinds[-1], set(kinds[1:-1])) == ("init", "finish", {"log"})
    init = calls[0][1]
    assert (init["project"], init["name"], init["config"]["budget"]) == ("dfolora", Path(scores["run"]).name, 24)
    found: dict[str, dict[int, float]] = {}
    for values, step in [said for kind, said in calls if kind == "log"]:
        for key, value in values.items():
            found.setdefault(key, {})[step] = value
    same(found, scores["run"])


def test_a_missing_package_or_name_is_told_before_the_search(
    command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tune = Tune(command, tmp_path)
    find = "importlib.util.find_spec"
    monkeypatch.setattr(find, lambda name, *_: None)
    for name, message in (
        ("wandb", "--track: wandb needs a package that is not installed; pip install wandb"),
        ("tensorbord", "--track: unknown 'tensorbord'; did you mean 'tensorboard'?"),
    ):
        output = tmp_path / name
        assert command("tune", *tune.flags("--track", name), "--output", output) == 2
        assert message in command.err
        assert not output.exists()


class Broken(Kept):
    def write(self, values: Mapping[str, float], step: int) -> None:
        raise ConnectionError("no network")


def test_a_tracker_that_fails_loses_no_run(options: dict[str, Any]) -> None:
    dfolora.register("tracker", "broken", Broken)
    with pytest.warns(RuntimeWarning, match="Broken is given up .no network.") as warned:
        run = dfolora.tune(**options, track=["broken", Kept])
    assert len(warned) == 1
    assert run.scores["tuned"]
