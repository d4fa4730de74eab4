"""Random rewordings of the first texts: what an optimizer of texts has to beat."""

from __future__ import annotations

from dfolora.texts import operators
from dfolora.texts.optimizer import TextOptimizer


class RandomRewordings(TextOptimizer):
    """Each generation rewords the seeds, whatever the losses were."""

    def _ask(self) -> list[str]:
        if not self.known:
            return self.first()
        parents = [self.rng.choice(self.seeds) for _ in range(self.population)]
        return [found.text for found in self.vary([operators.rewording(text) for text in parents], parents)]
