"""Optimizers given by class, function, instance, registered name or another package's entry point; what is refused."""

from __future__ import annotations

import functools
import subprocess
import sys
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import pytest
import torch

from dfolora.errors import UserError
from dfolora.optimizers import (
    REGISTRY,
    Evaluation,
    Optimizer,
    check_optimizer,
    make_optimizer,
    optimizer_names,
    options_of,
)
from dfolora.optimizers.cma import CMA
from dfolora.optimizers.random import RandomSearch


class Hill(Optimizer):
    """Gaussian steps around the best so far."""

    def __init__(self, *arguments: Any, decay: Annotated[float, "share of the step kept"] = 0.9, **common: Any) -> None:
        super().__init__(*arguments, **common)
        self.step, self.decay = self.sigma, decay

    def _ask(self) -> Any:
        return self.best + self.step * self.rng.standard_normal((self.population, self.dim))

    def _tell(self, points: Any, losses: Any) -> None:
        self.step *= self.decay

    def _incumbent(self) -> Any:
        return self.best


class Steep(Hill):
    def __init__(self, *arguments: Any, slope: int = 2, **common: Any) -> None:
        super().__init__(*arguments, **common)


class Closed(Hill):
    def __init__(self, dim: int, population: int, sigma: float, seed: int, generations: Any, bound: Any) -> None:
        super().__init__(dim, population, sigma, seed, generations, bound)


def run(optimizer: Any, **options: Any) -> list[list[float]]:
    search = make_optimizer(optimizer, 3, population=4, sigma=0.2, seed=5, **options)
    for _ in range(6):
        search.tell((search.ask() - 0.3).square().sum(1))
    return [search.ask().tolist(), search.incumbent().tolist()]


def test_a_class_of_ones_own_is_enough() -> None:
    search = make_optimizer(Hill, 3, population=20, sigma=0.2)
    for _ in range(40):
        search.tell((search.ask().double() - 0.3).square().sum(1))
    assert float((search.incumbent() - 0.3).square().sum()) < 0.01  # from 0.27
    assert search.best_loss == pytest.approx(float((torch.from_numpy(search.best) - 0.3).square().sum()))


def test_class_function_and_instance_are_the_same_search() -> None:
    expected = run(CMA)
    assert expected == run("cma")
    assert expected == run(lambda dim, **common: CMA(dim, **common))
    assert expected == run(functools.partial(CMA, incumbent="mean"))
    assert expected == run(CMA(3, population=4, sigma=0.2, seed=5))
    assert run(functools.partial(CMA, incumbent="best")) == run("cma", incumbent="best") != expected
    assert run("spsa", noise="plane") == run("subzero")


def test_options_are_read_from_the_constructors() -> None:
    found = options_of(Steep)
    assert list(found) == ["slope", "decay"]
    assert (found["slope"].type, found["slope"].default, found["slope"].help) == (int, 2, "")
    assert (found["decay"].type, found["decay"].default, found["decay"].help) == (float, 0.9, "share of the step kept")
    assert list(options_of(functools.partial(Steep, slope=3))) == ["decay"]
    assert options_of(Closed) == options_of(Hill(3)) == options_of("nevergrad:PSO") == options_of("random") == {}
    assert options_of("guided")["best_share"].type is float
    assert options_of("spsa")["plane_dim"].type is int
    assert (options_of("spsa")["lr"].type, options_of("spsa")["lr"].default) == (float | str, "auto")
    assert options_of("spsa")["update"].choices == ("sgd", "momentum", "adam")
    assert "noise" not in options_of("subzero")
    assert all(option.help for name in optimizer_names() for option in options_of(name).values())


