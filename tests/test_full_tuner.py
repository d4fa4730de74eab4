"""All weights, through the command: a run's steps are its weights, and around them everything is as elsewhere."""

from __future__ import annotations

import json
import shutil
import weakref
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from tiny_models import Command, Tune, log, model

from dfolora import api as jobs
from dfolora.methods.full_parameter import FullParameter, Log
from dfolora.models import load as models
from dfolora.settings.presets import PRESETS

FULL = ["--method", "full-parameter", "--budget", "24", "--lr", "3e-3", "--sigma", "1e-2", "--dev-every", "6"]
KINDS = ["masked", "causal", "seq2seq", "encoder"]


@pytest.fixture
def tune(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Tune:
    return Tune(Command(capsys), tmp_path, FULL)


def weights(folder: str, kind: str = "masked") -> dict[str, torch.Tensor]:
    return dict(models.load(folder, kind=kind).model.named_parameters())


def same(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor]) -> bool:
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


def dev_loss(tune: Tune, folder: str, kind: str) -> float:
    """What a run that starts from a saved model says of it before its first step."""
    base, tune.base = tune.base, ["--method", "full-parameter", "--budget", "2", "--test-split", "none"]
    _, lines = tune("--model", folder, kind=kind)
    tune.base = base
    found: float = lines[0]["dev"]["loss"]
    return found


