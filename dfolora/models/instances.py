"""What a gate knows of a text: a few whitened principal features of the mean of its words' embeddings."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor


class Instances:
    """Numbers texts and keeps their features.

    phi(x) = U (xbar - mu): xbar is the mean of the text's word embeddings, padding and soft tokens left out; mu and the
    principal axes U, scaled so that each feature has variance 1, are those of the texts that were there when ``fit``
    was called. No label is used. (Instance-aware Prompt Learning, arXiv 2201.07126, scores every word against every
    prompt token and takes the mean; that is a function of xbar alone.)

    Attributes:
        center: mu (d,) float32; axes: U (k, d) float32. None before they are fitted or loaded: all features are 0.
    """

    def __init__(self, count: int, table: Callable[[], Tensor]) -> None:
        """Start without texts.

        Args:
            count: k, features at most.
            table: gives the embeddings (V, d), once the weights are there.
        """
        self.count = count
        self.center: Tensor | None = None
        self.axes: Tensor | None = None
        self._table = table
        self._numbers: dict[tuple[int, ...], int] = {}
        self._means: list[Tensor] = []  # of texts that came before the features were known
        self._features: list[Tensor] = []
        self._stacked: Tensor | None = None

    def number(self, ids: Sequence[int]) -> int:
        """The number of a text, from 1; the same for the same words."""
        key = tuple(ids)
        if key not in self._numbers:
            self._numbers[key] = len(self._numbers) + 1
            mean = mean_embedding(self._table(), key)
            if self.axes is None:
                self._means.append(mean)
            else:
                self._features.append(self._phi(mean))
            self._stacked = None
        return self._numbers[key]

    def fit(self) -> None:
        """Take mu and U from the texts that have a number by now."""
        means = torch.stack(self._means).double()
        center = means.mean(0)
        _, sizes, axes = torch.linalg.svd(means - center, full_matrices=False)
        spread = sizes / max(1, len(means) - 1) ** 0.5
        count = min(self.count, int((spread > 1e-6 * spread[0]).sum()))
        axes, spread = axes[:count], spread[:count]
        sign = axes.gather(1, axes.abs().argmax(1, keepdim=True)).sign()
        self.use(center.float(), (axes * sign / spread[:, None]).float())

    def use(self, center: Tensor, axes: Tensor) -> None:
        """Take mu (d,) and U (k, d) from a file."""
        self.center, self.axes, self.count = center.cpu().contiguous(), axes.cpu().contiguous(), len(axes)
        self._features += [self._phi(mean) for mean in self._means]
        self._means, self._stacked = [], None

    @property
    def fitted(self) -> tuple[Tensor, Tensor]:
        """mu and U, which are there."""
        assert self.center is not None, "features come after axes"
        assert self.axes is not None, "features come after axes"
        return self.center, self.axes

    def features(self, device: torch.device) -> Tensor:
        """(N + 1, k) float32: the features of text i in row i; row 0, for no text, is 0."""
        if self._stacked is None or self._stacked.device != device:
            zero = torch.zeros(1, self.count)
            known = torch.stack(self._features) if self._features else torch.zeros(len(self._numbers), self.count)
            self._stacked = torch.cat([zero, known]).to(device)
        return self._stacked

    def _phi(self, mean: Tensor) -> Tensor:
        center, axes = self.fitted
        return axes @ (mean - center)


def mean_embedding(table: Tensor, ids: Sequence[int]) -> Tensor:
    """(d,) float32 on the CPU: the mean of some words' embeddings."""
    return table[torch.tensor(ids, device=table.device)].detach().float().mean(0).cpu()