def test_options_reach_it_and_others_are_refused() -> None:
    assert run(Hill, decay=0.5) != run(Hill)
    assert run(Hill, decay=None) == run(Hill) == run(Closed)
    for source, options, said in [
        (Hill, {"dceay": 1.0}, "dceay: Hill has no such option; it takes decay"),
        (Closed, {"decay": 1.0}, "decay: Closed has no such option; it takes none"),
        (Hill(3), {"decay": 1.0}, "decay: Hill has no such option"),
        ("cma", {"best_share": 0.3}, "best_share: cma does not take it; it is for guided$"),
    ]:
        for refuse in (make_optimizer, check_optimizer):
            with pytest.raises(UserError, match=said):
                refuse(source, 3, options=options) if refuse is check_optimizer else refuse(source, 3, **options)


def test_an_instance_serves_one_part() -> None:
    search = Hill(3)
    check_optimizer(search)
    assert make_optimizer(search, 3) is search
    with pytest.raises(UserError, match="optimizer: this Hill serves another part already"):
        make_optimizer(search, 3)
    with pytest.raises(UserError, match="searches 3 numbers where there are 4"):
        make_optimizer(Hill(3), 4)
    asked = Hill(3)
    asked.ask()
    with pytest.raises(UserError, match="has been asked already"):
        make_optimizer(asked, 3)
    one = Hill(3)
    make_optimizer(lambda **common: one, 3)
    with pytest.raises(UserError, match="serves another part"):
        make_optimizer(lambda **common: one, 3)
    make_optimizer(make_optimizer("subzero", 3), 3)


@pytest.mark.parametrize("wrong", [3, None, dict, object(), ["cma"]])
def test_what_is_no_optimizer(wrong: Any) -> None:
    for refuse in (lambda: make_optimizer(wrong, 3), lambda: check_optimizer(wrong)):
        with pytest.raises(UserError, match=r"optimizer: .* is none; give a name such as 'cma'"):
            refuse()


def test_functions_that_do_not_fit() -> None:
    with pytest.raises(UserError, match=r"optimizer: .* cannot be called with dim, population, .*unexpected keyword"):
        make_optimizer(lambda dim: Hill(dim), 3)
    with pytest.raises(UserError, match="returned 7, which is no"):
        make_optimizer(lambda **common: 7, 3)


@pytest.mark.parametrize(
    ("name", "settings", "said"),
    [
        ("cmaa", {}, "optimizer: unknown 'cmaa'; did you mean 'cma'"),
        ("cma", {"population": 1}, "population: 1 is too few for CMA; it takes at least 3"),
        ("cma", {"sigma": -1.0}, "sigma: -1.0"),
        ("cma", {"bound": 0.01}, "sigma: 0.1 does not fit a bound of 0.01"),
        ("cma", {"options": {"incumbent": "bets"}}, "incumbent: unknown 'bets'"),
        ("guided", {"options": {"best_share": 2.0}}, "best_share: 2.0"),
        ("nevergrad:PSOO", {}, "optimizer: unknown 'nevergrad:PSOO'"),
        ("nevergrad:Powell", {}, "nevergrad:Powell works one candidate at a time, not a population of 20"),
        ("nevergrad:PSO", {"population": 0}, "population: 0"),
        ("nevergrad:PSO", {"options": {"lr": 0.1}}, "lr: nevergrad:PSO does not take it"),
    ],
)
def test_names_and_arguments_are_checked_without_a_dimension(name: str, settings: Any, said: str) -> None:
    with pytest.raises(UserError, match=said):
        check_optimizer(name, **settings)


def test_checking_calls_no_function_and_forgives_a_class_that_needs_its_own_dimension() -> None:
    class Square(Hill):
        def __init__(self, *arguments: Any, **common: Any) -> None:
            super().__init__(*arguments, **common)
            if self.dim != 9:
                raise UserError(f"dim: {self.dim} is not 9")

    check_optimizer(Square)
    assert make_optimizer(Square, 9).dim == 9
    check_optimizer(lambda **common: pytest.fail("called"))


