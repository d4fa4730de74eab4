"""Asks that other threads begin: the same numbers, what they raise, what is left undone; CMA-ES against pycma."""

from __future__ import annotations

import threading
from concurrent.futures import Executor, ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
import torch
from threadpoolctl import threadpool_info
from told import tell

from dfolora.optimizers import Optimizer, make_optimizer, optimizer_names
from dfolora.optimizers.ahead import threads, threads_beside
from dfolora.optimizers.base import Points
from dfolora.optimizers.cma import cma
from dfolora.optimizers.random import RandomSearch

NAMES = [*optimizer_names(), *(f"nevergrad:{name}" for name in ("PSO", "DE", "DiagonalCMA", "LhsDE"))]


def losses_of(z: torch.Tensor, generation: int) -> torch.Tensor:
    losses = (z.double() - 0.5).square().sum(1)
    if generation == 2:
        losses[::3] = torch.nan
    if generation == 4:
        losses[:] = torch.inf
    return losses.round() if generation == 6 else losses  # ties


def record(names: list[str], workers: Executor | None, dim: int = 8) -> list[Any]:
    """Everything that instances taking turns answer."""
    searches = [make_optimizer(name, dim, population=6, sigma=0.2, seed=i) for i, name in enumerate(names)]
    found: list[Any] = []
    for generation in range(10):
        for search in searches:
            found.append(search.begins)
            z = search.ask()
            tell(search, losses_of(z, generation))
            if workers is not None:
                search.ask_ahead(workers)
            found += [z.tolist(), search.incumbent().tolist()]
    return found


@pytest.mark.parametrize("name", NAMES)
def test_the_same_numbers(name: str) -> None:
    with threads(2) as workers:
        assert record([name] * 3, workers) == record([name] * 3, None)


def test_a_mixture_in_one_thread() -> None:
    names = ["cma", "nevergrad:DiagonalCMA", "sep-cma", "nevergrad:PSO", "fireworks"]
    with threads(1) as workers:
        assert record(names, workers) == record(names, None)


class Twin:
    """pycma driven directly, with the two-point step size's self-check in place and its draws from where it likes."""

    def __init__(self, dim: int, population: int, bound: float | None, diagonal: bool, seed: int) -> None:
        options = {
            "randn": np.random.RandomState(seed).randn, "seed": np.nan, "verbose": -9, "popsize": population,
            "bounds": None if bound is None else [-bound, bound], "CMA_diagonal": diagonal,
        }  # fmt: skip
        self.es = cma.CMAEvolutionStrategy(np.zeros(dim), 0.2, options)
        self.limit = np.inf if bound is None else np.nextafter(np.float32(bound), np.float32(0))

    def rounded(self, points: Any) -> list[Any]:
        return np.clip(np.array(points), -self.limit, self.limit).astype(np.float32).tolist()


@pytest.mark.parametrize("ahead", [False, True])
@pytest.mark.parametrize("bound", [None, 0.3])
@pytest.mark.parametrize(
    ("name", "dim", "population"), [("cma", 8, 3), ("cma", 8, 20), ("sep-cma", 8, 20), ("cma", 320, 20)]
)
def test_cma_is_pycma(name: str, dim: int, population: int, bound: float | None, ahead: bool) -> None:
    """Populations and incumbents to the last bit, ties among losses and eigendecompositions included."""
    search = make_optimizer(name, dim, population=population, sigma=0.2, seed=5, bound=bound)
    twin = Twin(dim, population, bound, name == "sep-cma", 5)
    with threads(1) as workers:
        for generation in range(12):
            z, points = search.ask(), twin.es.ask()
            assert z.tolist() == twin.rounded(points)
            losses = (z.double() - 0.1).square().sum(1)
            losses = losses.round() if generation % 5 == 3 else losses
            search.tell(losses)
            if ahead:
                search.ask_ahead(workers)
            twin.es.tell(points, losses.tolist())
            assert search.incumbent().tolist() == twin.rounded(twin.es.result.xfavorite)


class Slow(RandomSearch):
    """Asks when it may, and knows which threads asked."""

    def __init__(self, gate: threading.Event) -> None:
        super().__init__(2, 3)
        self.gate, self.begun, self.seen = gate, threading.Event(), list[str]()

    def _ask(self) -> Points:
        self.seen.append(threading.current_thread().name)
        self.begun.set()
        assert self.gate.wait(30)
        return super()._ask()


