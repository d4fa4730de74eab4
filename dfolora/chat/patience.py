"""How long to wait before a call that failed is made again."""

from __future__ import annotations

import email.utils
import random
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timezone

_LONGEST = 600.0  # seconds that a server may ask to wait; one that asks for more will not answer today


@dataclass(frozen=True)
class Patience:
    """Waits 1, 2, 4, ... seconds, each between half and all of it by chance, so that not all callers come back at once.

    Attributes:
        attempts: most attempts of a call, the first one included.
        first, longest: of what is waited without advice, in seconds.
        draw: gives a number from 0 to 1.
        now: the time in seconds since 1970, for a date in ``Retry-After``.
        sleep: waits some seconds in place of the event that ends all waiting; for tests.
    """

    attempts: int = 6
    first: float = 1.0
    longest: float = 60.0
    draw: Callable[[], float] = random.random
    now: Callable[[], float] = time.time
    sleep: Callable[[float], None] | None = None

    def wait(self, failed: int, retry_after: str | None) -> float | None:
        """Seconds to wait before the next attempt; None: it is no use.

        Args:
            failed: attempts so far.
            retry_after: what the server says, in seconds or as a date (RFC 9110, 10.2.3); waited in full, and a little.
        """
        if failed >= self.attempts:
            return None
        advised = self._seconds(retry_after)
        if advised is None:
            return min(self.longest, self.first * 2 ** (failed - 1)) * (0.5 + 0.5 * self.draw())
        return advised + self.first * self.draw() if advised <= _LONGEST else None

    def _seconds(self, retry_after: str | None) -> float | None:
        if not retry_after:
            return None
        try:
            seconds = float(retry_after)
        except ValueError:
            try:
                date = email.utils.parsedate_to_datetime(retry_after)
            except ValueError:
                return None
            seconds = date.replace(tzinfo=date.tzinfo or timezone.utc).timestamp() - self.now()
        return max(0.0, seconds) if seconds == seconds else None
