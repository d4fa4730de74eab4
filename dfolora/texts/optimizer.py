"""The base class of what searches among texts: it asks for the losses of some, and is told them."""

from __future__ import annotations

import math
import random
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Annotated

from dfolora.chat import Chat, Message, Request
from dfolora.errors import UserError
from dfolora.texts import operators
from dfolora.texts.operators import Variation

REPLY_TOKENS = 160


class TextOptimizer(ABC):
    """Searches among texts by ``ask`` and ``tell``; keyword parameters of a subclass's constructor are its options.

    A text's loss is told once and then known: ``ask`` never names a text twice, and may name few or none. All that is
    drawn comes from the seed, and the model's replies from a cache, so that a search is repeated by telling it the same
    losses.

    Attributes:
        best, best_loss: the text with the lowest loss so far.
        known: text -> its loss, infinite where that was no number.
    """

    def __init__(
        self,
        chat: Chat,
        seeds: Sequence[str],
        seed: int = 0,
        *,
        population: Annotated[int, "texts of a generation"] = 10,
        evolve_temperature: Annotated[float, "temperature of the model's variations"] = 0.5,
    ) -> None:
        self.seeds = list(dict.fromkeys(text.strip() for text in seeds if text.strip()))
        if not self.seeds:
            raise UserError("seeds: there is no text to begin with")
        if population < self.least:
            raise UserError(f"population: {population} is too few for this optimizer; it takes at least {self.least}")
        self.chat = chat
        self.rng = random.Random(seed)
        self.population = population
        self.temperature = evolve_temperature
        self.best, self.best_loss = self.seeds[0], math.inf
        self.known: dict[str, float] = {}
        self._asked: list[str] | None = None

    least = 2
    """The smallest population that it works with."""

    def ask(self) -> list[str]:
        """The texts of the next generation whose losses are not known yet.

        Raises:
            UserError: the model cannot answer; ``CallLimit`` where its calls are used up, whereupon asking anew is
                possible.
        """
        if self._asked is not None:
            raise ValueError("tell the losses of the last texts before asking for more")
        state = self.rng.getstate()
        try:
            texts = self._ask()
        except BaseException:
            self.rng.setstate(state)
            raise
        self._asked = [text for text in dict.fromkeys(texts) if text not in self.known]
        return list(self._asked)

    def tell(self, losses: Sequence[float]) -> None:
        """Take the losses of what was asked, in its order; lower is better, NaN counts as infinite."""
        if self._asked is None or len(losses) != len(self._asked):
            raise ValueError(f"{len(losses)} losses for {len(self._asked or ())} texts")
        for text, loss in zip(self._asked, losses, strict=True):
            self.known[text] = math.inf if math.isnan(loss) else float(loss)
            if self.known[text] < self.best_loss:
                self.best, self.best_loss = text, self.known[text]
        self._asked = None
        self._tell()

    @abstractmethod
    def _ask(self) -> list[str]:
        """The next texts, those with known losses among them."""

    def _tell(self) -> None:  # noqa: B027 (an optimizer that learns nothing has nothing to do here)
        """Every text that was asked for is in ``known``."""

    def vary(self, said: Sequence[str], fallbacks: Sequence[str]) -> list[Variation]:
        """What the model makes of some requests, all at once; the fallback where a reply holds no text."""
        requests = []
        for text in said:
            seed = self.rng.randrange(2**31)
            messages = (Message("user", text),)
            requests.append(Request(messages, REPLY_TOKENS, self.temperature, seed=seed if self.temperature else None))
        replies = self.chat(requests)
        return [
            operators.read(reply.texts[0] if reply.texts else "", fallback)
            for reply, fallback in zip(replies, fallbacks, strict=True)
        ]

    def first(self) -> list[str]:
        """The texts to begin with: the seeds, and rewordings of them, up to the population."""
        texts = self.seeds[: self.population]
        parents = [self.seeds[k % len(self.seeds)] for k in range(self.population - len(texts))]
        return texts + [found.text for found in self.vary([operators.rewording(text) for text in parents], parents)]