def opened() -> threading.Event:
    event = threading.Event()
    event.set()
    return event


def test_who_asks() -> None:
    """Another thread what it has begun; the caller what nobody has; nobody else what touches global state."""
    gate = threading.Event()
    busy, waiting, private = Slow(gate), Slow(opened()), Slow(opened())
    private.touches_globals = True  # type: ignore[misc]
    with threads(1) as workers:
        for search in (busy, waiting, private):
            search.ask_ahead(workers)
        assert busy.begun.wait(30)
        waiting.ask()
        private.ask()
        gate.set()
        busy.ask()
    main = threading.current_thread().name
    assert waiting.seen == private.seen == [main]
    assert len(busy.seen) == 1
    assert busy.seen != [main]


@pytest.mark.parametrize(("name", "own"), [("cma", False), ("nevergrad:DiagonalCMA", True), ("nevergrad:PSO", True)])
def test_which_may_leave_the_callers_thread(name: str, own: bool) -> None:
    assert make_optimizer(name, 4, population=6).touches_globals is own


def test_no_more_is_waited_for_than_has_begun() -> None:
    """As after Ctrl-C: the rest is cancelled, no thread stays, and whoever asks all the same is answered."""
    gate = threading.Event()
    searches = [Slow(gate) for _ in range(4)]

    def interrupted() -> None:
        with threads(1) as workers:
            for search in searches:
                search.ask_ahead(workers)
            assert searches[0].begun.wait(30)
            threading.Timer(0.05, gate.set).start()
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert [len(search.seen) for search in searches] == [1, 0, 0, 0]
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("ask-ahead")]
    assert all(search.ask().shape == (3, 2) for search in searches)
    assert [len(search.seen) for search in searches] == [1, 1, 1, 1]


class Broken(RandomSearch):
    def _ask(self) -> Points:
        raise ArithmeticError("no more numbers")


def test_what_the_thread_raises_is_raised_by_ask() -> None:
    search: Optimizer = Broken(2, 3)
    with ThreadPoolExecutor(1) as workers:
        search.ask_ahead(workers)
        workers.submit(lambda: None).result()  # so that it has been begun
        for _ in range(2):
            with pytest.raises(ArithmeticError, match="no more"):
                search.ask()
        assert search.incumbent().tolist() == [0, 0]


def test_pycmas_own_failure_comes_with_the_next_ask(monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(self: Any, *arguments: Any) -> None:
        raise ArithmeticError("not positive definite")

    search = make_optimizer("cma", 4, population=6)
    monkeypatch.setattr(cma.CMAEvolutionStrategy, "tell", fails)
    with threads(1) as workers:
        search.tell(search.ask().sum(1))
        search.ask_ahead(workers)
        assert search.incumbent().any()
        with pytest.raises(ArithmeticError, match="positive definite"):
            search.ask()


def test_misuse() -> None:
    search = make_optimizer("cma", 4, population=6)
    with threads(1) as workers:
        search.ask_ahead(workers)
        search.ask_ahead(workers)  # once is enough
        with pytest.raises(RuntimeError, match="ask first"):
            search.tell(torch.zeros(6))
        search.ask()
        with pytest.raises(RuntimeError, match="ask_ahead: the last generation has not been told"):
            search.ask_ahead(workers)


def test_numpys_linear_algebra_uses_one_thread_meanwhile() -> None:
    def counts() -> dict[str, int]:
        return {each["filepath"]: each["num_threads"] for each in threadpool_info()}

    before = counts(), torch.get_num_threads()
    with threads(2):
        within = counts()
        assert torch.get_num_threads() == before[1]
    assert (counts(), torch.get_num_threads()) == before
    for path, count in within.items():
        assert count == (1 if path.startswith(np.__path__[0]) else before[0][path])


@pytest.mark.parametrize(("cores", "beside_gpu"), [(1, 1), (2, 1), (4, 3), (64, 4), (None, 1)])
def test_how_many_threads(monkeypatch: pytest.MonkeyPatch, cores: int | None, beside_gpu: int) -> None:
    monkeypatch.setattr("os.cpu_count", lambda: cores)
    assert threads_beside(torch.device("cpu")) == 1
    assert threads_beside(torch.device("cuda")) == beside_gpu
