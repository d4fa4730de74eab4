"""The command ``dfolora`` in forked processes: torch is imported once, and what dies takes nothing with it."""

from __future__ import annotations

import contextlib
import faulthandler
import os
import signal
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass

# Before torch comes: one thread, so that a fork is a whole copy.
os.environ.update({"OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false", "HF_HUB_OFFLINE": "1"})

import torch

from dfolora import cli

GETTING_ON = (
    "forecast: ",
    "loading ",
    "measuring ",
    "scoring ",
    "resuming ",
    "tuning ",
    "sweep ",
    "note: ",
    "warning: ",
)
LIMIT = 300.0  # seconds after which a process counts as hanging


@dataclass(frozen=True)
class Ended:
    """How a process ended.

    Attributes:
        code: its exit code, or minus the signal that killed it.
        said: lines of standard error but for those that tell how a run gets on.
        seconds: how long it ran.
        hung: it was killed because it did not end.
    """

    code: int
    said: list[str]
    seconds: float
    hung: bool = False


class Process:
    """``dfolora ARGUMENTS`` in a fork of this process; what it prints is thrown away, its errors come by a pipe.

    Args:
        arguments: of the command.
        prepare: called in the fork before the command.
    """

    def __init__(self, arguments: Sequence[str], prepare: Callable[[], None] | None = None) -> None:
        if len(os.listdir("/proc/self/task")) > 1:
            raise RuntimeError("this process has several threads; a fork would have one of them")
        self.started, self.stopped, self._text = time.monotonic(), False, b""
        self._reader, writer = os.pipe()  # no file: the disk may be full
        sys.stdout.flush()
        sys.stderr.flush()
        self.number = os.fork()
        if self.number == 0:
            _child(list(arguments), writer, prepare)
        os.close(writer)
        os.set_blocking(self._reader, False)

    def send(self, what: signal.Signals) -> None:
        """Send a signal; nothing where the process has ended."""
        if not self.stopped:
            os.kill(self.number, what)  # a zombie until it is waited for: the number is still its own

    def wait(self, limit: float = LIMIT) -> Ended:
        """Wait until it ends, or kill it after ``limit`` seconds."""
        hung = False
        while (status := self._status()) is None:
            if time.monotonic() - self.started > limit and not hung:
                hung = True
                self.send(signal.SIGKILL)
            self._read()
            time.sleep(0.002)
        seconds = time.monotonic() - self.started
        code = os.waitstatus_to_exitcode(status)
        self._read()
        os.close(self._reader)
        text = self._text.decode("utf-8", errors="replace")
        return Ended(code, [line for line in text.splitlines() if not line.startswith(GETTING_ON)], seconds, hung)

    def runs(self, seconds: float) -> bool:
        """Whether it still runs after so many seconds from its start; returns at once where it does not."""
        while time.monotonic() - self.started < seconds:
            if self._ended():
                return False
            time.sleep(0.001)
        return not self._ended()

    def _read(self) -> None:
        with contextlib.suppress(BlockingIOError):
            while part := os.read(self._reader, 65536):
                self._text += part

    def _ended(self) -> bool:
        found = os.waitid(os.P_PID, self.number, os.WEXITED | os.WNOHANG | os.WNOWAIT)
        return found is not None

    def _status(self) -> int | None:
        number, status = os.waitpid(self.number, os.WNOHANG)
        self.stopped = number != 0
        return status if number else None


def _child(arguments: list[str], errors: int, prepare: Callable[[], None] | None) -> None:
    """What the fork does; it never returns."""
    code = 1
    try:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        os.dup2(errors, 2)
        faulthandler.enable()
        torch.set_num_threads(1)  # makes its pool anew, which does not bear that several threads do so at once
        if prepare is not None:
            prepare()
        code = cli.main(arguments)
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(code)


def warm(arguments: Sequence[str]) -> None:
    """Run a command here once, so that what it imports is there in every fork."""
    torch.set_num_threads(1)
    before = os.dup(1), os.dup(2)
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 1)
    os.dup2(nowhere, 2)
    handler = signal.getsignal(signal.SIGTERM)
    try:
        cli.main(list(arguments))
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os.dup2(before[0], 1)
        os.dup2(before[1], 2)
        signal.signal(signal.SIGTERM, handler)
        for number in (*before, nowhere):
            os.close(number)
