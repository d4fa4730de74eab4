"""The folder of a `dfolora prompt`: settings, a line for each question, the paid replies, the scores."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import sqlite3
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml
from filelock import FileLock

from dfolora.errors import UserError
from dfolora.runs.files import write_text
from dfolora.runs.folder import new_folder
from dfolora.runs.lock import locked
from dfolora.settings.yaml_file import read_yaml

# What no answer depends on, so that a run may go on with other values.
FREE = (
    "output", "max_calls", "batch", "device", "trust_remote_code", "base_url", "key_variable", "concurrency", "timeout",
)  # fmt: skip


class PromptFolder:
    """A folder that is new, or of the same run, which goes on.

    Attributes:
        path: the folder.
        lines: of the trace, index -1 is of the shared calls.
        new: it was made just now.
    """

    def __init__(self, path: Path, lock: FileLock, lines: list[dict[str, Any]], new: bool) -> None:
        self.path, self.lines, self.new = path, lines, new
        self._lock = lock

    @classmethod
    def open(cls, path: Path, values: Mapping[str, Any]) -> PromptFolder:
        """Make the folder, or go on with the run that it holds.

        Args:
            path: of the folder.
            values: the settings.

        Raises:
            UserError: it holds something else, or another process writes it.
        """
        if not path.exists() or (path.is_dir() and not any(path.iterdir())):
            with new_folder(path) as (partial, lock):
                write_text(partial / "config.yaml", yaml.safe_dump(dict(values), sort_keys=False))
            return cls(path, lock, [], True)
        if not (path / "config.yaml").is_file():
            raise UserError(f"output: {str(path)!r} is not empty; choose another folder")
        known = read_yaml(str(path / "config.yaml"), "output")
        for name in dict.fromkeys([*known, *values]):
            if name not in FREE and known.get(name) != values.get(name):
                raise UserError(
                    f"output: {str(path)!r} is of a run with {name} {known.get(name)!r}, not {values.get(name)!r}; "
                    "choose another folder"
                )
        lock = locked(path)
        try:
            return cls(path, lock, _lines(path / "trace.jsonl"), False)
        except UserError:
            lock.release()
            raise

    @property
    def cache(self) -> Path:
        """Where the replies that were paid for lie."""
        return self.path / "replies.sqlite"

    @property
    def paid(self) -> int:
        """Replies that the cache holds."""
        if not self.cache.is_file():
            return 0
        with contextlib.closing(sqlite3.connect(self.cache)) as table:
            try:
                return int(table.execute("select count(*) from replies").fetchone()[0])
            except sqlite3.Error:
                return 0  # nothing was written yet; what else is wrong with it, the cache says when it is opened

    def add(self, *lines: Mapping[str, Any]) -> None:
        """Append lines to the trace and wait until they are on disk."""
        try:
            with open(self.path / "trace.jsonl", "a", encoding="utf-8") as file:
                file.writelines(json.dumps(line, ensure_ascii=False) + "\n" for line in lines)
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            raise UserError(f"output: cannot write the trace of {str(self.path)!r} ({error.strerror})") from error
        self.lines += map(dict, lines)

    def finish(self, scores: Mapping[str, Any]) -> None:
        """Write the scores."""
        write_text(self.path / "scores.json", json.dumps(scores, indent=2) + "\n")

    @property
    def scores(self) -> dict[str, Any]:
        """What ``finish`` has written; {} before that.

        Raises:
            UserError: the file is damaged.
        """
        path = self.path / "scores.json"
        try:
            found = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
            return {**found}
        except (ValueError, TypeError, OSError, RecursionError) as error:
            raise UserError(
                f"resume: {str(path)!r} is damaged ({error!s:.100}); without it, it is made again from the trace"
            ) from error

    def __enter__(self) -> PromptFolder:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        """Let others write the folder; take it away again where an error leaves nothing to go on with."""
        self._lock.release()
        refused = kind is not None and issubclass(kind, UserError)  # such as no model or server
        done = self.paid or any(line["index"] >= 0 for line in self.lines) or any(self.path.glob("*/*"))
        if refused and self.new and not done:
            shutil.rmtree(self.path, ignore_errors=True)


def settings_of(path: Path) -> dict[str, Any]:
    """The settings of a run's folder.

    Raises:
        UserError: it is none.
    """
    if not (path / "config.yaml").is_file():
        raise UserError(f"resume: {str(path)!r} is not a run folder: it has no config.yaml")
    values = read_yaml(str(path / "config.yaml"), "resume")
    if "task" not in values or "method" not in values or "predictor" not in values:
        raise UserError(f"resume: {str(path)!r} is no run of `dfolora prompt`")
    return values


def _lines(path: Path) -> list[dict[str, Any]]:
    """The lines of a trace; half a line at its end, of a process that was killed, is cut off."""
    if not path.is_file():
        return []
    data = path.read_bytes()
    whole = data[: data.rfind(b"\n") + 1]
    lines: list[dict[str, Any]] = []
    # Only a line feed ends a line: replies hold Unicode's line separators.
    for number, text in enumerate(whole.split(b"\n")[:-1], 1):
        try:
            lines.append(_checked(json.loads(text)))
        except (ValueError, TypeError, KeyError, RecursionError) as error:
            where = f"{str(path)!r}, line {number}"
            raise UserError(f"resume: {where} is not as it was written ({error!s:.100})") from error
    if len({line["index"] for line in lines}) < len(lines):
        raise UserError(f"resume: {str(path)!r} has two lines for one question")
    if len(whole) < len(data):
        write_text(path, whole.decode())
    return lines


def _checked(line: Any) -> dict[str, Any]:
    """A line of the trace, if the entries that a run goes on from are what they should be."""
    number, count = (int, float), (int, type(None))
    kinds: dict[str, tuple[type, ...]] = {"index": (int,), "calls": (int,)}
    if "losses" in line:  # a generation of a search for an instruction
        kinds |= {"texts": (list,), "losses": (list,), "dev": (*number, type(None))}
    else:
        kinds |= {"cut": (bool,), "prompt_tokens": count, "completion_tokens": count}
        if line["index"] != -1:  # the calls that all questions share
            kinds |= {"correct": (bool,), "how": (str,), "answer": (str, float, type(None))}
    for name, allowed in kinds.items():
        if type(line[name]) not in allowed:
            raise ValueError(f"{name} is {line[name]!r:.40}")
    if line["index"] < -1 or line["calls"] < 0:
        raise ValueError("a number below 0")
    return {**line}
