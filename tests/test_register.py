"""Names of one's own: registered by a program, brought by an installed package, given as objects."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from test_api import Walk, losses, without_cost
from tiny_models import SMALL, Command, csv_files, given, log, model

import dfolora
from dfolora import UserError
from dfolora.optimizers.random import RandomSearch
from dfolora.problems import objectives
from dfolora.registry import Registry
from dfolora.subspaces import subspace_class


def test_registered_names_work_on_the_command_line(command: Command, tmp_path: Path) -> None:
    plain = subspace_class("pca")
    dfolora.register("optimizer", "walk", Walk)
    dfolora.register("subspace", "mine", type("Mine", (plain,), {"__doc__": "As pca."}))
    dfolora.register("objective", "twice", lambda s, y: 2 * objectives.cross_entropy(s, y), "cross-entropy, doubled")
    files = csv_files(tmp_path)
    dfolora.register("task", "my/reviews", dfolora.Task.from_files(
        files[5], files[9], files[7], template=files[1], words=files[3]
    ), "reviews")  # fmt: skip
    flags = ["tune", "--task", "my/reviews", "--model", model("masked"), *SMALL]
    own = command.json(
        *flags, "--optimizer", "walk", "--reach", 2, "--subspace", "mine", "--objective", "twice", "--output",
        tmp_path / "own",
    )  # fmt: skip
    assert (own["optimizer"], own["subspace"], own["task"]) == ("walk", "mine", "my/reviews")
    run = dfolora.tune(**given(flags[1:]), optimizer=Walk, reach=2.0, subspace="pca", output=str(tmp_path / "plain"))
    for one, other in zip(losses(own["run"])[1:2], losses(run.folder)[1:2], strict=True):
        assert one == pytest.approx([2 * loss for loss in other], rel=1e-5)
    for verb, name in (("optimizers", "walk"), ("subspaces", "mine"), ("objectives", "twice"), ("tasks", "my/reviews")):
        assert name in command.json(verb)
    assert command.json("optimizers")["walk"].startswith("A random walk")
    with pytest.raises(SystemExit):
        command("tune", "--optimizer", "walk", "--help")
    assert "--reach X" in command.capsys.readouterr().out
    assert command(*flags, "--reach", 2, "--output", tmp_path / "never") == 2
    assert "--reach: cma does not take it; it is for walk" in command.said[-1]


def test_what_cannot_be_registered() -> None:
    with pytest.raises(UserError, match="^register: the optimizer 'cma' is built in"):
        dfolora.register("optimizer", "cma", Walk)
    with pytest.raises(UserError, match="^register: unknown 'optimiser'; did you mean 'optimizer'"):
        dfolora.register("optimiser", "walk", Walk)
    registry = Registry("thing", {}, "dfolora.nothing")
    with pytest.raises(UserError, match="^thing: unknown 'a'"):
        registry.get("a")


PLUGIN = '''
import numpy as np
from typing import Annotated
from dfolora import Optimizer
from dfolora.subspaces import subspace_class

class Twice(Optimizer):
    """Random search that takes every candidate twice."""

    def __init__(self, *arguments, grow: Annotated[float, "factor of sigma"] = 1.0, **common):
        super().__init__(*arguments, **common)
        self.grow = grow

    def _ask(self):
        half = self.rng.standard_normal((self.population // 2, self.dim)) * self.sigma * self.grow
        return np.concatenate([half, half])

    def _tell(self, points, losses):
        pass

    def _incumbent(self):
        return self.best

class Mine(subspace_class("pca")):
    pass

def sums(scores, labels):
    return -scores.gather(-1, labels.expand(len(scores), -1)[..., None])[..., 0]
'''


@pytest.fixture
def plugin(tmp_path: Path) -> Path:
    """A folder that holds an installed package: its module, and what pip writes beside it."""
    home = tmp_path / "site"
    info = home / "dfolora_plugin-1.0.dist-info"
    info.mkdir(parents=True)
    (home / "dfolora_plugin.py").write_text(PLUGIN, encoding="utf-8")
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: dfolora-plugin\nVersion: 1.0\n", encoding="utf-8")
    (info / "entry_points.txt").write_text(
        "[dfolora.optimizers]\ntwice = dfolora_plugin:Twice\nbroken = dfolora_plugin:Nothing\n"
        "[dfolora.subspaces]\nmine = dfolora_plugin:Mine\n[dfolora.objectives]\nsums = dfolora_plugin:sums\n",
        encoding="utf-8",
    )
    return home


def test_an_installed_package_brings_names(plugin: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In a process of its own, by nothing but being on the path."""
    monkeypatch.setenv("PYTHONPATH", str(plugin))
    flags = ["--model", model("masked"), *csv_files(tmp_path), *SMALL, "--output", str(tmp_path / "run"), "--json"]
    own = ["--optimizer", "twice", "--grow", "2", "--subspace", "mine", "--objective", "sums"]
    command = [sys.executable, "-m", "dfolora", "tune", *flags, *own]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    scores = json.loads(done.stdout)
    assert (scores["optimizer"], scores["subspace"]) == ("twice", "mine")
    for line in losses(tmp_path / "run")[1:]:
        assert line[:2] == pytest.approx(line[2:], rel=1e-5)
        assert line[0] != line[1]
    listed = subprocess.run(
        [sys.executable, "-m", "dfolora", "optimizers", "--json"], capture_output=True, text=True, check=False
    )
    assert json.loads(listed.stdout)["twice"] == "from dfolora_plugin:Twice"


def test_a_package_that_cannot_be_imported_is_one_line(
    command: Command, plugin: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(plugin))
    flags = ["tune", "--model", model("masked"), *csv_files(tmp_path), *SMALL, "--output", tmp_path / "run"]
    assert command(*flags, "--optimizer", "broken") == 2
    assert "--optimizer: 'broken' is brought by 'dfolora_plugin:Nothing', which cannot be imported" in command.said[-1]
    assert len(command.said) == 1
    assert "broken" in command.json("optimizers")  # a list imports nothing
    assert command(*flags, "--lr", "0.1") == 2  # nor does a question about others trip over it
    assert "--lr: cma does not take it" in command.said[-1]


# -- resume with objects --------------------------------------------------------------------------------------------


def test_what_was_given_as_an_object_is_given_again(tmp_path: Path, options: dict[str, Any]) -> None:
    from tiny_models import StopAt

    whole = dfolora.tune(**options | {"output": str(tmp_path / "whole")}, optimizer=Walk, reach=2.0)
    with pytest.raises(KeyboardInterrupt):
        dfolora.tune(**options, optimizer=Walk, reach=2.0, listener=StopAt(3))
    with pytest.raises(UserError, match="^resume: .* cannot be gone on with; optimizer: unknown '.*Walk'"):
        dfolora.tune(resume=options["output"])
    with pytest.raises(UserError, match="^optimizer: the run has '.*Walk', not '.*RandomSearch'"):
        dfolora.tune(resume=options["output"], optimizer=RandomSearch)
    again = dfolora.tune(resume=options["output"], optimizer=Walk)
    assert without_cost(log(again.folder)) == without_cost(log(whole.folder))
    assert again.scores["tuned"] == whole.scores["tuned"]
