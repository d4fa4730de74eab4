"""A cell of a grid: one task, method and seed, run in a process of its own; a folder that holds an ordinary run."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from dfolora.errors import UserError
from dfolora.runs.files import write_text

FREE = ("output", "extend", "device", "chunk_tokens", "trust_remote_code")
"""Options that no figure depends on: they may differ between a cell that is there and the one asked for."""


@dataclass(frozen=True)
class Cell:
    """One task, method and seed.

    Attributes:
        model, task, method: labels.
        seed: of the search and of the split.
        choice: what of the method's ``tried`` options this cell has.
        folder: of the cell. It holds ``cell.json``, what was asked; ``run/``, the run folder; ``test.json``, metrics on
            the test set; ``measures.jsonl``, a line for each process; ``log.txt``, what these said; ``error.txt``.
        kind: ``tune``, ``baseline`` or ``zero-shot``.
        options: what the run is told.
        resolved: the same with every default, to compare with what is there.
        split: what is reported, ``test`` or ``dev``.
    """

    model: str
    task: str
    method: str
    seed: int
    folder: Path
    kind: str
    options: Mapping[str, Any]
    resolved: Mapping[str, Any]
    split: str = "test"
    choice: Mapping[str, Any] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """What people call it."""
        tried = "".join(f", {name} {value}" for name, value in self.choice.items())
        return f"{self.task}, {self.method}{tried}, seed {self.seed}"

    @property
    def run(self) -> Path:
        return self.folder / "run"

    def check(self) -> None:
        """Raise UserError where the folder holds another cell than this one."""
        there = read_json(self.folder / "cell.json").get("resolved")
        if there is None:
            return
        wanted = json.loads(json.dumps(self.resolved))
        for name in sorted({*there, *wanted} - set(FREE)):
            if there.get(name) != wanted.get(name):
                raise UserError(
                    f"output: {str(self.folder)!r} holds a run with {name} {there.get(name)!r}, not "
                    f"{wanted.get(name)!r}; choose another output"
                )

    def ask(self, test: bool) -> None:
        """Write what the process of this cell is to do."""
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UserError(f"output: cannot make {str(self.folder)!r} ({error.strerror})") from error
        asked = {"kind": self.kind, "options": self.options, "resolved": self.resolved, "split": self.split}
        write_text(self.folder / "cell.json", json.dumps({**asked, "test": test}, indent=2) + "\n")

    @property
    def searched(self) -> bool:
        """Its run is finished, scored on the test set or not."""
        return self.kind == "zero-shot" or (self.run / "scores.json").is_file()

    @property
    def finished(self) -> bool:
        return self.searched and (self.folder / "test.json").is_file()

    @property
    def error(self) -> str:
        """Why it failed, in one line; '' where it did not."""
        path = self.folder / "error.txt"
        return path.read_text(encoding="utf-8").strip() if path.is_file() else ""

    def fail(self, reason: str) -> None:
        """Keep the reason for the table."""
        write_text(self.folder / "error.txt", " ".join(reason.split()) + "\n")

    def forgive(self) -> None:
        """Forget that it failed."""
        (self.folder / "error.txt").unlink(missing_ok=True)

    def result(self) -> dict[str, Any]:
        """Scores and costs, as far as there are any; what is unknown is None.

        Returns:
            ``seed, folder, choice, metrics, examples, dev, dev_loss, evaluations, token_layers, dev_token_layers,
            seconds`` of the search alone, and of all processes of the cell ``process_seconds, processor_seconds,
            peak_memory_bytes, peak_gpu_memory_bytes``.
        """
        scores, test = read_json(self.run / "scores.json"), read_json(self.folder / "test.json")
        counts = ("evaluations", "token_layers", "dev_token_layers", "seconds", "dev_loss")
        found = {name: scores.get(name) for name in counts}
        if self.kind == "zero-shot":
            found |= {name: 0 for name in counts[:-1]}
        return {
            "seed": self.seed,
            "folder": str(self.folder),
            "choice": dict(self.choice),
            "metrics": test.get("metrics", {}),
            "examples": test.get("examples"),
            "dev": scores.get("dev_tuned", {}),
            **found,
            **self._measured(),
        }

    def _measured(self) -> dict[str, Any]:
        lines = []
        path = self.folder / "measures.jsonl"
        if path.is_file():
            lines = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines() if line.endswith("}")]

        def over(name: str, how: Any) -> Any:
            values = [line[name] for line in lines if line.get(name) is not None]
            return how(values) if values else None

        return {
            "process_seconds": over("seconds", sum),
            "processor_seconds": over("processor_seconds", sum),
            "peak_memory_bytes": over("peak_memory_bytes", max),
            "peak_gpu_memory_bytes": over("peak_gpu_memory_bytes", max),
        }

    def predictions(self) -> list[dict[str, Any]]:
        """The lines of ``predictions.jsonl``; [] where there is none."""
        path = self.folder / "predictions.jsonl"
        # A text may hold what counts as the end of a line elsewhere.
        lines = path.read_text(encoding="utf-8").split("\n") if path.is_file() else []
        return [json.loads(line) for line in lines if line]


def read_json(path: Path) -> dict[str, Any]:
    """The object in a file; {} where there is no such file.

    Raises:
        UserError: it is damaged.
    """
    if not path.is_file():
        return {}
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"output: {str(path)!r} is damaged ({error})") from error
    if not isinstance(found, dict):
        raise UserError(f"output: {str(path)!r} is damaged: it holds no object")
    return found
