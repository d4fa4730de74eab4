"""The progress display, on standard error: one moving line on a terminal, a line now and then in a file."""

from __future__ import annotations

import math
import sys
import time
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn
from rich.table import Table

from dfolora.log import Line
from dfolora.runs.card import how_it_works
from dfolora.runs.description import name_of
from dfolora.runs.folder import Run
from dfolora.runs.forecast import Forecast, clock
from dfolora.runs.listener import Listener

QUIET_SECONDS = 10.0  # between lines where the output is not a terminal
WARNINGS = (1, 10, 100, 1000)  # of generations without a finite loss


class Display(Listener):
    """Shows a run while it goes on, and its scores at the end."""

    def __init__(self) -> None:
        self.console = Console(stderr=True, emoji=False)  # "file:train:" is no locomotive
        self.live = self.console.is_terminal
        self.bar = Progress(
            TextColumn("{task.description}"), BarColumn(bar_width=10), console=self.console, transient=True
        )
        self.row = self.bar.add_task("", total=None)
        self.run: Run | None = None
        self.started_at = time.monotonic()
        self.replayed = 0  # evaluations that cost nothing now and must not count as speed
        self.last_line = -math.inf
        self.last_stage = -math.inf
        self.all_bad = 0

    def __enter__(self) -> Display:
        if self.live:
            self.bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop()

    def stage(self, text: str) -> None:
        if self.live:
            self.bar.update(self.row, description=text)
        elif time.monotonic() - self.last_stage > QUIET_SECONDS:
            self.last_stage = time.monotonic()
            self._print(text)

    def started(self, run: Run, remark: str = "") -> None:
        """The run folder exists: say where it is, so that it can be resumed."""
        self.run = run
        self.replayed = run.lines[-1].evaluations if run.lines else 0
        self.started_at = time.monotonic()
        settings = run.settings
        if run.lines:
            self._print(f"resuming {run.folder} after {self.replayed} evaluations")
        task = name_of(settings.task) or f"file:{Path(settings.train_file).stem}"
        self._print(
            f"tuning {name_of(settings.model)} for {task}: "
            f"{how_it_works(settings)}, seed {settings.seed}, budget {settings.evaluations} evaluations; "
            f"run folder {run.folder}"
        )
        if remark:
            self._print(f"note: {remark}")
        self.bar.update(self.row, total=settings.evaluations, completed=self.replayed)

    def interrupted(self) -> None:
        """Say how to go on."""
        self._stop()
        self._print("interrupted" + (f"; go on with: dfolora tune --resume {self.run.folder}" if self.run else ""))

    def forecast(self, forecast: Forecast) -> None:
        self._print(f"forecast: {forecast}")

    def ended(self, line: Line) -> None:
        self._print(f"ended after {line.evaluations} evaluations: {line.ended}")

    def progress(self, line: Line, best: Line) -> None:
        assert self.run is not None, "a run starts before it gets on"
        budget = self.run.settings.evaluations
        rate = max(0, line.evaluations - self.replayed) / max(time.monotonic() - self.started_at, 1e-9)
        left = budget - line.evaluations
        losses = [loss for loss in line.losses if loss is not None]
        if line.losses and not losses:
            self._warn(line)
        text = progress_line(line, best, budget, rate)
        if self.live:
            self.bar.update(self.row, completed=line.evaluations, description=text)
        elif time.monotonic() - self.last_line > QUIET_SECONDS or left < len(line.losses):
            self.last_line = time.monotonic()
            self._print(text)

    def scores(self, scores: dict[str, Any]) -> None:
        """The table at the end, on standard output."""
        self._stop()
        table = Table(title=f"{scores['task']}, seed {scores['seed']}, {scores['evaluations']} evaluations", box=None)
        for column in ("split", "examples", "metric", "zero-shot", "tuned", "change"):
            table.add_column(column, justify="left" if column in ("split", "metric") else "right")
        split = next((name for name in scores["examples"] if name not in ("train", "dev")), "dev")
        looks = [("dev", scores["dev_zero_shot"], scores["dev_tuned"])]
        if scores["tuned"]:
            looks.append((split, scores["zero_shot"], scores["tuned"]))
        for name, before, after in looks:
            for metric in after:
                plain = [f"{before[metric]:.2f}", f"{after[metric] - before[metric]:+.2f}"] if before else ["-", "-"]
                count = str(scores["examples"][name])
                table.add_row(name, count, metric, plain[0], f"{after[metric]:.2f}", plain[1])
        Console(file=sys.stdout, emoji=False, markup=False).print(table)
        what = next(each for each in ("adapter", "model_folder", "run") if each in scores)
        print(f"{what.replace('_', ' ')}: {scores[what]}")

    def _stop(self) -> None:
        if self.live:
            self.bar.stop()

    def _warn(self, line: Line) -> None:
        assert self.run is not None, "a run starts before it gets on"
        self.all_bad += 1
        if self.all_bad in WARNINGS:
            method = self.run.settings.method
            knobs = {"search": "sigma or scale", "full-parameter": "sigma or lr", "tangent": "step_size"}
            lower = knobs.get(method, "lr")
            self._print(f"warning: generation {line.generation}: every loss is NaN or infinite; lower {lower}?")

    def _print(self, text: str) -> None:
        self.console.print(text, highlight=False, markup=False, soft_wrap=True)


def progress_line(line: Line, best: Line, budget: int, rate: float) -> str:
    """The progress of a run in at most 66 characters, so that a bar beside it fits a terminal of 80."""
    losses = [loss for loss in line.losses if loss is not None]
    loss = f"{min(losses, default=math.nan):.3f}" if line.losses else "-"  # the base model is no generation
    dev = f"{best.dev['main']:.1f}" if best.dev else "-"
    layer = "" if line.layer is None else f" layer {line.layer}"
    left = clock((budget - line.evaluations) / rate) if rate else "?"
    return f"sweep {line.sweep}{layer} loss {loss} dev {dev} {line.evaluations}/{budget} {rate:.1f}/s {left} left"


def bench_table(measured: dict[str, Any]) -> None:
    """Print what ``bench`` measured, on standard output."""
    title = f"{measured['case'] or measured['model']}, {measured['dtype']}, {measured['device']}"
    table = Table(title=title, box=None)
    for column in ("row", "x pure", "spread", "candidates/s", "utilisation", "peak MiB"):
        table.add_column(column, justify="left" if column == "row" else "right")
    for row in measured["rows"]:
        table.add_row(
            row["name"], f"{row['ratio_to_pure']:.2f}", f"{row['ratio_spread']:.2f}",
            f"{row['candidates_per_second']:.1f}", f"{row['utilisation']:.0%}",
            f"{row['peak_memory_bytes'] / 2**20:.1f}",
        )  # fmt: skip
    console = Console()
    console.print(table)
    console.print(
        f"{measured['population']} candidates x {measured['sequences']} sequences, {measured['padded_tokens']} tokens "
        f"padded, {measured['real_tokens']} real; optimizer ({measured['optimizer']}): "
        f"{measured['optimizer_share']:.1%} of a generation is waiting for it "
        f"({measured['optimizer_share_serial']:.1%} without threads that work ahead)"
    )
    if measured["kendall_tau_to_float32"] is not None:
        console.print(f"ranks against float32: Kendall tau {measured['kendall_tau_to_float32']:.3f}")