@pytest.mark.parametrize("optimizer", ["spsa", "guided", "greedy"])
@pytest.mark.parametrize("kind", KINDS)
def test_a_run_saves_the_model_of_its_best_look(tune: Tune, kind: str, optimizer: str) -> None:
    scores, lines = tune("--optimizer", optimizer, "--population", 4, kind=kind)
    size = 4 if optimizer == "spsa" else 6
    assert [len(line["losses"]) for line in lines[1:]] == [size] * (24 // size)
    assert (scores["evaluations"], scores["method"], scores["optimizer"]) == (24, "full-parameter", f"full-{optimizer}")
    assert len({line["checksum"] for line in lines}) == len(lines)
    assert "adapter" not in scores
    # What was saved is what the dev set chose, to the last digit of its loss, and what the test scores are of.
    looks = [(line["dev"]["main"], -line["dev"]["loss"], -line["evaluations"]) for line in lines if line["dev"]]
    assert len(looks) == 5
    assert scores["selected_at"] == -max(looks)[2]
    assert dev_loss(tune, scores["model_folder"], kind) == pytest.approx(scores["dev_loss"], abs=1e-6)
    for split, name in (("dev", "dev_tuned"), ("test", "tuned")):
        found = tune.command.json("evaluate", *tune.files, "--model", scores["model_folder"], "--split", split)
        assert found["metrics"] == scores[name]
    found = tune.command.json("evaluate", *tune.files, "--model", model(kind), "--split", "test")
    assert found["metrics"] == scores["zero_shot"]


def test_the_steps_of_a_run_give_the_weights_of_any_step(tune: Tune) -> None:
    scores, lines = tune("--population", 20, "--budget", 120, "--dev-every", 20, "--lr", 3e-3)
    assert 0 < scores["selected_at"] < 120
    steps = lines[[line["evaluations"] for line in lines].index(scores["selected_at"])]["generation"]
    history = Log.load(Path(scores["run"]) / "steps.jsonl")
    assert len(history.steps) == 6
    again = models.load(model("masked")).model
    base = {name: tensor.clone() for name, tensor in again.named_parameters()}
    history.steps = history.steps[:steps]
    mover = FullParameter(again, lambda: 0.0, population=20, eps=1e-2, seed=13)
    mover.replay(history)
    saved = weights(scores["model_folder"])
    assert same(saved, dict(again.named_parameters()))
    assert all(not torch.equal(saved[name], base[name]) for name in base)  # every weight matrix is tuned
    assert {step.lr for step in history.steps} == {3e-3}


def test_steps_lower_the_loss(tune: Tune) -> None:
    _, lines = tune("--population", 40, "--budget", 1200, "--lr", 1e-3, "--dev-every", 600)
    first, last = (sum(line["losses"]) / 40 for line in (lines[1], lines[-1]))
    assert last < 0.7 * first


def test_cost_is_counted_as_everywhere(tune: Tune) -> None:
    """As much as a candidate of a search over all layers at once, which is a whole forward, too."""
    scores, lines = tune()
    search = ["--method", "gradient-free", "--mode", "joint", "--population", 4, "--lr", 0, "--sigma", 0.1]
    other, others = tune(*search)
    assert scores["token_layers"] == other["token_layers"]
    assert lines[0]["dev_token_layers"] == others[0]["dev_token_layers"]
    assert scores["forwards"] == 24 * lines[1]["forwards"] / 2
    _, few = tune("--batch", 2)
    assert 0 < few[-1]["token_layers"] < 0.5 * scores["token_layers"]
    assert len({tuple(line["losses"]) for line in few}) == len(few)


@pytest.mark.parametrize("changes", [["--lr", "1e-4"], ["--batch", "3", "--optimizer", "guided", "--population", "4"]])
@pytest.mark.parametrize(("logged", "stepped"), [(0, 0), (3, 3), (3, 4), (4, 3.5), (2.5, 3)])
def test_an_interrupted_run_goes_on(tune: Tune, changes: list[str], logged: float, stepped: float) -> None:
    """Whichever of its two files is ahead, or was being written."""
    scores, _ = tune(*changes)
    assert scores["selected_at"] > 0
    run = unfinished(scores)
    for name, number in (("log.jsonl", logged), ("steps.jsonl", stepped)):
        lines = (run / name).read_bytes().splitlines(keepends=True)
        rest = lines[int(number) + 1] if number % 1 else b""
        (run / name).write_bytes(b"".join(lines[: int(number) + 1]) + rest[: len(rest) // 2])
    again = tune.command.json("tune", "--resume", run)
    paths = ("run", "model_folder", "seconds")
    assert {k: v for k, v in again.items() if k not in paths} == {k: v for k, v in scores.items() if k not in paths}
    assert log(run) == log(scores["run"])
    assert (run / "steps.jsonl").read_bytes() == (Path(scores["run"]) / "steps.jsonl").read_bytes()
    assert same(weights(again["model_folder"]), weights(scores["model_folder"]))


def unfinished(scores: dict[str, Any]) -> Path:
    """A copy of a run as if it had been killed while the model was written."""
    run = Path(scores["run"]).with_name("cut")
    shutil.copytree(scores["run"], run)
    (run / "scores.json").unlink()
    (run / "model").rename(run / "model.partial-1")
    return run


def test_what_a_killed_run_left_half_written_is_cleared_away(tune: Tune) -> None:
    scores, _ = tune()
    run = unfinished(scores)
    tune.command.json("tune", "--resume", run)
    assert sorted(path.name for path in run.iterdir()) == sorted(path.name for path in Path(scores["run"]).iterdir())


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('"lr": 0.003', '"lr": 0.004', "step 4: the weights before it"),
        ('"weights": {"0": ', '"weights": {"0": -', "step 4: the weights before it"),
        ('"losses": [', '"losses": [9, ', "step 3: the weights before it or its losses"),
        ('"lr": 0.003', '"lr": "x"', "is not the log of a full-parameter run"),
        ('"lr": 0.003', '"lr": NaN', "is not the log of a full-parameter run"),
        ('"losses": [', '"losses": null, "more": [', "is not the log of a full-parameter run"),
        ('"weights": {"0"', '"weights": {"99999999999"', "is not the log of a full-parameter run"),
        ('"step": 3', '"step": 4', "step 3 is missing"),
    ],
)
def test_steps_that_have_changed_are_not_gone_on_with(tune: Tune, old: str, new: str, message: str) -> None:
    run = unfinished(tune()[0])
    lines = (run / "steps.jsonl").read_text(encoding="utf-8").splitlines(keepends=True)
    changed = lines[4].replace(old, new).replace("--", "")
    assert changed != lines[4]
    (run / "steps.jsonl").write_text("".join([*lines[:4], changed, *lines[5:]]), encoding="utf-8")
    kept = (run / "log.jsonl").read_bytes()
    assert tune.command("tune", "--resume", run) == 2
    assert message in tune.command.err
    assert "steps.jsonl" in tune.command.err
    assert len([line for line in tune.command.err.splitlines() if line.startswith("dfolora: ")]) == 1
    assert (run / "log.jsonl").read_bytes() == kept


def test_two_models_are_never_held_at_once(tune: Tune, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    loaded: list[weakref.ref[Any]] = []
    load = jobs.models.load

    def watched(*arguments: Any, **settings: Any) -> Any:
        assert not any(model() for model in loaded)
        found = load(*arguments, **settings)
        loaded.append(weakref.ref(found.model))
        return found

    monkeypatch.setattr(jobs.models, "load", watched)
    tune()
    assert len(loaded) == 2


def test_a_run_of_other_weights_does_not_go_on(tune: Tune) -> None:
    run = unfinished(tune()[0])
    config = (run / "config.yaml").read_text(encoding="utf-8")
    (run / "config.yaml").write_text(config.replace(model("masked"), model("masked", 1)), encoding="utf-8")
    assert tune.command("tune", "--resume", run) == 2
    assert "has the model changed? log: its base is" in tune.command.err
    assert tune.command.err.count("\n") == 1


def test_a_model_that_breaks_is_not_chosen(tune: Tune) -> None:
    scores, lines = tune("--lr", 1e30, "--json")
    assert any(line["losses"] == [None, None] for line in lines[1:])
    assert scores["selected_at"] == 0
    assert same(weights(scores["model_folder"]), weights(model("masked")))
    assert "every loss is NaN or infinite; lower --sigma or --lr?" in tune.command.err


def test_a_sentence_encoder_keeps_its_pooling(tune: Tune, tmp_path: Path) -> None:
    folder = tmp_path / "first-token"
    shutil.copytree(model("encoder"), folder)
    (folder / "1_Pooling").mkdir()
    (folder / "1_Pooling" / "config.json").write_text('{"pooling_mode_cls_token": true}', encoding="utf-8")
    scores = tune.command.json("tune", *tune.flags(), "--model", folder, "--output", tmp_path / "run")
    assert models.load(scores["model_folder"]).pooling == "cls"
    found = tune.command.json("evaluate", *tune.files, "--model", scores["model_folder"], "--split", "dev")
    assert found["metrics"] == scores["dev_tuned"]


def test_the_card_says_how_to_load_the_model(tune: Tune) -> None:
    scores, _ = tune()
    card = (Path(scores["model_folder"]) / "README.md").read_text(encoding="utf-8")
    assert "`spsa` on all weights" in card
    assert "rank" not in card
    assert "peft" not in card
    code = card.split("```python\n")[1].split("```")[0]
    names: dict[str, Any] = {}
    exec(code.replace("'this folder'", repr(scores["model_folder"])), names)
    assert same(dict(names["model"].named_parameters()), weights(scores["model_folder"]))
    assert isinstance(names["model"], transformers.RobertaForMaskedLM)


@pytest.mark.parametrize("preset", ["mezo", "mezo-gv", "mezo-greedy"])
def test_the_presets_of_mezo(tune: Tune, preset: str) -> None:
    tune.base = ["--preset", preset, "--budget", 12, "--dev-every", 6, "--batch", 4]
    scores, lines = tune()
    size = PRESETS[preset]["population"] + (0 if preset == "mezo" else 2)
    assert [len(line["losses"]) for line in lines[1:]] == [size] * (12 // size)
    head, first = map(json.loads, (Path(scores["run"]) / "steps.jsonl").read_text(encoding="utf-8").splitlines()[:2])
    assert (head["settings"]["eps"], head["settings"]["paper_scale"], first["lr"]) == (1e-3, True, 1e-7)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (["--optimizer", "cma"], "--optimizer: unknown 'cma'"),
        (["--optimizer", "gredy"], "did you mean 'greedy'"),
        (["--rank", 8], "--rank: --method full-parameter does not take it"),
        (["--subspace", "xs"], "--subspace: --method full-parameter does not take it"),
        (["--quantize", "8bit"], "--quantize: --method full-parameter does not take it"),
        (["--best-share", 0.25], "--best-share: spsa does not take it; it is for guided"),
        (["--preset", "mezo-lora"], "--preset: mezo-lora is for --method gradient-free, not for full-parameter"),
        (["--preset", "mezo", "--method", "gradient-free"], "--preset: mezo is for --method full-parameter"),
        (["--optimizer", "guided", "--best-share", 1.5], "--best-share: 1.5 cannot work"),
        (["--population", 1], "--population: 1 is too few"),
        (["--optimizer", "greedy", "--population", 30], "--budget: 24 is less than one step, 32 evaluations"),
        (["--lr", "inf"], "--lr: inf cannot work"),
    ],
)
def test_what_cannot_work_is_refused(tune: Tune, tmp_path: Path, changes: list[object], message: str) -> None:
    assert tune.command("tune", *tune.flags(*changes), "--output", tmp_path / "never") == 2
    assert message in tune.command.err
    assert tune.command.err.count("\n") == 1
    assert not (tmp_path / "never").exists()
