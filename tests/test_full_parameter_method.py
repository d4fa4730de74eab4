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
import yaml
from test_resume_refused import chained, read
from tiny_models import SMALL, Command, Tune, log, model

from dfolora.log import Line
from dfolora.methods.full_parameter import FullParameter
from dfolora.methods.full_parameter.method import move_to
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


def test_the_log_of_a_run_gives_the_weights_of_any_step(tune: Tune) -> None:
    scores, lines = tune("--population", 20, "--budget", 120, "--dev-every", 20, "--lr", 3e-3)
    assert 0 < scores["selected_at"] < 120
    steps = lines[[line["evaluations"] for line in lines].index(scores["selected_at"])]["generation"]
    assert len(lines) == 7
    again = models.load(model("masked")).model
    base = {name: tensor.clone() for name, tensor in again.named_parameters()}
    mover = FullParameter(again, lambda: 0.0, population=20, eps=1e-2, seed=13)
    written = [Line(**line) for line in lines]
    # the checksum of a line is that of the weights before it
    move_to(written, steps, lines[steps + 1]["checksum"], mover)
    saved = weights(scores["model_folder"])
    assert same(saved, dict(again.named_parameters()))
    assert all(not torch.equal(saved[name], base[name]) for name in base)  # every weight matrix is tuned
    assert {line["note"]["lr"] for line in lines[1:]} == {3e-3}


def test_steps_lower_the_loss(tune: Tune) -> None:
    _, lines = tune("--population", 40, "--budget", 800, "--lr", 1e-3, "--dev-every", 400)
    first, last = (sum(line["losses"]) / 40 for line in (lines[1], lines[-1]))
    assert last < 0.7 * first


def test_cost_is_counted_as_everywhere(tune: Tune) -> None:
    """As much as a candidate of a search over all layers at once, which is a whole forward, too."""
    scores, lines = tune()
    tune.base = [*SMALL, "--mode", "joint", "--dev-every", 6]
    other, others = tune()
    tune.base = FULL
    assert scores["token_layers"] == other["token_layers"]
    assert lines[0]["dev_token_layers"] == others[0]["dev_token_layers"]
    assert scores["forwards"] == 24 * lines[1]["forwards"] / 2
    _, few = tune("--batch", 2)
    assert 0 < few[-1]["token_layers"] < 0.5 * scores["token_layers"]
    assert len({tuple(line["losses"]) for line in few}) == len(few)


