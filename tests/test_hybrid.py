"""Gradients for some layers and estimates for the others: who moves by what, and what it counts as."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from tiny_models import FIRST_ORDER, Command, Tune

from dfolora.methods import gradient, hybrid
from dfolora.settings.build import tune_settings
from dfolora.settings.methods import HybridSettings

LAYERS = ["--method", "hybrid", "--rho", "0.6", "--budget", "60"]


@pytest.fixture
def tune(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Tune:
    return Tune(Command(capsys), tmp_path, FIRST_ORDER)


def b_side(scores: dict[str, Any], layer: int) -> torch.Tensor:
    """All B of a layer where the run ended."""
    state = load_file(Path(scores["run"]) / "state.safetensors")
    own = f"now/roberta.encoder.layer.{layer}."
    return torch.stack([b for name, b in state.items() if name.startswith(own) and name.endswith("/b")])


def test_what_is_logged_and_counted(tune: Tune) -> None:
    scores, lines = tune(*LAYERS)
    assert (scores["optimizer"], scores["subspace"], scores["first_order_layers"]) == ("adamw+spsa", "", [1])
    assert [len(line["losses"]) for line in lines] == [0] + [3] * 20
    assert [line["evaluations"] for line in lines] == list(range(0, 61, 3))
    forward = 2 * 6 * 10  # two blocks, six prompts of at most ten tokens
    step = 2 * forward + forward + 2 * forward // 2  # two probes, a forward, a backward to the upper block
    profile = 3 * forward
    assert [line["token_layers"] for line in lines[1:]] == [profile + step * n for n in range(1, 21)]
    assert [line["backwards"] for line in lines] == [0, *range(2, 22)]
    losses = [line["losses"][0] for line in lines[1:]]
    assert losses[-1] < 0.7 * losses[0]
    assert len({loss for line in lines for loss in line["losses"]}) == 60


def test_both_parts_move_and_alpha_says_how_far(tune: Tune) -> None:
    moved = {alpha: tune(*LAYERS, "--alpha", alpha)[0] for alpha in (0, 0.01, 0.1)}
    sizes = {alpha: [float(b_side(scores, layer).abs().mean()) for layer in (0, 1)] for alpha, scores in moved.items()}
    assert sizes[0][0] == 0
    assert 0 < 5 * sizes[0.01][0] < sizes[0.1][0]
    assert min(size[1] for size in sizes.values()) > 0.02
    _, lines = tune(*LAYERS, "--alpha", 0)
    assert [len(line["losses"]) for line in lines[1:]] == [1] * 60  # no probes are paid for


def test_estimates_alone_lower_the_loss_too(tune: Tune, monkeypatch: pytest.MonkeyPatch) -> None:
    """The zeroth-order part against itself held still, with a first-order part that hardly moves."""
    monkeypatch.setattr(hybrid, "choose", lambda *_: [1])
    _, lines = tune(*LAYERS, "--budget", 600, "--lr", 1e-9, "--alpha", 1e7)
    losses = [line["losses"][0] for line in lines[1:]]
    assert losses[-1] < 0.8 * losses[0]


def test_all_layers_is_first_order(tune: Tune) -> None:
    scores, lines = tune(*LAYERS, "--rho", 1, "--budget", 10)
    _, plain = tune("--budget", 10)
    assert scores["first_order_layers"] == [0, 1]
    assert [line["losses"] for line in lines] == [line["losses"] for line in plain]


@pytest.mark.parametrize("rule", ["importance", "last", "random"])
def test_rules_choose_within_the_same_cost(tune: Tune, rule: str) -> None:
    scores, _ = tune(*LAYERS, "--first-order-layers", rule, kind="seq2seq")
    # One decoder token attends to itself whatever query and key are: those layers, the last ones, have no gradient.
    assert scores["first_order_layers"] == ([1] if rule == "importance" else [1, 2, 3])


def test_a_resumed_run_keeps_its_layers(tune: Tune, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    call, calls = gradient.Gradient.__call__, iter(range(100))

    def stopped(self: Any, objective: Any) -> torch.Tensor:
        if next(calls) == 9:
            raise KeyboardInterrupt
        return call(self, objective)

    monkeypatch.setattr(gradient.Gradient, "__call__", stopped)
    assert tune.command("tune", *tune.flags(*LAYERS), "--output", tmp_path / "cut") == 130
    monkeypatch.setattr(hybrid, "choose", lambda *_: [0])  # as if rounding had decided otherwise this time
    assert tune.command.json("tune", "--resume", tmp_path / "cut")["first_order_layers"] == [1]


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        (["--optimizer", "cma"], "--optimizer: cma is no zeroth-order estimator"),
        (["--rho", "0"], "--rho: 0.0"),
        (["--rho", "1.5"], "--rho: 1.5"),
        (["--rho", "0.1"], "--rho: 0.1 holds no layer at all"),
        (["--alpha", "-1"], "--alpha: -1"),
        (["--first-order-layers", "first"], "--first-order-layers: unknown 'first'"),
        (["--subspace", "lora"], "--subspace: the method hybrid does not take it; it is for search"),
        (["--weights", "ranks"], "--weights: spsa does not take it; it is for es"),
        (["--budget", "2"], "--budget: 2 is less than one step of 3 evaluations"),
        (["--objective", "metric"], "--objective: metric has no gradient"),
        (["--method", "first-order"], "--rho: the method first-order does not take it; it is for hybrid"),
        (["--method", "search"], "--lr: cma does not take it; it is for"),
    ],
)
def test_what_it_does_not_take(tune: Tune, tmp_path: Path, changes: list[str], said: str) -> None:
    output = tmp_path / "run"
    assert tune.command("tune", *tune.flags(*LAYERS, *changes), "--output", output) == 2
    assert said in tune.command.err
    assert len(tune.command.said) == 1
    assert not output.exists()


def test_its_own_settings_fill_what_was_not_given() -> None:
    settings = tune_settings(method="hybrid", sigma=0.5)
    assert isinstance(settings, HybridSettings)
    assert (settings.optimizer, settings.population, settings.sigma) == ("spsa", 2, 0.5)
    other = tune_settings(method="hybrid", optimizer="fzoo", population=4)
    assert isinstance(other, HybridSettings)
    assert other.population == 4
