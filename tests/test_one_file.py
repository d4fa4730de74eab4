"""What a newcomer adds is one file outside the package: an optimizer and a subspace with an option each, a method."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_models import SMALL, StopAt, csv_files, given, log, model

import dfolora
from dfolora import cli
from dfolora.loop import run_method
from dfolora.runs.folder import Run
from dfolora.settings.build import tune_settings
from dfolora.settings.search import SearchSettings

OPTIMIZER = '''
from typing import Annotated

import dfolora


class Shrinking(dfolora.Optimizer):
    """Gaussian samples around the best so far, a little closer every time."""

    def __init__(self, *arguments, decay: Annotated[float, "share of the radius kept"] = 0.9, **common):
        super().__init__(*arguments, **common)
        self.decay, self.radius = decay, self.sigma

    def _ask(self):
        return self.best + self.radius * self.rng.standard_normal((self.population, self.dim))

    def _tell(self, points, losses):
        self.radius *= self.decay

    def _incumbent(self):
        return self.best


dfolora.register("optimizer", "shrinking", Shrinking)
'''

SUBSPACE = '''
from typing import Annotated

import dfolora
from dfolora.subspaces.pca import Pca


class Stretched(Pca):
    """The subspace ``pca`` with another scale."""

    def __init__(self, *arguments, stretch: Annotated[float, "factor on the scale"] = 1.0, **common):
        self.stretch = stretch
        super().__init__(*arguments, **common)

    def b_side(self, name, module, z):
        return self.stretch * super().b_side(name, module, z)


dfolora.register("subspace", "stretched", Stretched)
'''

METHOD = '''
import torch

from dfolora.log import Step, checksum, finite
from dfolora.methods.method import Method


class Coordinates(Method):
    """One coordinate of one layer at a time: both ways by a fixed length, and the better of the three places stays."""

    size = 2

    def __init__(self, problem, budget, length=0.5):
        super().__init__(problem, budget)
        self.length = length
        self.places = [torch.zeros(part.dim) for part in problem.parts]
        self.losses = [None] * len(self.places)

    def asked(self, before):
        part, coordinate = before.generation % len(self.places), before.generation // len(self.places)
        z = self.places[part].repeat(2, 1)
        z[:, coordinate % z.shape[1]] += torch.tensor([self.length, -self.length])
        return part, z

    def step(self, before):
        part, z = self.asked(before)
        losses = self.problem.losses(z, part)
        here = self.problem.loss()
        return self.moved(part, z, losses, float(here))

    def moved(self, part, z, losses, here):
        if float(losses.min()) < here:
            self.places[part] = z[losses.argmin()]
            self.problem.keep(self.places[part], part)
        return Step(checksum(z), finite(losses), layer=part, note={"here": here})

    def repeat(self, before, line):
        part, z = self.asked(before)
        assert checksum(z) == line.checksum
        self.moved(part, z, line.loss_tensor(), line.note["here"])
'''


def module(folder: Path, text: str) -> dict[str, Any]:
    """The names of a Python file."""
    file = folder / "mine.py"
    file.write_text(text, encoding="utf-8")
    names: dict[str, Any] = {"__name__": "mine"}
    exec(compile(text, str(file), "exec"), names)
    return names


def options(folder: Path, **more: Any) -> dict[str, Any]:
    return given(["--model", model("masked"), *csv_files(folder), *SMALL, "--output", folder / "run"]) | more


def test_an_optimizer_with_an_option(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from dfolora import optimizers

    monkeypatch.setattr(optimizers.REGISTRY, "_added", {})
    module(tmp_path, OPTIMIZER)
    steady = dfolora.tune(**options(tmp_path, optimizer="shrinking", decay=1.0))
    near = dfolora.tune(**options(tmp_path, optimizer="shrinking", decay="1e-6", output=str(tmp_path / "b")))
    first, last = log(near.folder)[1], log(near.folder)[-1]
    assert first["losses"] == log(steady.folder)[1]["losses"]
    assert last["losses"] != log(steady.folder)[-1]["losses"]
    assert max(last["losses"]) - min(last["losses"]) < 1e-4 < max(first["losses"]) - min(first["losses"])
    with pytest.raises(dfolora.UserError, match="^decay: cma does not take it; it is for shrinking"):
        dfolora.tune(**options(tmp_path, decay=0.5, output=str(tmp_path / "c")))


def test_a_subspace_with_an_option(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """From Python, on the command line, and in the settings of a run that goes on."""
    from dfolora import subspaces

    monkeypatch.setattr(subspaces.REGISTRY, "_added", {})
    module(tmp_path, SUBSPACE)
    wide = dfolora.tune(**options(tmp_path, subspace="stretched", stretch=2.0))
    assert log(wide.folder) == log(dfolora.tune(**options(tmp_path, scale=2.0, output=str(tmp_path / "b"))).folder)
    flags = ["--model", model("masked"), *csv_files(tmp_path), *SMALL, "--subspace", "stretched", "--stretch", "2"]
    assert cli.main(["tune", *flags, "--output", str(tmp_path / "c")]) == 0
    assert log(tmp_path / "c") == log(wide.folder)
    assert Run.open(tmp_path / "c", budget=40).settings.subspace_options == {"stretch": 2.0}
    with pytest.raises(dfolora.UserError, match="^option: unknown 'stretch'"):
        dfolora.tune(**options(tmp_path, stretch=2.0, output=str(tmp_path / "d")))
    with pytest.raises(dfolora.UserError, match="^stretch: the subspace pca does not take it"):
        SearchSettings(subspace_options={"stretch": 2.0})


def test_a_method(tmp_path: Path) -> None:
    """Its runs are logged, looked at, resumed and saved by the one loop."""
    made = module(tmp_path, METHOD)["Coordinates"]
    settings = options(tmp_path)
    output = settings.pop("output")

    def problem() -> Any:
        return dfolora.problem(**settings)

    def start(folder: str) -> tuple[Any, Run]:
        box = problem()
        kept = tune_settings(**settings, output=folder)
        return box, Run.create(kept, torch.device("cpu"), box.data_checksum, {"0/none": torch.zeros(1)})

    box, run = start(output)
    last = run_method(made(box, 80), run)
    run.close()
    assert last.evaluations == 80
    lines = log(output)
    assert [line["layer"] for line in lines[1:5]] == [0, 1, 0, 1]
    assert lines[-1]["note"]["here"] < lines[1]["note"]["here"]
    assert [line["generation"] for line in lines if line["dev"]] == list(range(0, 41, 2))

    box, run = start(str(tmp_path / "cut"))
    with pytest.raises(KeyboardInterrupt):
        run_method(made(box, 80), run, StopAt(17))
    run.close()
    again = Run.open(tmp_path / "cut")
    other = problem()
    run_method(made(other, 80), again)
    again.close()
    assert [line["losses"] for line in log(tmp_path / "cut")] == [line["losses"] for line in lines]
    other.save(tmp_path / "adapter")
    assert (tmp_path / "adapter" / "adapter_model.safetensors").is_file()
