"""How a run of the method tangent ends: the mean, or the model as it was where unseen examples lose clearly."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
import torch
from conftest import Runs
from test_tangent_runs import ONE, adapter_of, plain_scores, state_of
from tiny_models import Tune
from torch import Tensor

from dfolora.engine.shifts import Look, ShiftEngine
from dfolora.methods.tangent import tangent
from dfolora.methods.tangent.part import Loss, Part, _even
from dfolora.methods.tangent.tangent import _calibrated
from dfolora.problems.objectives import cross_entropy, hinge, likelihood

# peft 0.21 reads a name that transformers 5 has renamed.
pytestmark = pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing:FutureWarning")

MODULE = "model.layers.1.self_attn.o_proj"
A, B = (f"base_model.model.{MODULE}.lora_{side}.weight" for side in "AB")
TEMPERATURES = [2 ** (half / 2) for half in range(-2, 13)]


def label_as(file: Path, labels: list[int]) -> None:
    head, *rows = file.read_text(encoding="utf-8").splitlines()
    rows = [row[:-1] + str(label) for row, label in zip(rows, labels, strict=True)]
    file.write_text("\n".join([head, *rows]) + "\n", encoding="utf-8")


def against_the_model(tune: Tune, folder: Path) -> None:
    """Label the dev set as the model itself does, and the training set the other way round."""
    for name, flip in (("dev", 0), ("train", 1)):
        scores, _ = plain_scores(None, folder / f"{name}.csv")
        middle = (scores[:, 1] - scores[:, 0]).median()
        label_as(folder / f"{name}.csv", ((scores[:, 1] - scores[:, 0] > middle).long() ^ flip).tolist())


def test_the_mean_of_both_halves_is_the_result(runs: Runs) -> None:
    """Half of each A, side by side; the saved adapter scores as was logged, without a line of this library."""
    scores, lines = runs.whole()
    note = lines[-1]["note"]
    assert note["kept"] is True
    state, adapter = state_of(scores["run"]), adapter_of(scores)
    sides = [state[f"{number}/{MODULE}"] for number in (0, 1)]
    assert torch.equal(adapter[A], torch.cat(sides) / 2)
    b = adapter[B]
    assert b[:, :2].T @ b[:, :2] == pytest.approx(torch.eye(2), abs=1e-5)
    assert not torch.allclose(b[:, :2].abs(), b[:, 2:].abs())
    train, dev = (runs.folder / f"{name}.csv" for name in ("train", "dev"))
    found, labels = plain_scores(adapter, train)
    assert lines[-1]["losses"] == pytest.approx([float(cross_entropy(found[None], labels).mean())], abs=1e-4)

    none = torch.zeros_like(sides[0])
    fitted = [adapter | {A: torch.cat(each)} for each in ((sides[0], none), (none, sides[1]))]
    for name, some in (("unseen", fitted), ("before", (None, None))):
        judged = [plain_scores(*each) for each in zip(some, (dev, train), strict=True)]
        losses = [sum(cross_entropy(s[None] / t, labels).mean() for s, labels in judged) / 2 for t in TEMPERATURES]
        assert note[name] == pytest.approx(float(min(losses)), rel=1e-4)
    assert (scores["dev_tuned"], scores["dev_loss"]) == (lines[2]["dev"]["metrics"], lines[2]["dev"]["loss"])
    assert scores["selected_at"] == scores["evaluations"] == lines[-1]["evaluations"]


def test_the_base_model_stays_where_unseen_examples_lose_clearly(tune: Tune, tmp_path: Path) -> None:
    """Here the model does well on the dev set, and the training set turns it round."""
    against_the_model(tune, tmp_path)
    scores, lines = tune(*ONE, kind="causal")
    note = lines[-1]["note"]
    assert note["kept"] is False
    assert note["unseen"] > 1.1 * note["before"]
    assert lines[1]["note"]["reached"] < lines[1]["note"]["from"]
    assert scores["selected_at"] == 0
    assert (scores["dev_tuned"], scores["tuned"]) == (scores["dev_zero_shot"], scores["zero_shot"])
    assert lines[-1]["dev"] == lines[0]["dev"] != lines[-2]["dev"]
    assert not adapter_of(scores)[A].any()
    assert lines[-1]["losses"] == pytest.approx([lines[1]["note"]["from"]], abs=1e-5)


@pytest.mark.parametrize(("unseen", "kept"), [(0.55, True), (0.5501, False), (float("inf"), False)])
def test_a_tenth_more_may_be_lost(tune: Tune, monkeypatch: pytest.MonkeyPatch, unseen: float, kept: bool) -> None:
    losses = [unseen, 0.5000001]
    monkeypatch.setattr(tangent, "_calibrated", lambda _: losses.pop(0))
    scores, lines = tune(*ONE, "--rounds", 1, kind="causal")
    assert lines[-1]["note"]["kept"] is kept
    assert lines[-1]["note"]["before"] == 0.5000001
    assert lines[-1]["note"]["unseen"] == (unseen if unseen < 1 else None)
    assert (scores["selected_at"] > 0) is kept
    assert adapter_of(scores)[A].any() == kept


# -- the loss of unseen examples -------------------------------------------------------------------------------------

SCORES = torch.tensor([[9.0, -8.0, 2.0], [-7.0, 8.0, 1.0], [3.0, 1.0, 4.0], [6.0, 2.0, -torch.inf], [1.0, 5.0, 2.0]])
LABELS = torch.tensor([0, 1, 0, 0, 1])


def loss_of(objective: object, labels: Tensor = LABELS) -> Loss:
    return lambda scores: objective(scores, labels).mean(-1)  # type: ignore[operator]


@pytest.mark.parametrize("objective", [cross_entropy, hinge])
@pytest.mark.parametrize("scale", [0.1, 1.0, 30.0])
def test_scores_count_at_the_temperature_that_suits_them(objective: object, scale: float) -> None:
    loss, scores = loss_of(objective), scale * SCORES
    expected = [float(loss(scores[None] / t)) for t in TEMPERATURES]
    assert _calibrated([(loss, scores)]) == pytest.approx(min(expected))
    if scale > 1:  # much too sure of the third example
        assert min(expected) < 0.2 * float(loss(scores[None]))


def test_both_halves_count_at_one_temperature() -> None:
    first, second = loss_of(cross_entropy), loss_of(cross_entropy, (LABELS + 1) % 2)
    together = [float(first(SCORES[None] / t) + second(SCORES[None] / t)) / 2 for t in TEMPERATURES]
    found = _calibrated([(first, SCORES), (second, SCORES)])
    assert found == pytest.approx(min(together))
    assert found > (_calibrated([(first, SCORES)]) + _calibrated([(second, SCORES)])) / 2 + 0.05


def test_a_loss_of_the_scores_themselves_has_no_temperature() -> None:
    """A likelihood would be better or worse by any factor."""
    scores = SCORES.nan_to_num(neginf=-9.0)
    loss = loss_of(likelihood)
    for some in (scores, -scores):
        assert _calibrated([(loss, some)]) == pytest.approx(float(loss(some[None])))


def test_scores_that_are_no_numbers_lose() -> None:
    scores = SCORES.clone()
    scores[1, 1] = torch.nan
    assert _calibrated([(loss_of(cross_entropy), scores)]) == float("inf")


# -- inputs that vary within a row -----------------------------------------------------------------------------------


def test_a_promise_is_that_of_the_updates_with_the_inputs_as_they_are(
    tune: Tune, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Inputs are changed for the fit, and the updates back: scores S + sum slopes (A . x) have the promised loss."""
    slopes_of, move_by, probed, promises = Part._slopes, Part._move, {}, []

    def noted(self: Part, name: str, look: object, even: Tensor | None, *rest: object) -> object:
        assert even is not None
        sets = slopes_of(self, name, look, even, *rest)  # type: ignore[arg-type]
        probed[name] = [(each.rows, each.slopes) for each in sets]
        return sets

    def compared(self: Part, move: object, before: float, losses: list[Tensor]) -> object:
        look = self.now
        scores = look.scores.double()  # type: ignore[union-attr]
        for (name, sets), update in zip(probed.items(), move.updates, strict=True):  # type: ignore[attr-defined]
            steps = look.inputs[name].double() @ update.double().T  # type: ignore[union-attr]
            for rows, slopes in sets:
                change = torch.einsum("knc,nck->nc", slopes, steps[rows.clamp(min=0)])
                scores = scores + change.masked_fill(rows < 0, 0.0)
        promises.append((move.promised, float(self.loss(scores[None])), before))  # type: ignore[attr-defined]
        return move_by(self, move, before, losses)  # type: ignore[arg-type]

    monkeypatch.setattr(Part, "_slopes", noted)
    monkeypatch.setattr(Part, "_move", compared)
    tune(*ONE, "--rounds", 1, kind="encoder")
    ((promised, found, before),) = promises
    assert promised == pytest.approx(found, abs=1e-4)
    assert promised < 0.95 * before


