"""The log of a run: one JSON line for each generation, each with a hash over all lines before it."""

from __future__ import annotations

import hashlib
import json
import math
import os
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor

from dfolora.errors import UserError


class Counter(Protocol):
    """Anything that counts the cost of a generation, such as an engine."""

    token_layers: int
    forwards: int
    backwards: int

    def reset_counts(self) -> None: ...


@dataclass(frozen=True)
class Step:
    """What a method did in one step, for the log.

    Attributes:
        checksum: of what was asked: a population, or the weights before the step.
        losses: one per candidate; None stands for NaN or infinity.
        sweep, layer: which sweep and which layer, for a method that has them.
        note: what else the method needs to repeat the step without a forward; JSON values.
    """

    checksum: str
    losses: list[float | None]
    sweep: int = 0
    layer: int | None = None
    note: dict[str, Any] | None = None


@dataclass
class Line:
    """One line of the log.

    Attributes:
        generation: from 1; line 0 is the base model's look at the dev set.
        sweep: from 1.
        layer: index of the tuned layer; None in joint mode and on line 0.
        checksum: of what was asked: a population, or the weights before the step.
        losses: one per candidate; None stands for NaN or infinity.
        evaluations, token_layers, forwards, seconds: totals so far, looks at the dev set not included.
        dev: the look at the dev set after this generation, if there was one: ``metrics``, ``main``, ``loss``.
        dev_token_layers: total cost of such looks so far.
        backwards: backward passes so far; none where no gradient is used.
        note: what else the method needs to repeat the generation without a forward.
        ended: why the run ended with this line, before its budget was spent; '' where it did not.
        chain: hash of this line and all before it; '' until the line is written.
    """

    generation: int = 0
    sweep: int = 0
    layer: int | None = None
    checksum: str = ""
    losses: list[float | None] = field(default_factory=list)
    evaluations: int = 0
    token_layers: int = 0
    forwards: int = 0
    seconds: float = 0.0
    dev: dict[str, Any] | None = None
    dev_token_layers: int = 0
    backwards: int = 0
    note: dict[str, Any] | None = None
    ended: str = ""
    chain: str = ""

    def next(self, step: Step, counter: Counter, started: float) -> Line:
        """The next line of the log; resets the engine's counters.

        Args:
            step: what was done.
            counter: an engine.
            started: when the step began, by ``time.perf_counter``.
        """
        line = Line(
            generation=self.generation + 1,
            sweep=step.sweep or self.generation + 1,
            layer=step.layer,
            checksum=step.checksum,
            losses=step.losses,
            evaluations=self.evaluations + len(step.losses),
            token_layers=self.token_layers + counter.token_layers,
            forwards=self.forwards + counter.forwards,
            seconds=round(self.seconds + time.perf_counter() - started, 4),
            dev_token_layers=self.dev_token_layers,
            backwards=self.backwards + counter.backwards,
            note=step.note,
        )
        counter.reset_counts()
        return line

    def loss_tensor(self) -> Tensor:
        """(P,) float32, NaN where there was no finite loss."""
        return torch.tensor([math.nan if loss is None else loss for loss in self.losses], dtype=torch.float32)


def finite(losses: Tensor) -> list[float | None]:
    """Losses for the log: the shortest decimal that gives the float32 back, None for NaN and infinity."""
    return [float(str(x)) if math.isfinite(x) else None for x in losses.cpu().numpy()]


def checksum(z: Tensor) -> str:
    """Checksum of a population (P, d) float32, to the last bit."""
    return hashlib.blake2b(z.contiguous().numpy().tobytes(), digest_size=8).hexdigest()


def append(path: Path, line: Line, before: str) -> None:
    """Append a line to a log file and wait until it is on disk.

    Args:
        path: the log.
        line: gets its ``chain``.
        before: the chain of the line before it; for line 0 the hash of what the run starts from.
    """
    line.chain = _chain(line, before)
    # A link in place of the log would let a stranger's folder choose which file is written.
    handle = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0), 0o666)
    with open(handle, "a", encoding="utf-8") as file:
        file.write(_json(line))
        file.flush()
        os.fsync(file.fileno())


def read(path: Path, before: str) -> list[Line]:
    """Read and check the lines of a log. A last line that an interruption cut off is left out.

    Args:
        path: the log.
        before: the hash of what the run starts from.

    Raises:
        UserError: a line is not what was written.
    """
    if not path.exists():
        return []
    if not path.is_file():
        raise UserError(f"resume: {str(path)!r} is not a file")
    lines: list[Line] = []
    for number, text in enumerate(path.read_bytes().split(b"\n")[:-1], start=1):
        try:
            line = _line(json.loads(text))
            if line.generation != number - 1:
                raise ValueError(f"it says {line.generation}")
            chain = _chain(line, before)
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError, OverflowError) as error:
            raise UserError(f"resume: {str(path)!r}, line {number} is not a generation ({error})") from error
        if line.chain != chain:
            raise UserError(
                f"resume: {str(path)!r}, line {number} is not as it was written, or the run's settings have changed"
            )
        before = line.chain
        lines.append(line)
    return lines


def text_of(lines: list[Line]) -> str:
    """The log that has these lines."""
    return "".join(map(_json, lines))


def _line(values: Any) -> Line:
    """Make a line from JSON and check it."""
    line = Line(**values)
    if not all(isinstance(loss, (int, float, type(None))) for loss in line.losses):
        raise ValueError("losses that are no numbers")
    line.loss_tensor()  # a tensor can be made of them
    whole = (line.generation, line.sweep, line.evaluations, line.token_layers, line.forwards, line.backwards)
    if not all(isinstance(number, int) and number >= 0 for number in (*whole, line.dev_token_layers)):
        raise ValueError("a count that is not a whole number")
    if not isinstance(line.seconds, (int, float)) or not isinstance(line.checksum, str):
        raise ValueError("seconds or checksum")
    if line.generation == 0 and line.dev is None:
        raise ValueError("line 0 without the base model's look at the dev set")
    if line.dev is not None:
        {**line.dev["metrics"]}, float(line.dev["main"]), line.dev["loss"]
    if not isinstance(line.ended, str):
        raise ValueError("a reason to end that is no text")
    if not isinstance(line.note, (dict, type(None))) or not isinstance(line.layer, (int, type(None))):
        raise ValueError("note or layer")
    return line


def _chain(line: Line, before: str) -> str:
    values = {name: value for name, value in _values(line).items() if name != "chain"}
    return hashlib.blake2b((before + json.dumps(values, allow_nan=False)).encode(), digest_size=8).hexdigest()


def _json(line: Line) -> str:
    return json.dumps(_values(line), allow_nan=False) + "\n"


def _values(line: Line) -> dict[str, Any]:
    values = asdict(line)
    if not line.ended:
        del values["ended"]
    return values
