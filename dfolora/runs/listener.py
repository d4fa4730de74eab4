"""Listeners: objects that are told how a run gets on."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from dfolora.errors import UserError
from dfolora.log import Line

if TYPE_CHECKING:
    from dfolora.runs.folder import Run
    from dfolora.runs.forecast import Forecast


class Listener:
    """Is told how a run gets on, and ignores it. Subclass it for a display or a tracker of your own.

    ``started`` comes before every ``progress``; ``closed`` comes last, also of a run that fails or is interrupted.
    """

    def stage(self, text: str) -> None:
        """Something that takes a while begins: loading, measuring, scoring."""

    def started(self, run: Run, remark: str = "") -> None:
        """The run folder exists and the search begins; ``remark`` is what the user should know of it, if anything."""

    def forecast(self, forecast: Forecast) -> None:
        """What the rest of the run is going to cost; not of a run that is over in a few seconds."""

    def progress(self, line: Line, best: Line) -> str | None:
        """A step is in the log.

        Args:
            line: of the log; ``line.dev`` is the look at the dev set after it, if there was one.
            best: the line whose adapter the dev set likes best so far.

        Returns:
            Why the run should end here, in a few words; None or '': it goes on.
        """
        return None

    def ended(self, line: Line) -> None:
        """The search has ended before its budget was spent; ``line.ended`` says why."""

    def finished(self, run: Run) -> None:
        """The test set is scored and everything saved; ``run.scores`` has the result."""

    def closed(self) -> None:
        """Nothing more comes, whether or not the run has finished: close files."""


class Listeners(Listener):
    """Several listeners as one, each told of everything in turn."""

    def __init__(self, listeners: Sequence[Listener]) -> None:
        self.listeners = list(listeners)

    def stage(self, text: str) -> None:
        for each in self.listeners:
            each.stage(text)

    def started(self, run: Run, remark: str = "") -> None:
        for each in self.listeners:
            each.started(run, remark)

    def forecast(self, forecast: Forecast) -> None:
        for each in self.listeners:
            each.forecast(forecast)

    def progress(self, line: Line, best: Line) -> str | None:
        reasons = [each.progress(line, best) for each in self.listeners]
        return next((reason for reason in reasons if reason), None)

    def ended(self, line: Line) -> None:
        for each in self.listeners:
            each.ended(line)

    def finished(self, run: Run) -> None:
        for each in self.listeners:
            each.finished(run)

    def closed(self) -> None:
        for each in self.listeners:
            each.closed()


def one_listener(given: Any) -> Listener:
    """What was given as ``listener`` as one listener: nothing, one, or several.

    Raises:
        UserError: something else.
    """
    several = [given] if isinstance(given, Listener) else given or ()
    if not isinstance(several, (list, tuple)) or not all(isinstance(each, Listener) for each in several):
        raise UserError(f"listener: {given!r} is no dfolora.Listener, nor a list of them")
    return several[0] if len(several) == 1 else Listeners(several)
