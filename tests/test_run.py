"""The run folder by itself: what is written can be read again, to the last bit."""

from __future__ import annotations

import json
import math
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml

from dfolora.errors import UserError
from dfolora.runs.card import model_card
from dfolora.runs.folder import Generation, Run, checksum, finite, read_log, write_text
from dfolora.runs.progress import Display
from dfolora.settings.config import TuneConfig
from dfolora.task import Prompt

CPU = torch.device("cpu")


@pytest.fixture
def run(tmp_path: Path) -> Run:
    return Run.create(TuneConfig(model="m", task="t", output=str(tmp_path / "run")), CPU, "abc")


def generation(number: int, losses: list[float | None]) -> Generation:
    return Generation(number, 1, 0, "c0ffee", losses, 4 * number, 10 * number, number, 0.5 * number)


def test_losses_survive_to_the_last_bit() -> None:
    bits = np.random.default_rng(0).integers(0, 2**32, 20_000, dtype=np.uint32)
    losses = torch.from_numpy(bits.view(np.float32).copy())
    line = json.loads(json.dumps(asdict(generation(1, finite(losses))), allow_nan=False))
    back = Generation(**line).loss_tensor()
    assert back.dtype == torch.float32
    same = losses.isfinite()
    assert torch.equal(back[same].view(torch.int32), losses[same].view(torch.int32))
    assert bool(back[~same].isnan().all())
    assert not bool(same.all())
    assert finite(torch.tensor([math.nan, math.inf, -math.inf, -0.1])) == [None, None, None, -0.1]


def test_a_checksum_sees_one_bit() -> None:
    z = torch.randn(4, 7, generator=torch.Generator().manual_seed(0))
    other = z.clone()
    other.view(torch.int32)[3, 6] ^= 1
    assert checksum(z) == checksum(z.clone()) != checksum(other)
    assert checksum(z.T.contiguous().T) == checksum(z)  # whatever its strides are
    assert checksum(z.flip(0)) != checksum(z)


def test_what_a_new_run_holds(run: Run) -> None:
    assert {path.name for path in run.folder.iterdir()} == {"config.yaml", "environment.json"}
    assert yaml.safe_load((run.folder / "config.yaml").read_text(encoding="utf-8")) == asdict(run.config)
    environment = json.loads((run.folder / "environment.json").read_text(encoding="utf-8"))
    assert environment["data_checksum"] == "abc"
    assert environment["device"] == "cpu"
    assert (
        environment["versions"]["torch"].split("+")[0] == torch.__version__.split("+")[0]
    )  # the build may be left out
    assert set(environment["versions"]) >= {"dfolora", "torch", "transformers", "peft", "cma", "nevergrad", "numpy"}
    run.check_data("abc")
    with pytest.raises(UserError, match="changed"):
        run.check_data("abd")


def test_the_log_is_read_as_written(run: Run) -> None:
    assert Run.open(str(run.folder)).replay == []
    written = [generation(0, []), generation(1, [0.1, None]), generation(2, [1e-30, 3.0])]
    for line in written:
        run.log(line)
        assert read_log(run.folder / "log.jsonl")[-1] == line  # it is there at once
    opened = Run.open(str(run.folder))
    assert opened.replay == written
    assert opened.config == run.config


def test_a_line_that_was_cut_off_is_dropped(run: Run) -> None:
    file = run.folder / "log.jsonl"
    run.log(generation(0, [0.5]))
    whole = file.read_bytes()
    run.log(generation(1, [0.25]))
    both = file.read_bytes()
    for size in range(len(whole), len(both)):
        file.write_bytes(both[:size])
        assert read_log(file) == [generation(0, [0.5])]
        assert file.read_bytes() == whole  # so that the next line begins a line
    file.write_bytes(both)
    assert len(read_log(file)) == 2
    assert file.read_bytes() == both


def test_a_log_that_lacks_a_line_is_refused(run: Run) -> None:
    for number in (0, 2):
        run.log(generation(number, [0.5]))
    with pytest.raises(UserError, match=r"log\.jsonl', line 2 is not a generation \(it says 2\)"):
        read_log(run.folder / "log.jsonl")


def test_a_folder_that_holds_something_is_left_alone(tmp_path: Path, run: Run) -> None:
    run.log(generation(0, []))
    before = {path: path.read_bytes() for path in run.folder.iterdir()}
    with pytest.raises(UserError, match="already holds a run"):
        Run.create(run.config, CPU, "abc")
    assert {path: path.read_bytes() for path in run.folder.iterdir()} == before
    (tmp_path / "file").write_text("mine", encoding="utf-8")
    for output in (tmp_path, tmp_path / "file"):
        with pytest.raises(UserError, match="is not empty"):
            Run.create(TuneConfig(output=str(output)), CPU, "abc")
    (tmp_path / "empty").mkdir()
    assert Run.create(TuneConfig(output=str(tmp_path / "empty" / "a" / "b")), CPU, "abc").folder.is_dir()