@pytest.mark.parametrize("changes", [["--lr", "1e-4"], ["--batch", "3", "--optimizer", "guided", "--population", "4"]])
@pytest.mark.parametrize("logged", [0, 3, 3.5, 4])
def test_an_interrupted_run_goes_on(tune: Tune, changes: list[str], logged: float) -> None:
    """Wherever its log ends, or while a line was being written."""
    scores, _ = tune(*changes)
    assert scores["selected_at"] > 0
    run = unfinished(scores)
    lines = (run / "log.jsonl").read_bytes().splitlines(keepends=True)
    rest = lines[int(logged) + 1] if logged % 1 else b""
    (run / "log.jsonl").write_bytes(b"".join(lines[: int(logged) + 1]) + rest[: len(rest) // 2])
    again = tune.command.json("tune", "--resume", run)
    paths = ("run", "model_folder", "seconds")
    assert {k: v for k, v in again.items() if k not in paths} == {k: v for k, v in scores.items() if k not in paths}
    assert log(run) == log(scores["run"])
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
    ("change", "message"),
    [
        ({"lr": 0.004}, "the weights before generation 5 are not those of the log"),
        ({"weights": {"0": 9.0}}, "the weights before generation 5 are not those of the log"),
        ({"lr": "x"}, "the note of generation 4 is not that of a step"),
        ({"lr": 1e999}, "line 5 is not a generation"),
        ({"weights": {"99999999999": 1.0}}, "the note of generation 4 is not that of a step"),
        ({"slopes": None}, "the note of generation 4 is not that of a step"),
        (None, "the note of generation 4 is not that of a step"),
    ],
)
@pytest.mark.parametrize("fits", [False, True], ids=["", "hashes made to fit"])
def test_steps_that_have_changed_are_not_gone_on_with(
    tune: Tune, change: dict[str, Any] | None, message: str, fits: bool
) -> None:
    run = unfinished(tune()[0])
    lines = read(run)
    lines[4]["note"] = change if change is None else lines[4]["note"] | change
    if fits and change != {"lr": 1e999}:
        chained(run, lines)
    else:
        (run / "log.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
        message = "line 5 is not a"
    logged = (run / "log.jsonl").read_bytes()
    assert tune.command("tune", "--resume", run) == 2
    assert "dfolora: --resume: " in tune.command.err
    assert message in tune.command.err
    assert len(tune.command.said) == 1
    assert (run / "log.jsonl").read_bytes() == logged


def test_two_models_are_never_held_at_once(tune: Tune, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    loaded: list[weakref.ref[Any]] = []
    read_weights = models.LanguageModel.read_weights

    def watched(self: models.LanguageModel) -> models.LanguageModel:
        if self.reader is not None:
            assert not any(model() for model in loaded)
            read_weights(self)
            loaded.append(weakref.ref(self.model))
        return self

    monkeypatch.setattr(models.LanguageModel, "read_weights", watched)
    tune()
    assert len(loaded) == 3  # for the search, for the weights that it chose, for the scores of those as they were


def test_a_run_of_other_weights_does_not_go_on(tune: Tune, tmp_path: Path) -> None:
    shutil.copytree(model("masked"), tmp_path / "model")
    run = unfinished(tune("--model", tmp_path / "model")[0])
    shutil.rmtree(tmp_path / "model")
    shutil.copytree(model("masked", 1), tmp_path / "model")
    assert tune.command("tune", "--resume", run) == 2
    assert "--resume: the data, the model or the tokenizer" in tune.command.err
    assert "changed since it began" in tune.command.err
    assert len(tune.command.said) == 1


def test_a_model_that_breaks_is_not_chosen(tune: Tune) -> None:
    scores, lines = tune("--lr", 1e30, "--json")
    assert any(line["losses"] == [None, None] for line in lines[1:])
    assert scores["selected_at"] == 0
    assert same(weights(scores["model_folder"]), weights(model("masked")))
    assert "every loss is NaN or infinite; lower sigma or lr?" in tune.command.err


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
    assert "spsa on all weights" in card
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
    config = yaml.safe_load((Path(scores["run"]) / "config.yaml").read_text(encoding="utf-8"))
    assert (config["sigma"], config["paper_scale"], lines[1]["note"]["lr"]) == (1e-3, True, 1e-7)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (["--optimizer", "cma"], "--optimizer: unknown 'cma'"),
        (["--optimizer", "gredy"], "did you mean 'greedy'"),
        (["--rank", 8], "--rank: the method full-parameter does not take it; it is for search, first-order, hybrid"),
        (["--subspace", "xs"], "--subspace: the method full-parameter does not take it; it is for search"),
        (["--quantize", "8bit"], "--quantize: weights that are quantised cannot be moved"),
        (["--best-share", 0.25], "--best-share: spsa does not take it; it is for guided"),
        (["--preset", "mezo-lora"], "--preset: mezo-lora is for the method search, not for full-parameter"),
        (["--preset", "mezo", "--method", "search"], "--preset: mezo is for the method full-parameter, not for search"),
        (["--optimizer", "guided", "--best-share", 1.5], "--best-share: 1.5 cannot work"),
        (["--population", 1], "--population: 1 cannot work; the least is 2"),
        (["--optimizer", "greedy", "--population", 30], "--budget: 24 is less than one step of 32 evaluations"),
        (["--lr", "inf"], "--lr: inf cannot work"),
    ],
)
def test_what_cannot_work_is_refused(tune: Tune, tmp_path: Path, changes: list[object], message: str) -> None:
    assert tune.command("tune", *tune.flags(*changes), "--output", tmp_path / "never") == 2
    assert message in tune.command.err
    assert len(tune.command.said) == 1
    assert not (tmp_path / "never").exists()
