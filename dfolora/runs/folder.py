"""The run folder: resolved config, environment, one JSON line per generation, the adapter, the scores.

A run is its log: optimizers and subspaces are deterministic given their seeds, so telling the logged losses again
rebuilds every optimizer and incumbent without a forward pass. A checksum of each population guards that.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
import os
import platform
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Protocol

import torch
import yaml
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from dfolora.settings.config import TuneConfig
from dfolora.errors import UserError
from dfolora.settings.options import build, read_yaml
from dfolora.subspaces.base import Measured

_PACKAGES = ("dfolora", "torch", "transformers", "peft", "cma", "nevergrad", "numpy")


class Counter(Protocol):
    """What counts a generation's cost."""

    token_layers: int
    forwards: int
    backwards: int

    def reset_counts(self) -> None: ...


@dataclass
class Generation:
    """One line of the log.

    Attributes:
        generation: from 1; line 0 is the base model's look at the dev set.
        sweep: from 1.
        layer: index of the tuned layer; None in joint mode and on line 0.
        checksum: of the population asked.
        losses: one per candidate; None stands for NaN or infinity.
        evaluations, token_layers, forwards, seconds: totals so far, selection not included.
        dev: the look at the dev set after this generation, if there was one: ``metrics``, ``main``, ``loss``.
        dev_token_layers: total cost of such looks so far.
        backwards: backward passes so far; none where no gradient is used.
    """

    generation: int
    sweep: int
    layer: int | None
    checksum: str
    losses: list[float | None]
    evaluations: int
    token_layers: int
    forwards: int
    seconds: float
    dev: dict[str, Any] | None = None
    dev_token_layers: int = 0
    backwards: int = 0

    def next(
        self, counter: Counter, checksum: str, losses: list[float | None], started: float, sweep: int = 0,
        layer: int | None = None,
    ) -> Generation:  # fmt: skip
        """The line after this one; what was counted for it is counted from 0 again.

        Args:
            counter: an engine.
            checksum, losses: of the new line.
            started: when its generation began, by ``time.perf_counter``.
            sweep, layer: of the new line; a method without sweeps counts its generations.
        """
        line = Generation(
            generation=self.generation + 1,
            sweep=sweep or self.generation + 1,
            layer=layer,
            checksum=checksum,
            losses=losses,
            evaluations=self.evaluations + len(losses),
            token_layers=self.token_layers + counter.token_layers,
            forwards=self.forwards + counter.forwards,
            seconds=round(self.seconds + time.perf_counter() - started, 4),
            dev_token_layers=self.dev_token_layers,
            backwards=self.backwards + counter.backwards,
        )
        counter.reset_counts()
        return line

    def loss_tensor(self) -> Tensor:
        return torch.tensor([math.nan if loss is None else loss for loss in self.losses], dtype=torch.float32)


def finite(losses: Tensor) -> list[float | None]:
    """Losses for the log: the shortest decimal that gives the float32 back, None for NaN and infinity."""
    return [float(str(x)) if math.isfinite(x) else None for x in losses.cpu().numpy()]


def checksum(z: Tensor) -> str:
    """Of a population (P, d) float32, to the last bit."""
    return hashlib.blake2b(z.contiguous().numpy().tobytes(), digest_size=8).hexdigest()


