"""A crew: so many workers, how to reach them, and how to hear from them. Ray's is in ``ray_crew.py``."""

from __future__ import annotations

from abc import ABC, abstractmethod

from dfolora.workers.messages import Order, Report


class Crew(ABC):
    """Starts workers, carries orders to them and reports back.

    Attributes:
        size: how many workers there are to be, numbered from 0.
    """

    size: int

    @abstractmethod
    def start(self, worker: int) -> None:
        """Begin to start a worker, in place of the one that had its number; its first report is ``Ready``."""

    @abstractmethod
    def send(self, worker: int, order: Order) -> None:
        """Give a worker that is ready, and has nothing else to do, an order."""

    @abstractmethod
    def reports(self) -> list[tuple[int, Report]]:
        """Wait a while for news, and return what there is: (worker, report), maybe none.

        Raises:
            UserError: no worker starts.
        """

    @abstractmethod
    def close(self) -> None:
        """Stop all workers."""
