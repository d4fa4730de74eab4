"""The run folder by itself: what is written can be read again, to the last bit, and appears whole."""

from __future__ import annotations

import json
import math
import os
from dataclasses import asdict, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
import yaml

from dfolora.errors import UserError
from dfolora.log import Line, checksum, finite
from dfolora.runs.card import model_card
from dfolora.runs.folder import Run
from dfolora.runs.progress import Display, progress_line
from dfolora.settings.build import saved, tune_settings
from dfolora.settings.search import SearchSettings
from dfolora.task import Prompt

CPU = torch.device("cpu")


def settings(**values: Any) -> SearchSettings:
    made = tune_settings(**{"method": "search", "model": "m", "task": "t", **values})
    assert isinstance(made, SearchSettings)
    return made


def create(output: Path, tensors: dict[str, torch.Tensor] | None = None, **values: Any) -> Run:
    tensors = {"0/hidden_std": torch.tensor(0.5)} if tensors is None else tensors
    return Run.create(settings(output=str(output), **values), CPU, "abc", tensors)


@pytest.fixture
def run(tmp_path: Path) -> Run:
    made = create(tmp_path / "run")
    made.close()
    return made


def line(number: int, losses: list[float | None], **values: Any) -> Line:
    dev = {"metrics": {"accuracy": 50.0}, "main": 50.0, "loss": 0.5} if number == 0 else None
    return Line(number, 1, 0, "c0ffee", losses, 4 * number, 10 * number, number, 0.5 * number, dev, **values)


def test_losses_survive_to_the_last_bit() -> None:
    bits = np.random.default_rng(0).integers(0, 2**32, 20_000, dtype=np.uint32)
    losses = torch.from_numpy(bits.view(np.float32).copy())
    text = json.loads(json.dumps(asdict(line(1, finite(losses))), allow_nan=False))
    back = Line(**text).loss_tensor()
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
    names = {"config.yaml", "environment.json", "measured.safetensors", "lock"}
    assert {path.name for path in run.folder.iterdir()} == names
    config = yaml.safe_load((run.folder / "config.yaml").read_text(encoding="utf-8"))
    assert config == saved(run.settings)
    assert config["method"] == "search"
    assert tune_settings(**config) == run.settings
    environment = json.loads((run.folder / "environment.json").read_text(encoding="utf-8"))
    assert environment["data_checksum"] == "abc"
    assert environment["device"] == "cpu"
    assert (
        environment["versions"]["torch"].split("+")[0] == torch.__version__.split("+")[0]
    )  # the build may be left out
    assert set(environment["versions"]) >= {"dfolora", "torch", "transformers", "peft", "cma", "nevergrad", "numpy"}
    run.begin("abc")
    with pytest.raises(UserError, match="changed"):
        run.begin("abd")


def opened(run: Run, **values: Any) -> Run:
    again = Run.open(run.folder, **values)
    again.close()
    return again


def test_the_log_is_read_as_written(run: Run) -> None:
    assert opened(run).lines == []
    written = [line(0, []), line(1, [0.1, None]), line(2, [1e-30, 3.0], note={"weights": [0.5, -1.0]})]
    for each in written:
        run.log(each)
        assert run.logged()[-1] == each  # it is there at once
    assert opened(run).lines == written
    assert opened(run).settings == run.settings
    assert len({each.chain for each in written}) == 3


def test_a_line_that_was_cut_off_is_dropped(run: Run) -> None:
    file = run.folder / "log.jsonl"
    run.log(line(0, []))
    whole = file.read_bytes()
    run.log(line(1, [0.25]))
    both = file.read_bytes()
    for size in range(len(whole), len(both), 7):
        file.write_bytes(both[:size])
        again = opened(run)
        assert [each.generation for each in again.lines] == [0]
        assert file.read_bytes() == both[:size]  # nothing is rewritten by reading
        again.rewrite(0)
        assert file.read_bytes() == whole  # so that the next line begins a line
        again.log(line(1, [0.25]))
        assert file.read_bytes() == both
    assert len(opened(run).lines) == 2


def test_a_log_that_lacks_a_line_is_refused(run: Run) -> None:
    for number in (0, 2):
        run.log(line(number, [0.5] if number else []))
    with pytest.raises(UserError, match=r"log\.jsonl', line 2 is not a generation \(it says 2\)"):
        Run.open(run.folder)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("0.25", "0.26"),
        ('"layer": 0', '"layer": 1'),
        ("c0ffee", "c0ffef"),
        ('"note": null', '"note": {}'),
        ('"seconds": 0.5', '"seconds": 0.6'),
        ('"token_layers": 10', '"token_layers": 11'),
    ],
)
def test_a_line_that_was_edited_is_refused(run: Run, old: str, new: str) -> None:
    for number in range(3):
        run.log(line(number, [0.25] * (number > 0)))
    file = run.folder / "log.jsonl"
    lines = file.read_text(encoding="utf-8").splitlines(keepends=True)
    assert old in lines[1]
    edited = "".join([lines[0], lines[1].replace(old, new, 1), lines[2]])
    file.write_text(edited, encoding="utf-8")
    with pytest.raises(UserError, match=r"^resume: .*log\.jsonl', line 2 is not as it was written"):
        Run.open(run.folder)
    assert file.read_text(encoding="utf-8") == edited
    file.write_text("".join(lines), encoding="utf-8")
    assert len(opened(run).lines) == 3  # and the refusal holds no lock


