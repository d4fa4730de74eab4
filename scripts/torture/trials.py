"""What is done to a run, each way a function: it raises ``Broken`` where the run does not come out as it should."""

from __future__ import annotations

import ctypes
import os
import random
import resource
import shutil
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from scripts.forked import Ended, Process
from scripts.torture.runs import Broken, Whole, content, finish, go_on, phase, refused, same, stopped, told


class Changes:
    """In a fork: counts what is done to files below a folder, and kills the process before one of them.

    Args:
        place: the folder.
        last: number of the change before which to kill; None: count, and write the number into a file
            ``count`` beside it.
    """

    def __init__(self, place: Path, last: int | None = None) -> None:
        self.place, self.last, self.count = str(place), last, 0

    def __call__(self) -> None:
        sys.addaudithook(self._see)

    def _see(self, event: str, arguments: tuple[Any, ...]) -> None:
        if event == "open":
            path, mode, flags = arguments
            writes = bool(flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT)) if isinstance(flags, int) else "w" in mode
        else:
            path, writes = (
                arguments[0] if arguments else "",
                event in ("os.rename", "os.remove", "os.mkdir", "os.rmdir"),
            )
        if not writes or not str(path).startswith(self.place):
            return
        self.count += 1
        if self.last is None:
            Path(self.place).with_name("count").write_text(str(self.count))
        elif self.count >= self.last:
            os.kill(os.getpid(), signal.SIGKILL)


def obey_modes() -> None:
    """In a fork: let modes of files hold for root, too, without the capabilities 1 to 3 (DAC_OVERRIDE to FOWNER)."""
    libc = ctypes.CDLL(None, use_errno=True)
    version, sets = (ctypes.c_uint32 * 2)(0x20080522, 0), (ctypes.c_uint32 * 6)()
    if libc.capget(version, sets) == 0:
        sets[0] &= ~0b1110
        libc.capset(version, sets)


def kills(whole: Whole, work: Path, draw: random.Random, say: Callable[[str], None]) -> None:
    """Kill a run one to three times, at random moments and at random changes of its files, then let it finish."""
    folder = work / "run"
    for _ in range(draw.choice((1, 1, 2, 3))):
        if (folder / "scores.json").is_file():
            break
        arguments = go_on(whole.flags, folder)
        if draw.random() < 0.5:
            process = Process(arguments)
            if process.runs(draw.uniform(0, 1.05) * whole.seconds):
                process.send(signal.SIGKILL)
            ended = process.wait()
        else:
            last = draw.randint(1, whole.changes)
            ended = Process(arguments, Changes(folder, last)).wait()
        if ended.code == -signal.SIGKILL:
            say(phase(folder))
        elif ended.code != 0:
            raise Broken(f"before it was killed it ended with {told(ended)}")
    finish(whole.flags, folder)
    same(whole.folder, folder)
    _nothing_left(folder)


def signals(whole: Whole, work: Path, draw: random.Random, say: Callable[[str], None]) -> None:
    """SIGTERM or SIGINT at a random moment: 143 or 130, no traceback, and the run goes on."""
    folder, sent = work / "run", draw.choice((signal.SIGTERM, signal.SIGINT))
    process = Process(go_on(whole.flags, folder))
    if process.runs(draw.uniform(0.02, 1.0) * whole.seconds):
        process.send(sent)
    ended = process.wait()
    if ended.code == 0:
        say("was finished")
    elif ended.code != {signal.SIGTERM: 143, signal.SIGINT: 130}[sent] and ended.code != -sent:
        raise Broken(f"{sent.name} ended it with {told(ended)}")
    elif any("Traceback" in line for line in ended.said):
        raise Broken(f"{sent.name} gave a traceback: {told(ended)}")
    else:
        say(f"{sent.name} in {phase(folder)}")
    finish(whole.flags, folder)
    same(whole.folder, folder)


def full_disk(whole: Whole, work: Path, draw: random.Random, say: Callable[[str], None]) -> None:
    """No file may grow beyond a random size: one line, and the run goes on once there is room."""
    folder = work / "run"
    largest = max(len(data) for data in content(whole.folder).values())
    size = draw.choice((draw.randint(0, 4000), draw.randint(0, 2 * largest)))

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))

    ended = Process(go_on(whole.flags, folder), limit).wait()
    if ended.code == 0:
        say("had room")
    else:
        _one_line(ended, "a full disk")
        say(phase(folder))
    finish(whole.flags, folder)
    same(whole.folder, folder)
    _nothing_left(folder)


def read_only(whole: Whole, work: Path, draw: random.Random, say: Callable[[str], None]) -> None:
    """A folder that cannot be written, for a new run or to go on with one: one line."""
    folder = work / "run"
    begun = draw.random() < 0.5
    if begun:
        stopped(whole.folder, folder)
    before = content(work)
    _walk(work, writable=False)

    try:
        ended = Process(go_on(whole.flags, folder), obey_modes).wait()
    finally:
        _walk(work, writable=True)
    refused(ended)
    if content(work) != before:
        raise Broken("files have changed")
    say("to go on" if begun else "a new run")
    finish(whole.flags, folder)
    same(whole.folder, folder)


