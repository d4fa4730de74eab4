"""The run folder: settings, environment, log, the adapter, the scores.

A run is its log: optimizers and subspaces are deterministic given their seeds, so telling the logged losses again
rebuilds every optimizer and incumbent without a forward pass. A checksum of each population guards that, and a hash
over the lines guards the log.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import platform
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
import yaml
from filelock import FileLock
from torch import Tensor

from dfolora import log
from dfolora.errors import UserError
from dfolora.log import Line
from dfolora.problems.reward_source import checksum, is_code, is_file
from dfolora.runs.files import file_hash, read_tensors, write_tensors, write_text
from dfolora.runs.lock import locked
from dfolora.runs.versions import versions_of
from dfolora.settings.baseline import BaselineSettings
from dfolora.settings.build import saved, tune_settings
from dfolora.settings.options import as_text, typed
from dfolora.settings.tune import TuneSettings
from dfolora.settings.yaml_file import read_yaml

_PACKAGES = ("dfolora", "torch", "transformers", "peft", "cma", "nevergrad", "numpy")
# Settings that no logged number depends on.
_NO_NUMBER = (
    "output", "extend", "device", "chunk_tokens", "trust_remote_code", "test_split", "stop_at", "patience", "track",
    "push_to_hub", "workers", "ray_address", "slice_size",
)  # fmt: skip


class Run:
    """A run folder, open for writing or reading; what ``dfolora.tune`` returns.

    Attributes:
        folder: the path.
        settings: the resolved settings.
        lines: the log when it was opened; empty for a new run.
    """

    def __init__(self, folder: Path, settings: TuneSettings, lines: list[Line], lock: FileLock | None = None) -> None:
        self.folder = folder
        self.settings = settings
        self.lines = lines
        self._lock = lock
        self._chain = lines[-1].chain if lines else _start(folder, settings)

    @classmethod
    def create(
        cls, settings: TuneSettings, device: torch.device, data_checksum: str, tensors: Mapping[str, Tensor]
    ) -> Run:
        """Start a run folder. It appears whole, with all that a resume needs.

        Args:
            settings: of the run; ``output`` names the folder.
            device: that it runs on.
            data_checksum: of the encoded few-shot and dev sets.
            tensors: what the search measured on the data before it began.

        Raises:
            UserError: the output folder already holds something, or cannot be made.
        """
        folder = free_folder(settings)
        settings = dataclasses.replace(settings, output=str(folder))
        with new_folder(folder) as (partial, lock):
            known = environment(device, data_checksum)
            if is_file(settings.reward):
                known["reward_checksum"] = checksum(settings.reward)
            write_text(partial / "environment.json", json.dumps(known, indent=2) + "\n")
            write_text(partial / "config.yaml", yaml.safe_dump(saved(settings), sort_keys=False))
            if tensors:
                write_tensors(partial / "measured.safetensors", tensors)
        return cls(folder, settings, [], lock)

    @classmethod
    def open(cls, folder: str | Path, budget: int | None = None, **objects: Any) -> Run:
        """Open a run to go on with it.

        Args:
            folder: of the run.
            budget: evaluations to go on to; None: those that it was started with.
            objects: what was given as an object when the run was started (``optimizer``, ``model``, ...), which no file
                can hold; and ``trust_remote_code``, ``device``, ``chunk_tokens``, ``stop_at``, ``patience``, ``track``,
                ``push_to_hub``, which no number in the log depends on.

        Raises:
            UserError: not a run, a damaged one, one that is finished, or one that another process writes.
        """
        path = Path(folder).expanduser()
        if not (path / "config.yaml").is_file():
            raise UserError(f"resume: {str(folder)!r} is not a run folder: it has no config.yaml")
        values = read_yaml(str(path / "config.yaml"), "resume")
        values["trust_remote_code"] = False  # never because a file says so
        if is_code(values.get("reward")) and objects.get("reward") is None:
            raise UserError(
                f"reward: that of the run is code, {values['reward']!r}, which you must name again; give it"
            )
        lock = locked(path)
        try:
            budget = typed("budget", budget, int | None)
            settings = _settings(path, {**values, **_matching(values, objects), "output": str(path)})
            lines = log.read(path / "log.jsonl", _start(path, settings))
            reached = lines[-1].evaluations if lines else 0
            if budget is not None:
                if budget < reached:
                    raise UserError(f"budget: {budget} is less than the {reached} evaluations that {str(path)!r} has")
                settings = dataclasses.replace(settings, extend=budget)
            if (path / "scores.json").exists() and (budget is None or budget <= reached):
                raise UserError(
                    f"resume: {str(folder)!r} is finished; its scores are in {str(path / 'scores.json')!r}; "
                    f"to go on, name a budget of more than {reached} evaluations"
                )
        except UserError:
            lock.release()
            raise
        return cls(path, settings, lines, lock)

    def begin(self, data_checksum: str) -> str:
        """Make the files those of a run under way, once it is certain that it can go on.

        Returns:
            A message for the user where the file of the reward is not as it was; ''.

        Raises:
            UserError: the few-shot or dev set is not the one that the run began with.
        """
        path = self.folder / "environment.json"
        try:
            known = json.loads(path.read_text(encoding="utf-8"))
            same, reward = known["data_checksum"] == data_checksum, known.get("reward_checksum", "")
        except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
            raise UserError(f"resume: {str(path)!r} is missing or damaged") from error
        if not same:
            raise UserError(
                f"resume: the data, the model or the tokenizer of {str(self.folder)!r} have changed since it began"
            )
        if reward == checksum(self.settings.reward):
            return ""
        return (
            f"the file of the reward, {self.settings.reward}, has changed since the run began; "
            "losses in the log are of the old one"
        )

    def rewrite(self, generation: int) -> None:
        """Cut the log after a generation and reopen the run; later generations are run again."""
        self.lines = self.lines[: generation + 1]
        self._chain = self.lines[-1].chain if self.lines else _start(self.folder, self.settings)
        write_text(self.folder / "log.jsonl", log.text_of(self.lines))
        write_text(self.folder / "config.yaml", yaml.safe_dump(saved(self.settings), sort_keys=False))
        (self.folder / "scores.json").unlink(missing_ok=True)

    def log(self, line: Line) -> None:
        """Append a line to the log and wait until it is on disk.

        Raises:
            UserError: it cannot be written.
        """
        try:
            log.append(self.folder / "log.jsonl", line, self._chain)
        except OSError as error:
            raise UserError(f"output: cannot write the log of {str(self.folder)!r} ({error.strerror})") from error
        self._chain = line.chain

    def logged(self) -> list[Line]:
        """The whole log as it is now."""
        return log.read(self.folder / "log.jsonl", _start(self.folder, self.settings))

    def measured(self) -> dict[str, Tensor]:
        """Tensors that a search measured on the data before it began; {} for a method that measures nothing.

        Raises:
            UserError: the file is missing or damaged.
        """
        path = self.folder / "measured.safetensors"
        if not path.is_file():
            if self.settings.method == "search":
                raise UserError(f"resume: {str(path)!r} is missing")
            return {}
        return read_tensors(path)[0]

    def save_state(self, tensors: Mapping[str, Tensor], generation: int) -> None:
        """Save the tensors that a method needs beside the log to go on after ``generation``."""
        write_tensors(self.folder / "state.safetensors", tensors, {"generation": str(generation)})

    def load_state(self) -> tuple[dict[str, Tensor], int]:
        """Load what ``save_state`` saved and its generation; {} and 0 where nothing was saved.

        Raises:
            UserError: the file is damaged, or of a generation that the log does not have.
        """
        path = self.folder / "state.safetensors"
        if not path.exists():
            return {}, 0
        tensors, metadata = read_tensors(path)
        generation = metadata.get("generation", "")
        if not generation.isdigit() or not 0 < int(generation) < len(self.lines):
            raise UserError(f"resume: {str(path)!r} is of generation {generation!r}, which the log does not have")
        return tensors, int(generation)

    @property
    def scores(self) -> dict[str, Any]:
        """The content of ``scores.json``; {} where the run is not finished."""
        path = self.folder / "scores.json"
        return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}

    @property
    def adapter(self) -> str:
        """The folder of the adapter; for a run that tunes all weights, of the model."""
        return str(self.folder / ("model" if self.settings.method == "full-parameter" else "adapter"))

    def save_scores(self, scores: Mapping[str, Any]) -> None:
        write_text(self.folder / "scores.json", json.dumps(scores, indent=2) + "\n")

    def close(self) -> None:
        """Release the lock, so that other processes may write the folder."""
        if self._lock is not None:
            self._lock.release()


def free_folder(settings: TuneSettings | BaselineSettings) -> Path:
    """The folder for the results of some settings: the one that they name, or a new one under runs/.

    Raises:
        UserError: it already holds something.
    """
    folder = Path(settings.output).expanduser() if settings.output else _unused(settings)
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        what = "already holds a run" if (folder / "log.jsonl").exists() else "is not empty"
        raise UserError(f"output: {str(folder)!r} {what}; choose another folder, or --resume it if it is a run")
    return folder


@contextlib.contextmanager
def new_folder(folder: Path) -> Iterator[tuple[Path, FileLock]]:
    """Within it, a folder to write into, and its lock: it gets its name at the end, or goes if anything fails.

    Raises:
        UserError: it cannot be made.
    """
    partial = folder.with_name(f"{folder.name}.partial-{os.getpid()}")
    _remove_left_behind(folder)
    try:
        with _making(folder):
            shutil.rmtree(partial, ignore_errors=True)  # of a killed process that had our number
            partial.mkdir(parents=True)
            lock = locked(partial)
        yield partial, lock
        with _making(folder):
            partial.replace(folder)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise


@contextlib.contextmanager
def _making(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise UserError(f"output: cannot make {str(folder)!r} ({error.strerror})") from error


def environment(device: torch.device, data_checksum: str) -> dict[str, Any]:
    """Versions and device: what a number depends on besides the settings."""
    return {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "processor": platform.machine(),
        "threads": torch.get_num_threads(),
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else str(device),
        "versions": versions_of(_PACKAGES),
        "data_checksum": data_checksum,
    }


def _remove_left_behind(folder: Path) -> None:
    """Remove unfinished folders of killed processes; a process that lives holds its lock."""
    for partial in folder.parent.glob(f"{folder.name}.partial-*"):
        try:
            locked(partial).release()
        except UserError:
            continue
        shutil.rmtree(partial, ignore_errors=True)


def _start(folder: Path, settings: TuneSettings) -> str:
    """The hash of what a run starts from, settings and measurements: the first link of its log's chain."""
    values = {name: value for name, value in saved(settings).items() if name not in _NO_NUMBER}
    return json.dumps(values, sort_keys=True) + file_hash(folder / "measured.safetensors")


def _settings(folder: Path, values: Mapping[str, Any]) -> TuneSettings:
    try:
        return tune_settings(**values)
    except UserError as error:
        raise UserError(f"resume: {str(folder / 'config.yaml')!r} cannot be gone on with; {error}") from error


def _matching(values: Mapping[str, Any], objects: Mapping[str, Any]) -> dict[str, Any]:
    """The objects that stand for names in a run's settings; an object of another name would make it another run."""
    for name, thing in objects.items():
        free = name in _NO_NUMBER
        if not free and as_text(thing) != values.get(name):
            raise UserError(f"{name}: the run has {values.get(name)!r}, not {as_text(thing)!r}; leave it out")
    return dict(objects)


def _unused(settings: TuneSettings | BaselineSettings) -> Path:
    task = as_text(settings.task) or Path(settings.train_file).stem
    name = f"{task}-{settings.search}-seed{settings.seed}".replace("/", "-").replace(":", "-")
    number = 1
    while (folder := Path("runs") / (name if number == 1 else f"{name}-{number}")).exists():
        number += 1
    return folder
