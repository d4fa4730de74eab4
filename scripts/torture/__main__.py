"""Kills, full disks, second writers and damaged logs: does every run come out as if nothing had happened?

    python -m scripts.torture                          # a few of each, about a minute
    python -m scripts.torture --kills 100 --others 24 --table table.md

Runs of the embedded demo, of a few seconds each: every method, optimizer, subspace and thing to tune takes its turn.
Each is run once undisturbed. Then it is disturbed and gone on with until it is finished, and its log, weights,
predictions and scores have to be those of the undisturbed run, bit for bit; times and counts of forwards aside. A
process is killed at a random moment, or before a random change of its files, in start-up, steps, saving and resume. The
processes are forks of one that has torch imported. Exit code 1 if anything is not as it should be.
"""

from __future__ import annotations

import argparse
import random
import shutil
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

from scripts.forked import Process, warm
from scripts.torture.runs import CASES, Broken, Whole, told
from scripts.torture.trials import TRIALS, Changes, clear


class Torture:
    """Runs trials and counts.

    Args:
        work: folder for all runs.
        seed: of all that is drawn.

    Attributes:
        tried, broken: trials by name, and what went wrong.
        seen: by trial, what happened how often.
    """

    def __init__(self, work: Path, seed: int) -> None:
        self.work, self.draw = work, random.Random(seed)
        self.wholes: dict[str, Whole] = {}
        self.tried: Counter[str] = Counter()
        self.seen: dict[str, Counter[str]] = {name: Counter() for name in TRIALS}
        self.broken: list[str] = []
        self.cases: dict[str, set[str]] = {name: set() for name in TRIALS}

    def whole(self, case: str) -> Whole:
        """The undisturbed run of a case; it is run where it has not been yet."""
        if case not in self.wholes:
            place = self.work / "whole" / case.replace(", ", "-").replace(":", "-")
            clear(place)
            folder = place / "run"
            ended = Process([*CASES[case], "--output", str(folder)], Changes(folder)).wait()
            if ended.code != 0:
                raise Broken(f"undisturbed it ended with {told(ended)}")
            changes = int((place / "count").read_text())
            self.wholes[case] = Whole(CASES[case], folder, ended.seconds, changes)
        return self.wholes[case]

    def trial(self, name: str, case: str) -> None:
        """One trial of a case."""
        work = self.work / f"trial-{sum(self.tried.values())}"
        clear(work)
        self.tried[name] += 1
        self.cases[name].add(case)
        try:
            TRIALS[name](self.whole(case), work, self.draw, lambda what: self.seen[name].update([what]))
        except Broken as error:
            self.broken.append(f"{name}: {case}: {error}")
            print(self.broken[-1], file=sys.stderr, flush=True)
        else:
            shutil.rmtree(work)

    def table(self) -> str:
        """The counts in Markdown."""
        lines = ["| what | trials | kinds of run | wrong | what happened |", "|---|---|---|---|---|"]
        for name, tried in self.tried.items():
            wrong = sum(line.startswith(f"{name}: ") for line in self.broken)
            seen = self.seen[name]
            happened = ", ".join(f"{what} {count}" for what, count in seen.most_common())
            if name == "SIGKILL":
                happened = f"{seen.total()} kills: {happened}"
            lines.append(f"| {name} | {tried} | {len(self.cases[name])} | {wrong} | {happened} |")
        return "\n".join(lines) + "\n"


def main(arguments: list[str] | None = None) -> int:
    """Run it; 0 if every run came out as it should."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=6, help="runs that are killed, each up to three times")
    parser.add_argument("--others", type=int, default=2, help="trials of each other kind")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--minutes", type=float, default=60.0, help="no new trial after so many")
    parser.add_argument("--table", type=Path, help="file for the counts")
    parser.add_argument("--keep", type=Path, help="folder for the runs; nothing: one that is removed")
    asked = parser.parse_args(arguments)
    work = asked.keep or Path(tempfile.mkdtemp(prefix="torture-"))
    work.mkdir(parents=True, exist_ok=True)
    work.chmod(0o755)
    warm([*CASES["cma, pca"], "--output", str(work / "warm")])
    torture, started = Torture(work, asked.seed), time.monotonic()
    plan = [("SIGKILL", turn) for turn in range(asked.kills)]
    plan += [(name, turn) for turn in range(asked.others) for name in TRIALS if name != "SIGKILL"]
    most = {name: max(1, asked.kills if name == "SIGKILL" else asked.others) for name in TRIALS}
    plan.sort(key=lambda trial: trial[1] / most[trial[0]])  # all kinds side by side, should the time be over
    for number, (name, turn) in enumerate(plan):
        if time.monotonic() - started > 60 * asked.minutes:
            print(f"stopped after {number} of {len(plan)} trials: the time is over", file=sys.stderr)
            break
        cases = list(CASES)
        torture.trial(name, cases[(turn * (1 if name == "SIGKILL" else 5) + asked.seed) % len(cases)])
    print(torture.table(), end="")
    if asked.table:
        asked.table.write_text(torture.table(), encoding="utf-8")
    if not asked.keep and not torture.broken:
        shutil.rmtree(work, ignore_errors=True)
    elif torture.broken:
        print(f"what is wrong lies in {work}", file=sys.stderr)
    return 1 if torture.broken else 0


if __name__ == "__main__":
    sys.exit(main())