def two_writers(whole: Whole, work: Path, draw: random.Random, say: Callable[[str], None]) -> None:
    """A second process for the same folder, at a random moment: one of them is refused, the other finishes."""
    folder = work / "run"
    first = Process(go_on(whole.flags, folder))
    first.runs(draw.uniform(0, 0.9) * whole.seconds)
    second = Process(go_on(whole.flags, folder))
    ends = [first.wait(), second.wait()]
    if ends[0].code == ends[1].code == 0:
        # Only where the first had finished before the second looked, which then began anew; never both.
        raise Broken("both say that they have finished")
    winners = [each for each in ends if each.code == 0]
    if len(winners) != 1:
        raise Broken(f"none finished: {told(ends[0])}; {told(ends[1])}")
    refused(next(each for each in ends if each.code != 0))
    say("the first finished" if ends[0].code == 0 else "the second finished")
    same(whole.folder, folder)
    _nothing_left(folder)


def edits(whole: Whole, work: Path, draw: random.Random, say: Callable[[str], None]) -> None:
    """A log that was torn, edited or reordered: refused in one line and nothing changes, or it ends as it should."""
    folder = work / "run"
    stopped(whole.folder, folder)
    log = folder / "log.jsonl"
    name = draw.choice(sorted(EDITS))
    log.write_bytes(EDITS[name](log.read_bytes(), draw))
    before = content(folder)
    ended = Process(["tune", "--resume", str(folder)]).wait()
    if ended.code == 0:
        same(whole.folder, folder)
        say(f"{name}: healed")
        return
    refused(ended)
    if content(folder) != before:
        raise Broken(f"{name}: refused, but files have changed")
    if name == "torn":
        raise Broken(f"a torn log was refused: {ended.said[0]}")
    say(f"{name}: refused")


def _torn(data: bytes, draw: random.Random) -> bytes:
    return data[: draw.randrange(len(data))]


def _swapped(data: bytes, draw: random.Random) -> bytes:
    lines = data.splitlines(keepends=True)
    at = draw.randrange(len(lines) - 1)
    lines[at], lines[at + 1] = lines[at + 1], lines[at]
    return b"".join(lines)


def _doubled(data: bytes, draw: random.Random) -> bytes:
    lines = data.splitlines(keepends=True)
    at = draw.randrange(len(lines))
    return b"".join([*lines[: at + 1], lines[at], *lines[at + 1 :]])


def _without(data: bytes, draw: random.Random) -> bytes:
    lines = data.splitlines(keepends=True)
    del lines[draw.randrange(len(lines))]
    return b"".join(lines)


def _digit(data: bytes, draw: random.Random) -> bytes:
    places = [at for at, byte in enumerate(data) if chr(byte).isdigit()]
    at = draw.choice(places)
    other = draw.choice([digit for digit in b"0123456789" if digit != data[at]])
    return data[:at] + bytes([other]) + data[at + 1 :]


def _byte(data: bytes, draw: random.Random) -> bytes:
    at = draw.randrange(len(data))
    return data[:at] + bytes([draw.randrange(256)]) + data[at + 1 :]


def _more(data: bytes, draw: random.Random) -> bytes:
    return data + draw.choice((b"{}\n", b"null\n", b"\n", b"nonsense", b"\xff\xfe\n", b"[" * 5000 + b"\n"))


EDITS: dict[str, Callable[[bytes, random.Random], bytes]] = {
    "torn": _torn, "swapped lines": _swapped, "doubled line": _doubled, "missing line": _without,
    "another digit": _digit, "another byte": _byte, "something behind it": _more,
}  # fmt: skip


def _one_line(ended: Ended, what: str) -> None:
    try:
        refused(ended)
    except Broken as error:
        raise Broken(f"{what}: {error}") from None


def _nothing_left(folder: Path) -> None:
    left = [path.name for path in folder.parent.glob("*partial*")] + [p.name for p in folder.rglob("*partial*")]
    if left:
        raise Broken(f"left behind: {', '.join(left)}")


def _walk(folder: Path, writable: bool) -> None:
    for path in [folder, *folder.rglob("*")]:
        path.chmod((0o755 if writable else 0o555) if path.is_dir() else (0o644 if writable else 0o444))


TRIALS: dict[str, Callable[[Whole, Path, random.Random, Callable[[str], None]], None]] = {
    "SIGKILL": kills, "SIGTERM, SIGINT": signals, "full disk": full_disk, "read-only folder": read_only,
    "two writers": two_writers, "damaged log": edits,
}  # fmt: skip


def clear(work: Path) -> None:
    """An empty folder."""
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir(parents=True)
