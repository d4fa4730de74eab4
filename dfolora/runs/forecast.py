"""What a run is going to cost: evaluations per second, time, memory, as far as its beginning tells."""

from __future__ import annotations

import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dfolora.log import Line

if TYPE_CHECKING:
    from dfolora.methods.method import Method

SHORT = 10.0  # seconds: a run that ends sooner needs no forecast


@dataclass(frozen=True)
class Forecast:
    """What is still to come of a run, once its model is loaded.

    Attributes:
        rate: evaluations per second.
        evaluations: how many are left, at most.
        search_seconds: what they take.
        look_seconds: what looks at the dev set take beside that.
        test_seconds: what scoring the test set takes, with the adapter and without.
        peak_bytes: most memory that the process has had so far, which a search exceeds by little; None: not known.
        gpu_bytes: the same of a GPU; None: there is none.
    """

    rate: float
    evaluations: int
    search_seconds: float
    look_seconds: float
    test_seconds: float
    peak_bytes: int | None
    gpu_bytes: int | None

    @property
    def seconds(self) -> float:
        """Time of the whole rest of the run."""
        return self.search_seconds + self.look_seconds + self.test_seconds

    def facts(self) -> dict[str, Any]:
        """The same as JSON holds it, ``seconds`` included."""
        return {**asdict(self), "seconds": self.seconds}

    def __str__(self) -> str:
        parts = [f"{self.evaluations} evaluations, {self.rate:.3g} a second: {clock(self.search_seconds)}"]
        if self.look_seconds >= 1:
            parts.append(f"the dev set: {clock(self.look_seconds)}")
        if self.test_seconds >= 1:
            parts.append(f"the test set: {clock(self.test_seconds)}")
        memory = [f"{self.peak_bytes / 2**30:.2f} GiB of memory"] if self.peak_bytes else []
        memory += [f"{self.gpu_bytes / 2**30:.2f} GiB on the GPU"] if self.gpu_bytes else []
        return f"{', '.join(parts)}; {clock(self.seconds)} in all" + "".join(f", {each}" for each in memory)


def early_forecast(method: Method[Any], line: Line, tests: int = 0) -> Forecast | None:
    """The forecast of a run that goes on after a line of its log.

    Right after line 0 a method that can do so tries a few candidates, which changes nothing; later the log tells.

    Args:
        method: whose dev set has been looked at.
        line: the last line of the log.
        tests: examples that are scored at the end.

    Returns:
        The forecast; None where nothing is known yet, or the run is over in a few seconds.
    """
    if line.generation:
        found = forecast(method, line, tests)
        return found if found.seconds >= SHORT else None
    selection = method.problem.selection
    least = method.budget * len(method.problem.train) * selection.seconds / len(selection.dev)
    if least < SHORT or (cost := method.trial()) is None:
        return None
    return forecast(method, line, tests, cost)


def forecast(method: Method[Any], line: Line, tests: int = 0, cost: float | None = None) -> Forecast:
    """What a run is going to cost from a line of its log on.

    Args:
        method, line, tests: as for ``early_forecast``.
        cost: seconds of an evaluation; None: as the log says.
    """
    selection, left = method.problem.selection, method.budget - line.evaluations
    cost = line.seconds / max(1, line.evaluations) if cost is None else cost
    return Forecast(
        rate=1 / max(cost, 1e-9),
        evaluations=left,
        search_seconds=cost * left,
        look_seconds=method.looks(left) * selection.seconds,
        test_seconds=2 * tests * selection.seconds / len(selection.dev),
        peak_bytes=peak_memory(),
        gpu_bytes=gpu_memory(),
    )


def peak_memory() -> int | None:
    """Most memory that this process has had, in bytes; where it cannot be told, None.

    Linux counts the memory of the parent at the start of its child into ``ru_maxrss``, but not into ``VmHWM``.
    """
    status = Path("/proc/self/status")
    if status.exists():
        for line in status.read_text(encoding="utf-8").splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    try:
        import resource
    except ImportError:
        return None
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss  # bytes on a Mac


def gpu_memory() -> int | None:
    """Most memory that this process has had on a GPU, in bytes; None where it has used none."""
    torch = sys.modules.get("torch")
    return torch.cuda.max_memory_allocated() if torch is not None and torch.cuda.is_available() else None


def clock(seconds: float) -> str:
    """``0:07``, ``1:02:03``."""
    minutes, second = divmod(round(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02d}:{second:02d}" if minutes >= 60 else f"{minutes}:{second:02d}"
