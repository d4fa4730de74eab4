"""EvoPrompt (arXiv 2309.08532): a genetic algorithm and differential evolution whose operators are a language model."""

from __future__ import annotations

import math
from abc import abstractmethod

from dfolora.texts import operators
from dfolora.texts.optimizer import TextOptimizer


class _Evolution(TextOptimizer):
    """Keeps a population of texts with known losses."""

    members: tuple[str, ...] = ()
    _born: tuple[str, ...] = ()

    def _ask(self) -> list[str]:
        self._born = tuple(self._children() if self.members else self.first())
        return list(self._born)

    @abstractmethod
    def _children(self) -> list[str]:
        """The texts that the members bring forth."""


class GeneticAlgorithm(_Evolution):
    """EvoPrompt-GA: two parents drawn by their losses, crossed and mutated in one call; the best of all stay."""

    def _children(self) -> list[str]:
        pairs = [self._parents() for _ in range(self.population)]
        said = [operators.crossed_and_mutated(*pair) for pair in pairs]
        return [found.text for found in self.vary(said, [pair[0] for pair in pairs])]

    def _parents(self) -> tuple[str, str]:
        """Two members, different ones where there are, drawn by how far their losses lie below the worst (a wheel)."""
        losses = [self.known[text] for text in self.members]
        finite = [loss for loss in losses if math.isfinite(loss)]
        worst, spread = max(finite, default=0.0), max(finite, default=0.0) - min(finite, default=0.0)
        # The worst has a tenth of the best one's share, so that no member is out of the draw.
        shares = [worst - loss + 0.1 * spread + 1e-9 if math.isfinite(loss) else 0.0 for loss in losses]
        shares = shares if any(shares) else [1.0] * len(shares)
        first = self.rng.choices(range(len(shares)), shares)[0]
        rest = [0.0 if k == first else share for k, share in enumerate(shares)]
        second = self.rng.choices(range(len(shares)), rest)[0] if any(rest) else first
        return self.members[first], self.members[second]

    def _tell(self) -> None:
        both = dict.fromkeys([*self.members, *self._born])
        self.members = tuple(sorted(both, key=lambda text: (self.known[text], len(text)))[: self.population])


class DifferentialEvolution(_Evolution):
    """EvoPrompt-DE: each member has a child of two donors, the best text and itself; the better one of both stays."""

    least = 3

    def _children(self) -> list[str]:
        said = []
        for k, base in enumerate(self.members):
            others = [text for j, text in enumerate(self.members) if j != k] or [base]
            first, second = self.rng.sample(others, 2) if len(others) > 1 else (others[0], base)
            said.append(operators.difference(first, second, self.best, base))
        return [found.text for found in self.vary(said, self.members)]

    def _tell(self) -> None:
        if not self.members:
            self.members = tuple(dict.fromkeys(self._born))
            return
        pairs = zip(self._born, self.members, strict=True)
        self.members = tuple(child if self.known[child] < self.known[base] else base for child, base in pairs)
