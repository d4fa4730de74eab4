"""Alarms: what a search would never get on from, each said once, in one line."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from dfolora.problems.answers import Texts

LEAST = 3  # generations in a row that make a stretch, where a sweep is shorter


class Alarms:
    """Watches the losses and answers of a run's generations.

    Args:
        sweep: generations of a sweep: as long as that must a thing go on to be worth a word.

    Attributes:
        waiting: what has not been said yet.
    """

    def __init__(self, sweep: int = 1) -> None:
        self.waiting: list[str] = []
        self._stretch = max(sweep, LEAST)
        self._in_a_row = {"equal": 0, "tied": 0, "truncated": 0}
        self._said: set[str] = set()

    def see(self, losses: Tensor, answers: Sequence[Texts] = ()) -> None:
        """Look at a generation.

        Args:
            losses: (P,) of its candidates.
            answers: what they answered, where answers are generated.
        """
        several = len(losses) > 1
        tied = several and bool((losses == losses[0]).all())
        equal = several and bool(answers) and all(found.texts == answers[0].texts for found in answers)
        truncated = bool(answers) and all(found.truncated for found in answers)
        for name, now in (("equal", equal), ("tied", tied), ("truncated", truncated)):
            self._in_a_row[name] = self._in_a_row[name] + 1 if now else 0
        stretch = self._stretch
        if self._in_a_row["equal"] >= stretch:
            self._say(
                "equal", f"no candidate of {stretch} generations has changed a single answer; raise sigma or scale?"
            )
        elif self._in_a_row["tied"] >= stretch:
            self._say(
                "tied", f"all candidates of {stretch} generations have the same loss; there is nothing to choose by"
            )
        if truncated:
            self._say("truncated", "every answer of a generation was cut off at new_tokens; raise it, or name a stop")

    def _say(self, name: str, text: str) -> None:
        if name not in self._said:
            self._said.add(name)
            self.waiting.append(text)
            if name == "equal":
                self._said.add("tied")  # which it implies

    def take(self) -> list[str]:
        """What has not been said yet; it counts as said now."""
        said, self.waiting = self.waiting, []
        return said
