"""A chat for tests that counts what it is asked, and can be interrupted at one of its calls."""

from __future__ import annotations

from abc import abstractmethod

from dfolora.chat import Request, ScriptedChat


class CountedChat(ScriptedChat):
    """Answers by ``reply``; the call number ``stop_at`` is interrupted as by Ctrl-C.

    Attributes:
        paid: calls so far, that one included.
    """

    def __init__(self, stop_at: int = 0) -> None:
        super().__init__(self._counted)
        self.paid, self.stop_at = 0, stop_at

    @abstractmethod
    def reply(self, request: Request) -> str:
        """What it says."""

    def _counted(self, request: Request) -> str:
        self.paid += 1
        if self.paid == self.stop_at:
            raise KeyboardInterrupt
        return self.reply(request)
