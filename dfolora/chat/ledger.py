"""What was asked and what it cost, and the cap on it."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field

from dfolora.errors import UserError


class CallLimit(UserError):
    """The next call would be one more than allowed. All that was answered before it is in the cache."""


@dataclass
class Ledger:
    """Counts calls and tokens; threads may share it.

    Attributes:
        max_calls: most calls; None: no limit.
        calls: those that were made, failed ones that gave no reply left out.
        prompt_tokens, completion_tokens: of their replies, as far as the model said.
        cached: requests that the cache answered, which are no calls.
    """

    max_calls: int | None = None
    calls: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    cached: int = 0
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False, compare=False)

    def __post_init__(self) -> None:
        if self.max_calls is not None and self.max_calls < 1:
            raise UserError(f"max_calls: {self.max_calls} allows no call; it takes at least 1, or nothing for no limit")

    def take(self) -> None:
        """Book a call that is about to be made.

        Raises:
            CallLimit: there is none left.
        """
        with self._lock:
            if self.max_calls is not None and self.calls >= self.max_calls:
                raise CallLimit(
                    f"max_calls: all {self.max_calls} calls are used up; the replies so far are in the cache, and the "
                    "same command with a larger number goes on from there"
                )
            self.calls += 1

    def give_back(self) -> None:
        """Take a call off again that gave no reply."""
        with self._lock:
            self.calls -= 1

    def book(self, prompt_tokens: int | None, completion_tokens: int | None) -> None:
        """Add the tokens of a reply; None: the model did not say."""
        with self._lock:
            self.prompt_tokens += prompt_tokens or 0
            self.completion_tokens += completion_tokens or 0

    def replay(self) -> None:
        """Book a request that the cache answered."""
        with self._lock:
            self.cached += 1
