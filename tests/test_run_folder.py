"""The run folder: whole or not at all, one writer, one line for what cannot be written."""

from __future__ import annotations

import errno
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from test_run import create, line, opened, settings

from dfolora import log as logs
from dfolora.errors import UserError
from dfolora.runs import files, folder
from dfolora.runs.files import file_hash, read_tensors, write_tensors, write_text
from dfolora.runs.folder import Run

CPU = torch.device("cpu")


@pytest.fixture
def run(tmp_path: Path) -> Run:
    made = create(tmp_path / "run")
    made.close()
    return made


def test_a_folder_that_holds_something_is_left_alone(tmp_path: Path, run: Run) -> None:
    run.log(line(0, []))
    before = {path: path.read_bytes() for path in run.folder.iterdir()}
    with pytest.raises(UserError, match="^output: .* already holds a run"):
        Run.create(run.settings, CPU, "abc", {})
    assert {path: path.read_bytes() for path in run.folder.iterdir()} == before
    (tmp_path / "file").write_text("mine", encoding="utf-8")
    for output in (tmp_path, tmp_path / "file"):
        with pytest.raises(UserError, match="^output: .* is not empty"):
            create(output)
    (tmp_path / "empty").mkdir()
    assert create(tmp_path / "empty").folder.is_dir()
    assert create(tmp_path / "new" / "a" / "b").folder.is_dir()


@pytest.mark.parametrize("step", ["mkdir", "write_text 1", "write_text 2", "write_tensors", "replace"])
def test_a_folder_appears_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str) -> None:
    """Killed between any two steps of its making, the folder is not there: the same command starts it."""
    calls = iter(range(1, 100))

    class KilledError(BaseException):
        """Nothing tidies up after a kill."""

    def killed(*arguments: Any, **options: Any) -> None:
        raise KilledError

    def second(path: Path, text: str) -> None:
        if f"write_text {next(calls)}" == step:
            raise KilledError
        write_text(path, text)

    with monkeypatch.context() as patch:
        if step == "mkdir":
            patch.setattr(Path, "mkdir", killed)
        elif step == "replace":
            replace_path = Path.replace
            patch.setattr(
                Path, "replace", lambda self, to: killed() if Path(to).name == "run" else replace_path(self, to)
            )
        elif step == "write_tensors":
            patch.setattr(folder, "write_tensors", killed)
        else:
            patch.setattr(folder, "write_text", second)
        with pytest.raises(KilledError):
            create(tmp_path / "run")
    assert not (tmp_path / "run").exists()
    made = create(tmp_path / "run")
    assert opened_here(made)


def opened_here(run: Run) -> bool:
    run.close()
    return opened(run).settings == run.settings


def test_two_writers_are_refused(tmp_path: Path) -> None:
    first = create(tmp_path / "run")
    for _ in range(2):
        with pytest.raises(UserError, match="^output: another process is writing .*run'; wait for it or stop it"):
            Run.open(first.folder)
    first.close()
    second = Run.open(first.folder)
    with pytest.raises(UserError, match="another process"):
        Run.open(first.folder)
    second.close()
    assert opened(first).lines == []


def test_names_of_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    config = settings(task="superglue/cb", optimizer="nevergrad:PSO", seed=7)
    names = [Run.create(config, CPU, "", {}).folder for _ in range(3)]
    assert names[0] == Path("runs") / "superglue-cb-nevergrad-PSO-seed7"
    assert [name.name[len(names[0].name) :] for name in names] == ["", "-2", "-3"]
    own = Run.create(settings(task="", train_file="some/where/mine.csv"), CPU, "", {}).folder
    assert own.name == "mine-cma-seed13"