class Run:
    """A run folder that is being written, or read again to go on.

    Attributes:
        folder: the path.
        config: the resolved config.
        replay: generations in the log when it was opened; empty for a new run.
    """

    def __init__(self, folder: Path, config: TuneConfig, replay: list[Generation]) -> None:
        self.folder = folder
        self.config = config
        self.replay = replay

    @classmethod
    def create(cls, config: TuneConfig, device: torch.device, data_checksum: str) -> Run:
        """Start a run folder.

        Raises:
            UserError: the output folder already holds something.
        """
        folder = Path(config.output).expanduser() if config.output else _unused(config)
        if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
            what = "already holds a run" if (folder / "log.jsonl").exists() else "is not empty"
            raise UserError(f"--output: {str(folder)!r} {what}; choose another folder, or --resume it if it is a run")
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UserError(f"--output: cannot make {str(folder)!r} ({error.strerror})") from error
        config = dataclasses.replace(config, output=str(folder))
        write_text(folder / "environment.json", json.dumps(environment(device, data_checksum), indent=2) + "\n")
        write_text(folder / "config.yaml", yaml.safe_dump(asdict(config), sort_keys=False))
        return cls(folder, config, [])

    @classmethod
    def open(cls, folder: str) -> Run:
        """Open an interrupted run to go on with it.

        Raises:
            UserError: not a run, a damaged one, or one that is finished.
        """
        path = Path(folder).expanduser()
        if not (path / "config.yaml").is_file():
            raise UserError(f"--resume: {folder!r} is not a run folder: it has no config.yaml")
        if (path / "scores.json").exists():
            raise UserError(f"--resume: {folder!r} is finished; its scores are in {str(path / 'scores.json')!r}")
        config_file = str(path / "config.yaml")
        config = build(TuneConfig, read_yaml(config_file, "--resume"), source=f"--resume: {config_file!r}")
        return cls(path, dataclasses.replace(config, output=str(path)), read_log(path / "log.jsonl"))

    def check_data(self, data_checksum: str) -> None:
        """Refuse to go on with another batch than the log's.

        Raises:
            UserError: the few-shot batch is not the one that the run began with.
        """
        try:
            known = json.loads((self.folder / "environment.json").read_text(encoding="utf-8"))["data_checksum"]
        except (OSError, ValueError, TypeError, KeyError) as error:
            raise UserError(f"--resume: {str(self.folder / 'environment.json')!r} is missing or damaged") from error
        if known != data_checksum:
            raise UserError(f"--resume: the data or the tokenizer of {str(self.folder)!r} have changed since it began")

    def log(self, generation: Generation) -> None:
        """Append one line and hand it to the operating system before going on."""
        with open(self.folder / "log.jsonl", "a", encoding="utf-8") as file:
            file.write(json.dumps(asdict(generation), allow_nan=False) + "\n")
            file.flush()
            os.fsync(file.fileno())

    def save_subspace(self, measured: list[Measured]) -> None:
        tensors = {f"{layer}/{name}": t.contiguous() for layer, part in enumerate(measured) for name, t in part.items()}
        partial = self.folder / "subspace.safetensors.partial"
        save_file(tensors, partial)
        partial.rename(self.folder / "subspace.safetensors")

    def load_subspace(self, layers: int) -> list[Measured]:
        """What the subspaces took from the data, by layer.

        Raises:
            UserError: the file is missing, damaged, or of a model with other layers.
        """
        path = self.folder / "subspace.safetensors"
        if not path.is_file():
            raise UserError(f"--resume: {str(path)!r} is missing: the run stopped before it began, start it anew")
        measured: list[Measured] = [{} for _ in range(layers)]
        try:
            for key, tensor in load_file(path).items():
                layer, name = key.split("/", 1)
                measured[int(layer)][name] = tensor
        except (SafetensorError, ValueError, IndexError) as error:
            raise UserError(f"--resume: {str(path)!r} is damaged or belongs to another model") from error
        return measured

    def save_state(self, tensors: Mapping[str, Tensor], generation: int) -> None:
        """Keep what a first-order run needs to go on after ``generation``; whole or not at all."""
        partial = self.folder / "state.safetensors.partial"
        contiguous = {name: tensor.contiguous() for name, tensor in tensors.items()}
        save_file(contiguous, partial, metadata={"generation": str(generation)})
        partial.rename(self.folder / "state.safetensors")

    def load_state(self) -> tuple[dict[str, Tensor], int]:
        """What ``save_state`` kept and the generation that it stands after; nothing and 0 where nothing was kept.

        Raises:
            UserError: the file is damaged, or of a generation that the log does not have.
        """
        path = self.folder / "state.safetensors"
        if not path.exists():
            return {}, 0
        try:
            with safe_open(path, "pt") as file:
                generation = int(file.metadata()["generation"])
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        except (SafetensorError, OSError, ValueError, TypeError, KeyError) as error:
            raise UserError(f"--resume: {str(path)!r} is damaged") from error
        if not 0 < generation < len(self.replay):
            raise UserError(f"--resume: {str(path)!r} is of generation {generation}, which the log does not have")
        return tensors, generation

    def rewind(self, generation: int) -> None:
        """Drop what the log says after a generation: it is going to be run again."""
        self.replay = self.replay[: generation + 1]
        lines = [json.dumps(asdict(line), allow_nan=False) + "\n" for line in self.replay]
        write_text(self.folder / "log.jsonl", "".join(lines))

    def save_scores(self, scores: Mapping[str, Any]) -> None:
        write_text(self.folder / "scores.json", json.dumps(scores, indent=2) + "\n")


def read_log(path: Path) -> list[Generation]:
    """The generations of a log. A last line that was cut off by the interruption is dropped, from the file too.

    Raises:
        UserError: a line in the middle is not a generation.
    """
    if not path.exists():
        return []
    lines = path.read_bytes().split(b"\n")
    whole, rest = lines[:-1], lines[-1]
    generations = []
    for number, line in enumerate(whole, start=1):
        try:
            generations.append(Generation(**json.loads(line)))
            generations[-1].loss_tensor()  # a tensor can be made of them
            if generations[-1].generation != number - 1:
                raise ValueError(f"it says {generations[-1].generation}")
        except (ValueError, TypeError) as error:
            raise UserError(f"--resume: {str(path)!r}, line {number} is not a generation ({error})") from error
    if rest:
        partial = path.with_name(path.name + ".partial")
        partial.write_bytes(b"".join(line + b"\n" for line in whole))
        partial.rename(path)
    return generations


def write_text(path: Path, text: str) -> None:
    """Write a file whole or not at all."""
    partial = path.with_name(path.name + ".partial")
    partial.write_text(text, encoding="utf-8")
    partial.rename(path)


def environment(device: torch.device, data_checksum: str) -> dict[str, Any]:
    """Versions and device: what a number depends on besides the config."""
    versions = {}
    for name in _PACKAGES:
        try:
            versions[name] = version(name)
        except PackageNotFoundError:
            versions[name] = "not installed"
    return {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "processor": platform.machine(),
        "threads": torch.get_num_threads(),
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else str(device),
        "versions": versions,
        "data_checksum": data_checksum,
    }


def _unused(config: TuneConfig) -> Path:
    task = config.task or Path(config.train_file).stem
    name = f"{task}-{config.search}-seed{config.seed}".replace("/", "-").replace(":", "-")
    number = 1
    while (folder := Path("runs") / (name if number == 1 else f"{name}-{number}")).exists():
        number += 1
    return folder
