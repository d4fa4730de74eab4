"""The pool: who scores what, and what comes of it, with workers that are no processes."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from fake_crew import FakeCrew, Toy
from tiny_models import Command, StopAt, csv_files, given, log, model

import dfolora
from dfolora.errors import UserError
from dfolora.log import Line
from dfolora.methods.search import Search
from dfolora.optimizers import make_optimizer
from dfolora.problems.adapters import AdapterProblem
from dfolora.workers import ray_crew
from dfolora.workers.pool import Pool, size_of_slice


def pool(crew: FakeCrew, slice_size: int | None = 1) -> tuple[Toy, Pool]:
    toy = Toy()
    return toy, Pool(toy, lambda: crew, slice_size)  # type: ignore[arg-type]


def population(count: int) -> torch.Tensor:
    return torch.arange(3.0 * count).view(count, 3) + 20


def test_losses_come_back_in_the_order_of_the_candidates() -> None:
    toy, shared = pool(FakeCrew(Toy, [1, 1.7, 0.4]), 2)
    z = population(7)
    found = shared.evaluation(z, 0, None, "losses")
    assert torch.equal(found.losses, z.square().sum(1))
    assert found.scores is found.example_losses is None
    assert (toy.engine.token_layers, toy.engine.forwards) == (7, 4)  # what the workers computed, counted here


def test_whoever_is_twice_as_fast_takes_twice_as_many() -> None:
    crew = FakeCrew(Toy, [1, 2])
    pool(crew)[1].evaluation(population(12), 0, None, "losses")
    assert [len(orders) for orders in crew.orders] == [8, 4]
    assert crew.clock == 8


def test_a_minibatch_and_what_an_optimizer_wants_travel() -> None:
    z = population(5)
    _, shared = pool(FakeCrew(Toy, [1, 1]), 2)
    found = shared.evaluation(z, 0, torch.tensor([1, 4]), "scores")
    assert torch.equal(found.losses, z.square().sum(1) + 5000)
    assert found.scores is not None
    assert found.example_losses is not None
    assert found.loss_of_scores is not None
    assert torch.equal(found.scores, z[:, None, :2].expand(-1, 4, -1))
    assert torch.equal(found.loss_of_scores(found.scores), z[:, 0])
    assert torch.equal(found.example_losses, z[:, :1].expand(-1, 4))


def test_workers_hear_of_incumbents_once_when_they_have_moved() -> None:
    crew = FakeCrew(Toy, [1])
    toy, shared = pool(crew, 4)
    sent = []
    for part in (0, 1, 0, 0):
        losses = shared.evaluation(population(4), part, None, "losses").losses
        assert torch.equal(losses, toy.evaluation(population(4), part, None, "losses").losses)
        sent.append(sorted(crew.orders[0][-1].incumbents))
        if part == 1 or len(sent) == 1:
            toy.keep(torch.full((3,), len(sent) + 0.5), part)
    assert sent == [[0, 1], [0], [1], []]


def test_a_slice_of_a_dead_worker_goes_to_another_and_a_new_one_comes(caplog: pytest.LogCaptureFixture) -> None:
    crew = FakeCrew(Toy, [1, 1], dies=lambda worker, count: worker == 1 and count == 1, loading=2.5)
    toy, shared = pool(crew)
    toy.keep(torch.ones(3), 1)
    z = population(8)
    with caplog.at_level(logging.WARNING, "dfolora.workers"):
        found = shared.evaluation(z, 0, None, "losses")
    assert torch.equal(found.losses, z.square().sum(1) + 300)
    assert (shared.deaths, crew.started) == (1, 3)
    assert [order.slice for order in crew.orders[1]][:2] == [1, 3]
    assert sorted(order.slice for orders in crew.orders for order in orders) == [0, 1, 2, 3, 3, 4, 5, 6, 7]
    assert crew.clock == 8.5  # alone from then on, the other would have taken 9.5; and it did not stand still meanwhile
    assert caplog.messages == ["a worker died (killed); another takes what it had to do, and a new one its place"]
    shared.evaluation(z, 0, None, "losses")
    first = next(order for order in crew.orders[1] if order.turn == 2 or order.slice > 3)
    assert sorted(first.incumbents) == [0, 1]  # the new one knows nothing yet


def test_what_kills_every_worker_ends_the_run() -> None:
    crew = FakeCrew(Toy, [1, 1], dies=lambda worker, count: crew.orders[worker][-1].slice == 2)
    with pytest.raises(UserError, match="^workers: the same candidates have killed 5 of them .killed.$"):
        pool(crew)[1].evaluation(population(6), 0, None, "losses")
    with pytest.raises(UserError, match="^workers: each has died 5 times in a row"):
        pool(FakeCrew(Toy, [1, 1.5], dies=lambda worker, count: True))[1].evaluation(population(60), 0, None, "losses")


def test_the_others_go_on_without_one_that_dies_again_and_again(caplog: pytest.LogCaptureFixture) -> None:
    crew = FakeCrew(Toy, [1, 1], dies=lambda worker, count: worker == 0)
    z = population(30)
    with caplog.at_level(logging.WARNING, "dfolora.workers"):
        assert torch.equal(pool(crew)[1].evaluation(z, 0, None, "losses").losses, z.square().sum(1))
    assert [len(orders) for orders in crew.orders] == [5, 30]
    assert caplog.messages[-1] == "a worker has died 5 times in a row (killed); the others go on without it"


def test_an_error_in_a_worker_is_the_users_and_what_was_under_way_does_not_disturb() -> None:
    crew = FakeCrew(Toy, [1, 3])
    _, shared = pool(crew)
    z = population(6)
    z[2, 0] = 13
    with pytest.raises(UserError, match="^reward: it does not like 13$"):
        shared.evaluation(z, 0, None, "losses")
    assert torch.equal(shared.evaluation(z[3:], 0, None, "losses").losses, z[3:].square().sum(1))


def test_a_worker_with_other_data_is_refused() -> None:
    class Other(Toy):
        data_checksum = "other"

    with pytest.raises(UserError, match="^workers: the one on .* reads other weights or other tokens"):
        pool(FakeCrew(Other, [1]))[1].evaluation(population(2), 0, None, "losses")


def test_fewer_candidates_than_workers_and_a_second_start() -> None:
    crew = FakeCrew(Toy, [1, 1, 1])
    _, shared = pool(crew)
    assert shared.evaluation(population(1), 0, None, "losses").losses.tolist() == [20**2 + 21**2 + 22**2]
    shared.close()
    shared.close()
    assert crew.closed
    assert len(shared.evaluation(population(2), 0, None, "losses").losses) == 2
    assert crew.started == 6


@pytest.mark.parametrize(
    ("candidates", "workers", "size"),
    [(20, 1, 2), (20, 2, 2), (20, 8, 2), (20, 9, 2), (20, 10, 1), (8, 2, 1), (1, 4, 1), (256, 3, 16), (1024, 512, 1)],
)
def test_slices_do_not_depend_on_the_number_of_workers_up_to_eight(candidates: int, workers: int, size: int) -> None:
    assert size_of_slice(candidates, workers) == size


def _in_turn(
    options: dict[str, Any], seconds: Sequence[float], dies: Any = lambda worker, count: False
) -> tuple[list[torch.Tensor], AdapterProblem]:
    """Losses of three populations whose incumbents move, by workers that are so fast."""
    problem = dfolora.problem(**options)
    if seconds:
        problem.evaluator = Pool(problem, lambda: FakeCrew(lambda: dfolora.problem(**options), seconds, dies), 2)
    generator = torch.Generator().manual_seed(0)
    losses = []
    for part in (0, 1, 1):
        z = torch.randn(7, problem.parts[part].dim, generator=generator)
        losses.append(problem.losses(z, part, torch.tensor([0, 2, 5])))
        problem.keep(z[int(losses[-1].argmin())], part)
    return losses, problem


def test_losses_of_a_model_are_the_same_bits_for_any_number_of_workers(tmp_path: Path) -> None:
    options = {**given([*csv_files(tmp_path), "--subspace-dim", "20"]), "model": model("masked")}
    alone, _ = _in_turn(options, [])
    one, _ = _in_turn(options, [1])
    three, problem = _in_turn(options, [1, 2, 1.1], lambda worker, count: (worker, count) == (0, 1))
    assert problem.evaluator.deaths == 1  # type: ignore[union-attr]
    for plain, first, second in zip(alone, one, three, strict=True):
        assert torch.equal(first, second)
        torch.testing.assert_close(first, plain, rtol=0, atol=1e-6)
    assert len({float(loss) for losses in one for loss in losses}) == 21


def test_a_run_is_resumed_with_another_number_of_workers(
    tmp_path: Path, command: Command, options: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []

    def crew(made: Any, workers: int, address: str, use_gpus: bool) -> FakeCrew:
        asked.append((workers, address, use_gpus))
        return FakeCrew(made, [1] * workers)

    monkeypatch.setattr(ray_crew, "RayCrew", crew)
    monkeypatch.setattr(ray_crew, "check", lambda address: None)
    options |= {"test_split": "none", "device": "cpu"}
    dfolora.tune(**options, workers=3)
    with pytest.raises(KeyboardInterrupt):
        dfolora.tune(**{**options, "output": tmp_path / "other"}, workers=1, listener=StopAt(2))
    assert command("tune", "--resume", tmp_path / "other", "--workers", 2) == 0, command.err
    assert asked == [(3, "", False), (1, "", False), (2, "", False)]
    costs = ("token_layers", "forwards")  # every worker computes its own prefix
    one, other = (
        [{name: value for name, value in line.items() if name not in costs} for line in log(tmp_path / name)]
        for name in ("run", "other")
    )
    assert one == other
    assert len(one) == 7


def test_the_release_s_looks_do_not_reach_the_workers(options: dict[str, Any]) -> None:
    """``selection: sample`` loads a candidate for a look; what is scored afterwards must not know."""
    options |= {"selection": "sample", "mode": "joint", "test_split": "none", "engine": "sequential"}
    problem = dfolora.problem(**{name: value for name, value in options.items() if name != "output"})
    search = Search(problem, lambda index, dim: make_optimizer("cma", dim, population=4), 4, 24, shown="sample")
    before = Line()
    problem.selection.begin(before)
    line = before.next(search.step(before), problem.engine, 0.0)
    incumbent = problem.incumbents[0].clone()
    search.look(line)
    assert torch.equal(problem.incumbents[0], incumbent)
    assert torch.equal(search.optimizers[0].incumbent(), incumbent)


def test_a_model_in_memory_is_refused() -> None:
    with pytest.raises(UserError, match="^workers: they load the model anew"):
        dfolora.tune(dfolora.load_model(model("masked")), workers=2, method="search")
    with pytest.raises(UserError, match="^workers: the method first-order does not take it; it is for search$"):
        dfolora.tune(workers=2, method="first-order")


def test_without_ray_one_line_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ray_crew.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"^workers: .*; pip install 'dfolora\[ray\]'$"):
        dfolora.tune(workers=2, method="search")