def test_inputs_that_vary_within_a_row_count_for_little() -> None:
    """Those along a direction with much of the spread become shorter than any other, and none longer than a ridge."""
    spread = torch.diag(torch.tensor([9.0, 1.0, 0.0, 0.0]))
    turn = torch.linalg.qr(torch.randn(4, 4, generator=torch.Generator().manual_seed(0)))[0]
    even = _even(turn @ spread @ turn.T)
    lengths = (even @ turn).norm(dim=0)
    ridge = 10 / 4
    assert lengths.square() == pytest.approx(1 / (torch.tensor([9.0, 1.0, 0.0, 0.0]) + ridge), rel=1e-4)


@pytest.mark.parametrize("value", [0.0, torch.nan])
def test_inputs_without_a_spread_are_taken_as_they_are(
    tune: Tune, monkeypatch: pytest.MonkeyPatch, value: float
) -> None:
    """All alike within a row, or no numbers: neither ends a run."""
    look = ShiftEngine.look

    def spoilt(self: ShiftEngine, names: list[str]) -> Look:
        found = look(self, names)
        return dataclasses.replace(found, spreads={k: torch.full_like(v, value) for k, v in found.spreads.items()})

    monkeypatch.setattr(ShiftEngine, "look", spoilt)
    _, lines = tune(*ONE, "--rounds", 1, kind="encoder")
    assert lines[1]["note"]["promised"] < lines[1]["note"]["from"]
