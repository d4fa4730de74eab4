"""Malformed inputs by the thousand: each is read, or refused in one line with exit code 2, and leaves nothing.

    python -m scripts.fuzz                             # 300 inputs
    python -m scripts.fuzz --count 10000 --seed 1 --table table.md
    python -m scripts.fuzz --only adapters --start 4711 --count 1 --show

Good files and options are spoiled at random: bytes, lines, JSON values, numbers in tensors, words on the command line.
The command runs in a fork of this process with a model that is read once. What is found good stops where the model
would be asked, but for one input in forty, which runs to its end. Wrong is: a traceback, more than one line, another
exit code, more than 10 seconds of processor time or 6 GiB of memory, a refused folder that has changed, a folder half
made.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import select
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from scripts.forked import warm
from scripts.fuzz.inside import Inside
from scripts.fuzz.kinds import KINDS, MODEL, NEED_RUNS, Good, prepare
from scripts.torture.runs import content

WHOLE = 40  # one accepted input in so many runs to its end
STUCK = 120.0  # seconds of silence after which a fork is killed: it is stuck where Python cannot stop it


def one(inside: Inside, good: Good, kind: str, seed: int, index: int, work: Path) -> tuple[str, list[str]]:
    """Make one input, run it, look at what it left; what came of it, and lines that tell."""
    draw = random.Random(f"{seed} {kind} {index}")
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir()
    arguments = KINDS[kind](good, work, draw)
    output = work / "out"
    if "--resume" not in arguments and arguments[0] != "evaluate":
        arguments += ["--output", str(output)]
    before = content(work)
    os.chdir(work)
    found, said = inside(arguments, draw.randrange(WHOLE) == 0)
    shown = " ".join(map(ascii, arguments))[:600]
    after = content(work)
    if found == "refused":
        changed = [name for name in {*before, *after} if before.get(name) != after.get(name)]
        if any(not name.startswith("out/") for name in changed):
            return "changed", [shown, *said, *changed[:5]]
        if output.exists() and not {"config.yaml", "environment.json"} <= {name.name for name in output.iterdir()}:
            return "half made", [shown, *said, *changed[:5]]
    if any(".partial" in name for name in {*after} - {*before}):
        return "half made", [shown, *said, *sorted(after)[:5]]
    return found, [shown, *said[:1], *said[1:][-12:]]


def many(good: Good, plan: list[tuple[str, int]], seed: int, work: Path) -> Iterator[tuple[str, int, str, list[str]]]:
    """Run all inputs of a plan in forks; one that dies or is stuck is an input of its own kind of wrong."""
    at = 0
    while at < len(plan):
        reader, writer = os.pipe()
        number = os.fork()
        if number == 0:
            _child(good, plan[at : at + 500], seed, work, writer)
        os.close(writer)
        last = min(at + 500, len(plan))
        try:
            with os.fdopen(reader, "rb", buffering=0) as lines:
                while at < last:
                    line = lines.readline() if select.select([lines], [], [], STUCK)[0] else None
                    found, said = json.loads(line) if line else ("hang" if line is None else "died", [])
                    yield (*plan[at], found, said)
                    at += 1
                    if not line:
                        break
        finally:
            os.kill(number, signal.SIGKILL)
            os.waitpid(number, 0)


def _child(good: Good, plan: list[tuple[str, int]], seed: int, work: Path, writer: int) -> None:
    try:
        inside = Inside()
        for kind, index in plan:
            line = json.dumps(one(inside, good, kind, seed, index, work)) + "\n"
            os.write(writer, line.encode())
    except BaseException:
        line = json.dumps(("the fuzz itself failed", traceback.format_exc().splitlines()[-12:])) + "\n"
        os.write(writer, line.encode())
    finally:
        os._exit(0)


def table(counts: dict[str, Counter[str]]) -> str:
    """The counts in Markdown."""
    kinds = sorted({what for counter in counts.values() for what in counter} - {"refused", "accepted"})
    wrong = kinds or ["wrong"]
    lines = [f"| what | inputs | read | refused | {' | '.join(wrong)} |", "|---" * (4 + len(wrong)) + "|"]
    total: Counter[str] = Counter()
    for counter in counts.values():
        total.update(counter)
    for name, counter in {**counts, "all": total}.items():
        cells = [counter.total(), counter["accepted"], counter["refused"], *(counter[what] for what in wrong)]
        lines.append(f"| {name} | {' | '.join(map(str, cells))} |")
    return "\n".join(lines) + "\n"


def main(arguments: list[str] | None = None) -> int:
    """Run it; 0 if nothing is wrong."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=300, help="inputs, shared out among the kinds")
    parser.add_argument("--start", type=int, default=0, help="number of the first input of each kind")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--minutes", type=float, default=60.0, help="no new input after so many")
    parser.add_argument("--only", choices=sorted(KINDS), help="one kind of input")
    parser.add_argument("--show", action="store_true", help="print every input and what came of it")
    parser.add_argument("--table", type=Path, help="file for the counts")
    asked = parser.parse_args(arguments)
    place = Path(tempfile.mkdtemp(prefix="fuzz-"))
    warm(["evaluate", *MODEL, "--task", "demo/sentiment", "--split", "dev", "--shots", "2"])
    kinds = [asked.only] if asked.only else list(KINDS)
    good = prepare(place, NEED_RUNS.isdisjoint(kinds))
    plan = [(kinds[n % len(kinds)], asked.start + n // len(kinds)) for n in range(asked.count)]
    counts: dict[str, Counter[str]] = {kind: Counter() for kind in kinds}
    started = time.monotonic()
    for kind, index, found, said in many(good, plan, asked.seed, place / "work"):
        counts[kind][found] += 1
        if (done := sum(map(Counter.total, counts.values()))) % 200 == 0:
            print(f"{done} of {asked.count}, {time.monotonic() - started:.0f} s", file=sys.stderr, flush=True)
        if time.monotonic() - started > 60 * asked.minutes:
            print("stopped: the time is over", file=sys.stderr)
            break
        if asked.show or found not in ("accepted", "refused"):
            print(f"{kind} {index}: {found}", *said, sep="\n    ", file=sys.stderr, flush=True)
    print(table(counts), end="")
    print(f"{sum(map(Counter.total, counts.values()))} inputs in {time.monotonic() - started:.0f} s, seed {asked.seed}")
    if asked.table:
        asked.table.write_text(table(counts), encoding="utf-8")
    shutil.rmtree(place, ignore_errors=True)
    return 0 if all(set(counter) <= {"accepted", "refused"} for counter in counts.values()) else 1


if __name__ == "__main__":
    sys.exit(main())