def test_what_was_measured(tmp_path: Path) -> None:
    measured = {"0/q/a": torch.randn(2, 3), "0/hidden_std": torch.tensor(0.5), "1/q/a": torch.randn(3, 2).T}
    run = create(tmp_path / "run", measured)
    read = run.measured()
    assert read.keys() == measured.keys()
    assert all(torch.equal(read[name], tensor) for name, tensor in measured.items())
    file = run.folder / "measured.safetensors"
    file.write_bytes(file.read_bytes()[:-4])
    with pytest.raises(UserError, match=r"^resume: .*measured\.safetensors' is damaged"):
        run.measured()
    file.unlink()
    with pytest.raises(UserError, match=r"^resume: .*measured\.safetensors' is missing"):
        run.measured()


def test_a_state_belongs_to_a_generation_of_the_log(run: Run) -> None:
    assert run.load_state() == ({}, 0)
    for number in range(3):
        run.log(line(number, [0.25] * (number > 0)))
    run.save_state({"now": torch.tensor([1.0, 2.0])}, 2)
    tensors, generation = opened(run).load_state()
    assert (tensors["now"].tolist(), generation) == ([1.0, 2.0], 2)
    file = run.folder / "log.jsonl"
    file.write_bytes(b"".join(file.read_bytes().splitlines(keepends=True)[:2]))
    with pytest.raises(UserError, match="is of generation '2', which the log does not have"):
        opened(run).load_state()


# -- files ----------------------------------------------------------------------------------------------------------


def test_files_are_written_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "scores.json"
    write_text(file, "old")

    def full(handle: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(files.os, "fsync", full)
    with pytest.raises(UserError, match=r"^output: cannot write .*scores\.json' \(No space left on device\)"):
        write_text(file, "new")
    assert file.read_text(encoding="utf-8") == "old"


def test_a_full_disk_is_one_line(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    run.log(line(0, []))
    before = run.logged()

    def full(*arguments: Any, **options: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(logs.os, "open", full)
    with pytest.raises(UserError, match=r"^output: cannot write the log of .*run' \(No space left on device\)$"):
        run.log(line(1, [0.5]))
    monkeypatch.undo()
    monkeypatch.setattr(files, "save_file", full)
    with pytest.raises(UserError, match=r"^output: cannot write .*state\.safetensors'"):
        run.save_state({"now": torch.ones(2)}, 0)
    assert run.logged() == before


@pytest.mark.parametrize(
    "error", [PermissionError(errno.EACCES, "Permission denied"), OSError(errno.EROFS, "Read-only")]
)
def test_a_folder_that_cannot_be_written_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: OSError
) -> None:
    def refuse(*arguments: Any, **options: Any) -> None:
        raise error

    monkeypatch.setattr(Path, "mkdir", refuse)
    with pytest.raises(UserError, match=rf"^output: cannot make .*run' \({error.strerror}\)$"):
        create(tmp_path / "run")
    assert list(tmp_path.iterdir()) == []


def test_a_log_that_is_a_link_is_not_followed(tmp_path: Path, run: Run) -> None:
    target = tmp_path / "mine.txt"
    target.write_text("precious", encoding="utf-8")
    (run.folder / "log.jsonl").symlink_to(target)
    with pytest.raises(UserError, match="^output: cannot write the log"):
        run.log(line(0, []))
    assert target.read_text(encoding="utf-8") == "precious"


def test_tensors_and_their_hash(tmp_path: Path) -> None:
    file = tmp_path / "t.safetensors"
    assert file_hash(file) == ""
    write_tensors(file, {"a": torch.arange(6).view(2, 3).T}, {"generation": "3"})
    first = file_hash(file)
    tensors, metadata = read_tensors(file)
    assert (tensors["a"].tolist(), metadata) == ([[0, 3], [1, 4], [2, 5]], {"generation": "3"})
    assert torch.equal(load_file(file)["a"], tensors["a"])
    write_tensors(file, {"a": torch.arange(6).view(2, 3).T + 1})
    assert file_hash(file) != first
    assert [path.name for path in tmp_path.iterdir()] == ["t.safetensors"]


# -- what people see ------------------------------------------------------------------------------------------------
