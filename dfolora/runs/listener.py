"""Listeners: objects that are told how a run gets on."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dfolora.log import Line

if TYPE_CHECKING:
    from dfolora.runs.folder import Run


class Listener:
    """Is told how a run gets on, and ignores it. Subclass it for a display or a tracker of your own."""

    def stage(self, text: str) -> None:
        """Something that takes a while begins: loading, measuring, scoring."""

    def started(self, run: Run, remark: str = "") -> None:
        """The run folder exists and the search begins; ``remark`` is what the user should know of it, if anything."""

    def alarm(self, text: str, line: Line) -> None:
        """Something is wrong with the candidates up to a generation; each thing is said once."""

    def progress(self, line: Line, best: Line) -> None:
        """A step is in the log; ``best`` is the line whose adapter the dev set likes best so far."""
