"""Token ids that say more than a word: soft tokens, which stand before a text, and which text a token belongs to.

A model's own code sees nothing but longer texts, so that masks, positions, caches and whatever the engine saves work as
they do for words. Only the look-up of embeddings knows: ids from the vocabulary's size on have no word.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class SoftTokens:
    """How soft tokens, and the numbers of texts, are written into token ids.

    Id = number * (vocabulary + count) + token; tokens from ``vocabulary`` on are the soft ones.

    Attributes:
        vocabulary: how many words have an embedding.
        count: m, soft tokens before a text.
        everywhere: whether every token of a text, and not only its soft ones, carries the text's number.
    """

    vocabulary: int
    count: int
    everywhere: bool = False

    @property
    def step(self) -> int:
        """How far apart the same token of two texts lies."""
        return self.vocabulary + self.count

    def before(self, ids: Sequence[int], number: int = 0) -> list[int]:
        """A text's ids behind the soft tokens; ``number`` is the text's, from 1, or 0 where none is needed."""
        first = number * self.step
        soft = range(first + self.vocabulary, first + self.step)
        return [*soft, *self.marked(ids, number)]

    def marked(self, ids: Sequence[int], number: int) -> list[int]:
        """The ids of a text, with its number where every token carries it."""
        return [token + number * self.step for token in ids] if self.everywhere else list(ids)

    def split(self, ids: Tensor) -> tuple[Tensor, Tensor]:
        """Tokens, soft ones from ``vocabulary`` on, and numbers of texts; of the shape of ``ids``, int64."""
        return ids % self.step, ids // self.step
