"""A run as a list of seeds and scalars: its log is its checkpoint, a JSON line for each step."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from dfolora.errors import UserError

NOISE = "philox4x64-normal16-1"  # named in every log: a change of the noise's numbers needs another name


@dataclass(frozen=True)
class Step:
    """What one step did: x <- x - lr sum_k weights[k] z_k, with the z_k of this step.

    Attributes:
        step: from 0; with the run's seed and k it is the seed of z_k.
        lr: learning rate of this step.
        weights: {k: c_k}, the estimate of the gradient; empty where the step changed nothing.
        slopes: projected gradients.
        losses: of all probes in order; None stands for NaN or infinity.
    """

    step: int
    lr: float
    weights: dict[int, float]
    slopes: list[float]
    losses: list[float | None]

    def append(self, path: str | Path) -> None:
        """Add a line to a log, and hand it to the operating system before going on."""
        with open(path, "a", encoding="utf-8") as file:
            file.write(_json(self))
            file.flush()
            os.fsync(file.fileno())


@dataclass
class Log:
    """A run.

    Attributes:
        seed: of the noise.
        base: fingerprint of the weights that the run started from.
        settings: the estimator and its settings, for the reader.
        steps: so far.
        noise: which noise the numbers are of.
    """

    seed: int
    base: str
    settings: dict[str, Any]
    steps: list[Step] = field(default_factory=list)
    noise: str = NOISE

    def save(self, path: str | Path) -> None:
        """Write a line for the run and a line for each step."""
        head = {name: value for name, value in asdict(self).items() if name != "steps"}
        partial = Path(f"{path}.partial")
        partial.write_text(json.dumps(head) + "\n" + "".join(map(_json, self.steps)), encoding="utf-8")
        partial.rename(path)

    @classmethod
    def load(cls, path: str | Path) -> Log:
        """Read what ``save`` and ``append`` wrote; a last line that was cut off by an interruption is left out.

        Raises:
            UserError: no such file, or not a log.
        """
        try:
            text = Path(path).read_text(encoding="utf-8")
            head, *lines = map(json.loads, text[: text.rfind("\n") + 1].splitlines())
            return cls(**head, steps=[_step(line) for line in lines])
        except OSError as error:
            raise UserError(f"log: cannot read {str(path)!r} ({error.strerror})") from error
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise UserError(f"log: {str(path)!r} is not the log of a full-parameter run") from error


def finite(losses: list[float]) -> list[float | None]:
    """Losses for the log, None for NaN and infinity."""
    return [loss if math.isfinite(loss) else None for loss in losses]


def _json(step: Step) -> str:
    return json.dumps(asdict(step), allow_nan=False) + "\n"


def _step(line: Mapping[str, Any]) -> Step:
    """A step from a log's line; ValueError, TypeError or KeyError where it cannot be one."""
    weights = {int(k): float(weight) for k, weight in line["weights"].items()}  # JSON's keys are text
    slopes = [float(slope) for slope in line["slopes"]]
    losses = [None if loss is None else float(loss) for loss in line["losses"]]
    step = Step(int(line["step"]), float(line["lr"]), weights, slopes, losses)
    numbers = [step.lr, *weights.values(), *slopes, *(loss for loss in losses if loss is not None)]
    if not all(map(math.isfinite, numbers)) or not all(0 <= k < 2**32 for k in weights):
        raise ValueError("a number that no step has")
    return step