def test_names_of_ones_own_and_of_other_packages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(REGISTRY, "_added", {})
    REGISTRY.add("hill", Hill)
    assert run("hill", decay=0.5) == run(Hill, decay=0.5)
    assert REGISTRY.describe()["hill"] == "Gaussian steps around the best so far."
    with pytest.raises(UserError, match="'cma' is built in"):
        REGISTRY.add("cma", Hill)
    (tmp_path / "climbers.py").write_text(
        "from dfolora.optimizers.random import RandomSearch\n"
        "class Climber(RandomSearch):\n"
        "    def __init__(self, *arguments, rope: float = 1.0, **common):\n"
        "        super().__init__(*arguments, **common)\n"
        "        self.sigma *= rope\n"
    )
    folder = tmp_path / "climbers-1.0.dist-info"
    folder.mkdir()
    (folder / "METADATA").write_text("Metadata-Version: 2.1\nName: climbers\nVersion: 1.0\n")
    (folder / "entry_points.txt").write_text(
        "[dfolora.optimizers]\nclimber = climbers:Climber\nfallen = climbers:Fallen\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    assert {"climber", "hill"} < set(optimizer_names())
    assert list(options_of("climber")) == ["rope"]
    assert run("climber", rope=2.0) != run("climber") == run("random")
    with pytest.raises(UserError, match="'fallen' is brought by 'climbers:Fallen', which cannot be imported"):
        make_optimizer("fallen", 3)
    with pytest.raises(UserError, match="did you mean 'climber'"):
        make_optimizer("climbr", 3)
    with pytest.raises(UserError, match="rope: cma does not take it; it is for climber"):
        make_optimizer("cma", 3, rope=1.0)


def test_a_refused_backend_leaves_no_thread_that_keeps_the_process() -> None:
    """nevergrad's sequential methods run in threads that wait for losses; one at the end of the process kept it."""
    code = (
        "import threading\n"
        "from dfolora.errors import UserError\n"
        "from dfolora.optimizers import make_optimizer\n"
        "for name, dim in (('nevergrad:Powell', 500), ('nevergrad:NGOpt', 2)):\n"
        "    try: make_optimizer(name, dim)\n"
        "    except UserError as error: print(error)\n"
        "from dfolora.optimizers.nevergrad import ng\n"
        "kept = ng.optimizers.registry['Powell'](3, budget=10)\n"
        "kept.ask()\n"
        "print(sum(thread.daemon for thread in threading.enumerate()))\n"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert "nevergrad:Powell works one candidate at a time" in found.stdout
    assert "nevergrad:NGOpt cannot serve a population of 20 in 2 dimensions" in found.stdout


@pytest.mark.parametrize("algorithm", ["NGOpt", "MetaModel"])
def test_methods_that_need_their_dimension_serve_in_it(algorithm: str) -> None:
    check_optimizer(f"nevergrad:{algorithm}")
    search = make_optimizer(f"nevergrad:{algorithm}", 500, generations=50)
    for _ in range(4):
        z = search.ask()
        search.tell((z - 0.5).square().sum(1))
        assert z.shape[1] == 500
        assert np.isfinite(search.incumbent().numpy()).all()


class Patient(RandomSearch):
    """Counts the examples that the best candidate gets right, which is all that it takes from their losses."""

    wants = "example_losses"
    right: int | None = None

    def _summary(self, points: Any, losses: Any, evaluation: Evaluation) -> dict[str, Any]:
        assert evaluation.example_losses is not None
        return {"right": int((evaluation.example_losses[int(losses.argmin())] < 1).sum())}

    def _tell(self, points: Any, losses: Any) -> None:
        assert self.summary is not None
        self.right = self.summary["right"]


def test_an_optimizer_of_ones_own_sees_the_loss_of_every_example_and_replays_without() -> None:
    search, twin = Patient(2, 3), Patient(2, 3)
    search.ask()
    example_losses = torch.tensor([[9.0, 9.0], [0.5, 2.0], [0.1, 0.2]])
    search.tell(Evaluation(example_losses.mean(1), example_losses=example_losses))
    assert search.note() == {"right": 2}
    twin.ask()
    twin.retell([9.0, 1.25, 0.15], {"right": 2})
    assert search.right == twin.right == 2
    search.ask()
    with pytest.raises(UserError, match="optimizer: Patient needs a loss for every example"):
        search.tell([1.0, 2.0, 3.0])
