"""The command within a process that reads thousands of inputs: what is dear is done once, or not at all."""

from __future__ import annotations

import os
import resource
import signal
import sys
import traceback
from contextlib import ExitStack
from pathlib import Path
from typing import Any
from unittest.mock import patch

from dfolora import api, cli, scoring
from dfolora.chat.scripted import ScriptedChat
from dfolora.models import adapter, prompted
from dfolora.models import load as models
from dfolora.reasoning import opening as reasoning
from scripts.forked import GETTING_ON

SECONDS = 10  # of processor time, for an input of a few lines
MEMORY = 6 << 30  # bytes that an input may ask for beyond what torch has


class Accepted(BaseException):
    """The input was read and found good; what would follow is no longer about it."""


class Hang(BaseException):
    """It took too long."""


def scripted() -> None:
    """Let every question be answered by a rule in place of a model."""
    rule = lambda request: "So the answer is 5."  # noqa: E731

    def opened(settings: Any, folder: Any) -> ScriptedChat:
        chat = ScriptedChat(rule)
        chat.ledger.calls = folder.paid
        return chat

    reasoning.open_model = opened


class Inside:
    """Runs commands in this process, which is a fork. It reads models once and stops where an input is accepted."""

    def __init__(self) -> None:
        scripted()
        self._models: dict[tuple[Any, ...], Any] = {}
        self._open = models.open_model
        self._errors = os.memfd_create("errors")
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        os.dup2(self._errors, 2)
        limit = torch_bytes() + MEMORY
        resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
        signal.signal(signal.SIGPROF, _hang)

    def __call__(self, arguments: list[str], whole: bool) -> tuple[str, list[str]]:
        """Run a command.

        Args:
            arguments: of it.
            whole: go on where an input is accepted, to the end of the run.

        Returns:
            What came of it, ``accepted``, ``refused``, ``traceback`` or ``hang``, and lines of standard error.
        """
        os.ftruncate(self._errors, 0)
        os.lseek(self._errors, 0, os.SEEK_SET)
        signal.setitimer(signal.ITIMER_PROF, SECONDS)
        try:
            code = self._main(arguments, whole)
        except Accepted:
            code = 0
        except Hang:
            code = -1
            traceback.print_exc()
        except SystemExit as error:
            code = 0 if error.code in (0, None) else 1
        except BaseException:
            code = 1
            traceback.print_exc()
        finally:
            signal.setitimer(signal.ITIMER_PROF, 0)
        sys.stderr.flush()
        size = os.fstat(self._errors).st_size
        text = os.pread(self._errors, size, 0).decode("utf-8", "replace")
        said = [line for line in text.split("\n") if line and not line.startswith(GETTING_ON)]
        if code == 2 and len(said) == 1 and said[0].startswith("dfolora: ") and len(said[0]) < 3000:
            return "refused", said
        if code == -1:
            return "hang", said
        return ("accepted" if code == 0 and not any("Traceback" in line for line in said) else "traceback"), said

    def _main(self, arguments: list[str], whole: bool) -> int:
        with ExitStack() as changes:
            if arguments[0] != "prompt":
                changes.enter_context(patch.object(models, "open_model", self._opened))
            if not whole and arguments[0] != "prompt":
                if "--resume" in arguments or len(arguments) < 5:  # what is in a folder has to meet the model
                    changes.enter_context(patch.object(scoring, "predict", _accept))
                else:
                    changes.enter_context(patch.object(models.LanguageModel, "read_weights", _accept))
                    changes.enter_context(patch.object(api, "open_method", _accept))
            return cli.main(arguments)

    def _opened(self, name: str, **options: Any) -> Any:
        key = (name, *sorted(options.items()))
        if key not in self._models:
            self._models[key] = self._open(name, **options)
            if self._models[key].name == name and len(self._models) < 8:
                self._models[key].read_weights()
        found = self._models[key]
        adapter.detach(found)
        prompted.detach(found.model)
        return found


def torch_bytes() -> int:
    """Address space that this process has now."""
    return int(Path("/proc/self/statm").read_text().split()[0]) * os.sysconf("SC_PAGE_SIZE")


def _accept(*arguments: Any, **options: Any) -> Any:
    raise Accepted


def _hang(number: int, frame: Any) -> None:
    raise Hang