def test_names_of_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    config = TuneConfig(task="superglue/cb", optimizer="nevergrad:PSO", seed=7)
    names = [Run.create(config, CPU, "").folder for _ in range(3)]
    assert names[0] == Path("runs") / "superglue-cb-nevergrad-PSO-seed7"
    assert [name.name[len(names[0].name) :] for name in names] == ["", "-2", "-3"]
    own = Run.create(TuneConfig(train_file="some/where/mine.csv"), CPU, "").folder
    assert own.name == "mine-cma-seed13"


def test_subspace_tensors(run: Run) -> None:
    measured = [{"h.0.q/a": torch.randn(2, 3), "hidden_std": torch.tensor(0.5)}, {"h.1.q/a": torch.randn(3, 2).T}]
    run.save_subspace(measured)
    read = run.load_subspace(2)
    assert [sorted(part) for part in read] == [sorted(part) for part in measured]
    assert all(torch.equal(read[i][name], tensor) for i, part in enumerate(measured) for name, tensor in part.items())
    with pytest.raises(UserError, match=r"subspace\.safetensors"):
        run.load_subspace(1)
    file = run.folder / "subspace.safetensors"
    file.write_bytes(file.read_bytes()[:-4])
    with pytest.raises(UserError, match="damaged"):
        run.load_subspace(2)
    file.unlink()
    with pytest.raises(UserError, match="missing"):
        run.load_subspace(2)


def test_files_are_written_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "scores.json"
    write_text(file, "old")

    def full(self: Path, other: Path) -> None:
        raise OSError("no more room")

    monkeypatch.setattr(Path, "rename", full)
    with pytest.raises(OSError, match="no more room"):
        write_text(file, "new")
    assert file.read_text(encoding="utf-8") == "old"


def test_the_card_says_what_was_measured() -> None:
    config = TuneConfig(model="org/model", optimizer="cma", subspace="xs", rank=2, seed=3)
    scores = {
        "task": "superglue/cb", "evaluations": 40, "token_layers": 1234, "selected_at": 20,
        "examples": {"train": 32, "dev": 31, "test": 56},
        "dev_zero_shot": {"accuracy": 50.0, "f1": 40.0}, "dev_tuned": {"accuracy": 75.0, "f1": 70.5},
        "zero_shot": {"accuracy": 48.21, "f1": 33.333}, "tuned": {"accuracy": 71.43, "f1": 50.0},
    }  # fmt: skip
    card = model_card(config, scores, "causal", Prompt("{premise} {mask}", ("Yes", "No")))
    head = yaml.safe_load(card.split("---\n")[1])
    assert head == {"base_model": "org/model", "library_name": "peft", "tags": ["dfolora", "lora"]}
    for row in (
        "| dev | 31 | accuracy | 50.00 | 75.00 |",
        "| dev | 31 | f1 | 40.00 | 70.50 |",
        "| test | 56 | accuracy | 48.21 | 71.43 |",
        "| test | 56 | f1 | 33.33 | 50.00 |",
    ):
        assert row in card.splitlines()
    untested = replace(config, test_split="none")
    scores |= {"examples": {"train": 32, "dev": 31, "none": 0}, "zero_shot": {}, "tuned": {}}
    assert "none" not in model_card(untested, scores, "causal", Prompt("{premise} {mask}", ("Yes", "No")))
    assert "`superglue/cb`, prompt `{premise} {mask}`, answers: Yes, No." in card
    assert "32 examples (1234 token-layers)" in card
    assert "AutoModelForCausalLM" in card


def test_progress_in_a_file(capsys: pytest.CaptureFixture[str]) -> None:
    """One line at the start, one at the end, warnings at 1, 10, 100 ... whole generations without a loss."""
    config = TuneConfig(model="m", budget=120, population=4)
    best = generation(0, [])
    best.dev = {"metrics": {}, "main": 62.5, "loss": 0.1}
    with Display(config, "file:train") as display:
        display.started(Run(Path("a [bold] run :smile:"), config, [best]))
        display.progress(best, best)
        for number in range(1, 31):
            display.progress(generation(number, [None] * 4 if number > 10 else [0.5, None, 0.25, 1.0]), best)
    out, err = capsys.readouterr()
    assert out == ""
    lines = err.splitlines()
    assert lines[0].startswith("resuming a [bold] run :smile: after 0 evaluations")
    assert lines[1].startswith("tuning m for file:train: cma in pca, seed 13, budget 120 evaluations")
    assert lines[2].startswith("sweep 1 layer 0 loss - dev best 62.5 | 0/120 evaluations")
    assert [line.split(":")[1] for line in lines if "warning" in line] == [" generation 11", " generation 20"]
    assert lines[-1].startswith("sweep 1 layer 0 loss nan dev best 62.5 | 120/120 evaluations")
    assert len(lines) == 6