def test_an_edited_start_is_refused(run: Run) -> None:
    run.log(line(0, []))
    measured, config = run.folder / "measured.safetensors", run.folder / "config.yaml"
    for file, old, new in ((measured, b"0/hidden_std", b"0/hidden_stt"), (config, b"sigma: 0.1", b"sigma: 0.2")):
        before = file.read_bytes()
        assert old in before
        file.write_bytes(before.replace(old, new))
        with pytest.raises(UserError, match="line 1 is not as it was written, or "):
            Run.open(run.folder)
        file.write_bytes(before)
    free = config.read_text(encoding="utf-8").replace("test_split: test", "test_split: none")
    config.write_text(free, encoding="utf-8")  # no logged number depends on it
    assert opened(run).settings.test_split == "none"


def encoder(kind: str, prompt: Prompt, new_tokens: int = 0) -> Any:
    return SimpleNamespace(kind=kind, prompt=prompt, task=SimpleNamespace(new_tokens=new_tokens))


def test_the_card_says_what_was_measured() -> None:
    config = settings(model="org/model", optimizer="cma", subspace="xs", rank=2, seed=3)
    scores: dict[str, Any] = {
        "model": "org/model", "task": "superglue/cb", "evaluations": 40, "token_layers": 1234, "selected_at": 20,
        "examples": {"train": 32, "dev": 31, "test": 56},
        "dev_zero_shot": {"accuracy": 50.0, "f1": 40.0}, "dev_tuned": {"accuracy": 75.0, "f1": 70.5},
        "zero_shot": {"accuracy": 48.21, "f1": 33.333}, "tuned": {"accuracy": 71.43, "f1": 50.0},
    }  # fmt: skip
    asked = encoder("causal", Prompt("{premise} {mask}", ("Yes", "No")))
    card = model_card(config, scores, asked)
    head = yaml.safe_load(card.split("---\n")[1])
    assert head == {"base_model": "org/model", "library_name": "peft", "tags": ["dfolora", "lora"]}
    for row in (
        "| dev | 31 | accuracy | 50.00 | 75.00 |",
        "| dev | 31 | f1 | 40.00 | 70.50 |",
        "| test | 56 | accuracy | 48.21 | 71.43 |",
        "| test | 56 | f1 | 33.33 | 50.00 |",
    ):
        assert row in card.splitlines()
    for text in (
        "`superglue/cb`",
        "    {premise} {mask}\n",
        "    answers: Yes, No.\n",
        "32 examples (1234 token-layers)",
    ):
        assert text in card
    assert "AutoModelForCausalLM" in card
    untested = replace(config, test_split="none")
    scores |= {"examples": {"train": 32, "dev": 31, "none": 0}, "zero_shot": {}, "tuned": {}}
    assert "none" not in model_card(untested, scores, asked)


def test_progress_in_a_file(capsys: pytest.CaptureFixture[str]) -> None:
    """Two lines at the start, one at the end, warnings at 1, 10, 100 ... whole generations without a loss."""
    config = settings(task="", train_file="train.csv", budget=120, population=4)
    best = line(0, [])
    best.dev = {"metrics": {}, "main": 62.5, "loss": 0.1}
    with Display() as display:
        display.started(Run(Path("a [bold] run :smile:"), config, [best]))
        display.progress(best, best)
        for number in range(1, 31):
            display.progress(line(number, [None] * 4 if number > 10 else [0.5, None, 0.25, 1.0]), best)
    out, err = capsys.readouterr()
    assert out == ""
    lines = err.splitlines()
    assert lines[0].startswith("resuming a [bold] run :smile: after 0 evaluations")
    assert lines[1].startswith("tuning m for file:train: cma in pca, seed 13, budget 120 evaluations")
    assert lines[2].startswith("sweep 1 layer 0 loss - dev 62.5 0/120 ")
    assert [each.split(":")[1] for each in lines if "warning" in each] == [" generation 11", " generation 20"]
    assert lines[-1].startswith("sweep 1 layer 0 loss nan dev 62.5 120/120 ")
    assert len(lines) == 6


def test_the_line_fits_a_terminal() -> None:
    """Beside a bar of ten columns, on 80."""
    best = replace(line(0, []), dev={"metrics": {}, "main": 100.0, "loss": 0.1})
    busy = replace(line(9999, [12.3456]), sweep=999, layer=31, evaluations=20_000)
    text = progress_line(busy, best, 40_000, 1234.5)
    assert text == "sweep 999 layer 31 loss 12.346 dev 100.0 20000/40000 1234.5/s 0:16 left"
    assert len(text) <= 80 - 1 - 10 + 2
    assert progress_line(line(1, [0.5]), best, 8, 0.0).endswith(" 4/8 0.0/s ? left")
    assert progress_line(line(1, [0.5]), best, 40_004, 1.0).endswith(" 11:06:40 left")


def test_nothing_is_written_where_nothing_is_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match="is not a run folder"):
        Run.open("nothing")
    (tmp_path / "some").mkdir()
    with pytest.raises(UserError, match=r"has no config\.yaml"):
        Run.open("some")
    assert sorted(os.listdir(tmp_path)) == ["some"]
    assert os.listdir(tmp_path / "some") == []
