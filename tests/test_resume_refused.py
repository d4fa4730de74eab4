"""What a resume is refused with: one line, and nothing changes."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml
from safetensors.torch import load_file, save_file
from test_resume import NAMES, cut, finished
from tiny_models import Command, model

from dfolora import log as logs
from dfolora.log import Line
from dfolora.runs import folder as folders
from dfolora.runs.folder import Run
from dfolora.settings.build import tune_settings


def content(run: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in sorted(run.rglob("*")) if path.is_file()}


def refused(command: Command, run: object, *arguments: object) -> str:
    """The one line that a resume is refused with; it changes nothing."""
    before = content(Path(str(run)))
    assert command("tune", "--resume", run, *arguments) == 2, command.err
    (line,) = command.said
    assert line.startswith("dfolora: --")
    after = content(Path(str(run)))
    after.pop(Path(str(run)) / "lock", None)
    before.pop(Path(str(run)) / "lock", None)
    assert after == before
    return line


def chained(run: Path, lines: list[dict[str, Any]]) -> None:
    """Write a log whose hashes are right, as somebody could who means it, or another version of a library."""
    opened = yaml.safe_load((run / "config.yaml").read_text(encoding="utf-8"))
    before = folders._start(run, tune_settings(**opened))
    made = [Line(**line) for line in lines]
    for line in made:
        line.chain = before = logs._chain(line, before)
    (run / "log.jsonl").write_text(logs.text_of(made), encoding="utf-8")


def read(run: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run / "log.jsonl").read_text(encoding="utf-8").splitlines()]


def plain_write(run: Path, lines: list[dict[str, Any]]) -> None:
    (run / "log.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")


def test_changed_data_are_refused(command: Command, tmp_path: Path) -> None:
    """Another word in a text, another label: of the few-shot set and of the dev set."""
    run = cut(finished(command, tmp_path), 4)
    for name in ("dev.csv", "train.csv"):
        file = tmp_path / name
        before = file.read_text(encoding="utf-8")
        for old, new in (("film", "music"), (",1\n", ",0\n")):
            assert old in before
            file.write_text(before.replace(old, new, 1), encoding="utf-8")
            assert "changed" in refused(command, run)
        file.write_text(before, encoding="utf-8")
    assert command("tune", "--resume", run) == 0


def test_other_weights_are_refused(command: Command, tmp_path: Path) -> None:
    """The model at the same place, with one weight moved."""
    shutil.copytree(model("masked"), tmp_path / "model")
    run = cut(finished(command, tmp_path, "--model", tmp_path / "model"), 4)
    file = tmp_path / "model" / "model.safetensors"
    before = file.read_bytes()
    weights = load_file(file)
    name = next(name for name in weights if "intermediate" in name)
    weights[name].view(-1)[0] += 1e-3
    save_file(weights, file, {"format": "pt"})
    assert "changed" in refused(command, run)
    file.write_bytes(before)
    assert command("tune", "--resume", run) == 0


@pytest.mark.parametrize("name", [name for name in NAMES if name != "random"])
def test_tampered_losses_are_refused(command: Command, tmp_path: Path, name: str) -> None:
    """Seen by the hashes of the log and, were these made to fit, by what is asked afterwards.

    Random search asks for the same whatever the losses are.
    """
    # nevergrad's begin with forty or thirty points that do not depend on losses either
    run = cut(finished(command, tmp_path, "--optimizer", name, "--budget", 160), 39)
    lines = read(run)
    for line in lines[1:21]:
        line["losses"].reverse()
    plain_write(run, lines)
    assert "log.jsonl', line 2 is not as it was written" in refused(command, run)
    chained(run, lines)
    assert "not the logged one" in refused(command, run)


def test_one_digit_of_a_loss_is_seen(command: Command, tmp_path: Path) -> None:
    run = cut(finished(command, tmp_path), 6)
    lines = read(run)
    lines[6]["losses"][2] += 1e-7  # of the last line, after which nothing is asked
    plain_write(run, lines)
    assert "line 7 is not as it was written" in refused(command, run)


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("log.jsonl", "{}\n", "line 1"),
        ("log.jsonl", "half a li\n", "line 1"),
        ("log.jsonl", "[1]\n", "line 1"),
        ("environment.json", "{}", "environment.json"),
        ("environment.json", "{", "environment.json"),
        ("config.yaml", "budget: [", "config.yaml"),
        ("config.yaml", "budgt: 8", "'budget'"),
        ("config.yaml", "- 8", "config.yaml"),
        ("measured.safetensors", "nonsense", "line 1"),
    ],
)
def test_damaged_files_are_refused(command: Command, tmp_path: Path, name: str, text: str, said: str) -> None:
    run = cut(finished(command, tmp_path), 4)
    (run / name).write_text(text, encoding="utf-8")
    assert said in refused(command, run)


@pytest.mark.parametrize(
    ("old", "new"), [("sigma: 0.5", "sigma: 0.6"), ("seed: 13", "seed: 14"), ("optimizer: cma", "optimizer: es")]
)
def test_edited_settings_are_refused(command: Command, tmp_path: Path, old: str, new: str) -> None:
    run = cut(finished(command, tmp_path), 4)
    config = run / "config.yaml"
    before = config.read_text(encoding="utf-8")
    assert old in before
    config.write_text(before.replace(old, new), encoding="utf-8")
    assert "line 1 is not as it was written, or " in refused(command, run)


def test_edited_measurements_are_refused(command: Command, tmp_path: Path) -> None:
    run = cut(finished(command, tmp_path), 4)
    file = run / "measured.safetensors"
    tensors = load_file(file)
    next(iter(tensors.values())).mul_(1.001)
    save_file(tensors, file)
    assert "line 1 is not as it was written, or " in refused(command, run)
    file.unlink()
    (run / "log.jsonl").unlink()  # killed before its first line, and then without its measurements
    assert "measured.safetensors' is missing" in refused(command, run)


@pytest.mark.parametrize("losses", [["a"] * 4, [[1.0]] * 4, [0.5] * 3, [0.5] * 5, 7])
@pytest.mark.parametrize("write", [plain_write, chained])
def test_losses_that_are_none_are_refused(command: Command, tmp_path: Path, losses: Any, write: Any) -> None:
    run = cut(finished(command, tmp_path), 4)
    lines = read(run)
    lines[2]["losses"] = losses
    write(run, lines)
    assert "dfolora: --resume: " in refused(command, run)


def test_missing_files_are_refused(command: Command, tmp_path: Path) -> None:
    run = cut(finished(command, tmp_path), 4)
    for name in ("measured.safetensors", "environment.json", "config.yaml"):
        (run / name).rename(tmp_path / "aside")
        assert str(run) in refused(command, run)
        (tmp_path / "aside").rename(run / name)
    assert command("tune", "--resume", run) == 0


def test_what_is_no_interrupted_run(command: Command, tmp_path: Path) -> None:
    scores = finished(command, tmp_path)
    whole = Path(scores["run"])
    for more in ([], ["--budget", "40"]):
        line = refused(command, whole, *more)
        assert "finished" in line
        assert "scores.json" in line
        assert "a budget of more than 40 evaluations" in line
    assert "less than the 40 evaluations" in refused(command, whole, "--budget", "39")
    run = cut(scores, 4)
    for extra in (["--sigma", "0.5"], ["--seed", "13"], ["--optimizer", "cma"]):
        assert f"leave out {extra[0]}" in refused(command, run, *extra)
    assert "leave out" in refused(command, run, "--config", str(run / "config.yaml"))
    assert "'budget'" not in refused(command, run, "--budget", "many")
    refused(command, tmp_path / "nothing")
    refused(command, tmp_path)


def test_two_writers_are_refused(command: Command, tmp_path: Path) -> None:
    run = cut(finished(command, tmp_path), 4)
    writer = Run.open(run)
    assert "another process is writing" in refused(command, run)
    writer.close()
    assert command("tune", "--resume", run) == 0
