"""What a person sees of a run: a line that moves on a terminal, a line now and then in a file. Standard error only."""

from __future__ import annotations

import math
import sys
import time
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn
from rich.table import Table

from dfolora.settings.config import TuneConfig
from dfolora.runs.folder import Generation, Run

QUIET_SECONDS = 10.0  # between lines where the output is not a terminal


class Display:
    """Shows a run while it goes on, and its scores at the end."""

    def __init__(self, config: TuneConfig, task: str) -> None:
        self.config = config
        self.task = task
        self.console = Console(stderr=True, emoji=False)  # "file:train:" is no locomotive
        self.live = self.console.is_terminal
        self.bar = Progress(
            TextColumn("{task.description}"), BarColumn(bar_width=20), console=self.console, transient=True
        )
        self.started_at = time.monotonic()
        self.replayed = 0  # evaluations that cost nothing now and must not count as speed
        self.last_line = -math.inf
        self.folder: Path | None = None
        self.all_bad = 0

    def __enter__(self) -> Display:
        return self

    def __exit__(self, *_: object) -> None:
        if self.live:
            self.bar.stop()

    def started(self, run: Run) -> None:
        """The run folder exists: say where it is, so that it can be resumed."""
        self.folder = run.folder
        self.replayed = run.replay[-1].evaluations if run.replay else 0
        self.started_at = time.monotonic()
        config = self.config
        how = f"{config.optimizer} in {config.subspace}"
        if config.method == "full-parameter":
            how = f"{config.optimizer} on all weights"
        elif config.method != "gradient-free":
            how = f"{config.method} LoRA, {config.search}"
        if run.replay:
            self._print(f"resuming {run.folder} after {run.replay[-1].evaluations} evaluations")
        self._print(
            f"tuning {config.model} for {self.task}: {how}, seed {config.seed}, "
            f"budget {config.budget} evaluations; run folder {run.folder}"
        )
        if self.live:
            self.bar.start()
            self.bar_task = self.bar.add_task("", total=config.budget)

    def interrupted(self) -> None:
        """Say how to go on."""
        self.bar.stop()
        self._print("interrupted" + (f"; go on with: dfolora tune --resume {self.folder}" if self.folder else ""))

    def progress(self, state: Generation, best: Generation) -> None:
        """One generation more."""
        done = max(0, state.evaluations - self.replayed)
        rate = done / max(time.monotonic() - self.started_at, 1e-9)
        left = self.config.budget - state.evaluations
        losses = [loss for loss in state.losses if loss is not None]
        layer = "all" if state.layer is None else state.layer
        dev = best.dev["main"] if best.dev else math.nan
        loss = f"{min(losses, default=math.nan):.4f}" if state.losses else "-"  # the base model is no generation
        line = (
            f"sweep {state.sweep} layer {layer} loss {loss} dev best {dev:.1f} | "
            f"{state.evaluations}/{self.config.budget} evaluations, {rate:.1f}/s, "
            f"{_clock(left / rate) if rate else '?'} left"
        )
        if state.losses and not losses:
            self.all_bad += 1
            method = self.config.method
            if self.all_bad in (1, 10, 100, 1000):
                lower = {"gradient-free": "--sigma or --scale", "full-parameter": "--sigma or --lr"}.get(method, "--lr")
                self._print(f"warning: generation {state.generation}: every loss is NaN or infinite; lower {lower}?")
        if self.live:
            self.bar.update(self.bar_task, completed=state.evaluations, description=line)
        elif time.monotonic() - self.last_line > QUIET_SECONDS or left < self.config.generation_size:
            self.last_line = time.monotonic()
            self._print(line)

    def scores(self, scores: dict[str, Any]) -> None:
        """The table at the end, on standard output."""
        table = Table(title=f"{scores['task']}, seed {scores['seed']}, {scores['evaluations']} evaluations", box=None)
        for column in ("split", "examples", "metric", "zero-shot", "tuned", "change"):
            table.add_column(column, justify="left" if column in ("split", "metric") else "right")
        split = self.config.test_split
        for name, count, before, after in (
            ("dev", scores["examples"]["dev"], scores["dev_zero_shot"], scores["dev_tuned"]),
            (split, scores["examples"][split], scores["zero_shot"], scores["tuned"]),
        ):
            for metric in after:
                change = after[metric] - before[metric]
                table.add_row(
                    name, str(count), metric, f"{before[metric]:.2f}", f"{after[metric]:.2f}", f"{change:+.2f}"
                )
        Console(file=sys.stdout, emoji=False, markup=False).print(table)
        what = "adapter" if "adapter" in scores else "model_folder"
        print(f"{what.replace('_', ' ')}: {scores[what]}")

    def _print(self, text: str) -> None:
        self.console.print(text, highlight=False, markup=False, soft_wrap=True)


def _clock(seconds: float) -> str:
    minutes, second = divmod(round(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02d}:{second:02d}" if minutes >= 60 else f"{minutes}:{second:02d}"


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
