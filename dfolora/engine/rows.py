"""What the engine runs: tokenised sequences, where each one is read, and how readings become class scores."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Choices:
    """Several choices of one example in one row (see ``packing``): which answer token is read where, and for whom.

    Attributes:
        at: (R, K) int64: for each answer token, which of the row's ``positions`` predicts it.
        choice: (R, K) int64: which of the row's S choices it belongs to.
        classes: (R, S) int64: the class that each choice speaks for; -1 where a row has fewer.
    """

    at: Tensor
    choice: Tensor
    classes: Tensor

    def each(self, change: Callable[[Tensor], Tensor]) -> Choices:
        return Choices(change(self.at), change(self.choice), change(self.classes))


@dataclass(frozen=True)
class Rows:
    """R sequences of at most T tokens and what is read from each.

    One of three readings, by the model's kind and the task:

    - label words (``columns``): the logits of the C label tokens at the one answer position;
    - choices (``targets``): the mean log-probability of the K answer tokens of a row, over the whole vocabulary; where
      a row holds several choices (``choices``), that of each;
    - sentences (``sentences``): the pooled vector; class scores are cosines with the vectors of the label rows, times
      ``scale``. A label row that belongs to no example is that of a class, for all examples; others are choices.

    Attributes:
        inputs: the model's own arguments, each (R, T) or for a decoder (R, T'), padded on the right; of packed rows
            also ``segments``, from which ``packing.model_inputs`` makes an attention mask.
        positions: (R, K) int64: where the answer tokens are predicted (in the decoder, if there is one); unused by
            sentences. With ``choices`` (R, U), each place once.
        columns: (C,) int64 label tokens, or None.
        targets: (R, K) int64 answer tokens, -100 where a row has fewer than K; or None.
        owner: (R, 2) int64: the example and the class or choice that a row speaks for; label rows have example -1,
            texts and rows of several choices have class -1.
        classes: (N,) int64 number of classes of each example; scores past it are -inf.
        sentences: whether pooled vectors are read.
        scale: factor on cosines.
        pooling: ``mean`` or ``cls``: what makes a vector of a sentence's hidden states.
        choices: of packed rows, see ``Choices``; None: one row a choice.
        leading: positions at the start of a sentence that are not pooled, for they hold a soft prompt.
    """

    inputs: dict[str, Tensor]
    positions: Tensor
    owner: Tensor
    classes: Tensor
    columns: Tensor | None = None
    targets: Tensor | None = None
    sentences: bool = False
    scale: float = 20.0
    pooling: str = "mean"
    choices: Choices | None = None
    leading: int = 0

    @property
    def count(self) -> int:
        return int(self.owner.shape[0])

    @property
    def lengths(self) -> Tensor:
        """(R,) real tokens per row, decoder included."""
        total = self.inputs["attention_mask"].sum(1)
        if "decoder_input_ids" in self.inputs:
            total = total + self.inputs["decoder_input_ids"].shape[1]
        return total

    def pick(self, index: Tensor) -> Rows:
        """The rows at ``index``, padded as they are: to be read. ``assemble`` takes whole examples, see ``of``."""
        inputs = {name: tensor[index] for name, tensor in self.inputs.items()}
        targets = None if self.targets is None else self.targets[index]
        choices = None if self.choices is None else self.choices.each(lambda tensor: tensor[index])
        return dataclasses.replace(
            self, inputs=inputs, positions=self.positions[index], owner=self.owner[index], targets=targets,
            choices=choices,
        )  # fmt: skip

    def take(self, index: Tensor) -> Rows:
        """``pick``, cut to the longest."""
        rows = self.pick(index)
        longest = int(rows.inputs["attention_mask"].sum(1).max())
        inputs = {
            name: tensor if name.startswith("decoder_") else tensor[:, :longest].contiguous()
            for name, tensor in rows.inputs.items()
        }
        positions = rows.positions
        if rows.choices is not None:  # one example has ten choices, another fifty; each place read costs a vocabulary
            positions = positions[:, : int(rows.choices.at.max()) + 1]
        return dataclasses.replace(rows, inputs=inputs, positions=positions)

    def of(self, examples: Tensor) -> tuple[Tensor, Rows]:
        """The rows of some examples, which are renumbered in the order given; label rows that all share stay.

        Args:
            examples: (n,) int64, each at most once.

        Returns:
            Positions of these rows, (R',) int64, and the rows themselves.
        """
        number = torch.full((len(self.classes),), -1, device=examples.device)
        number[examples] = torch.arange(len(examples), device=examples.device)
        example = self.owner[:, 0]
        renumbered = torch.where(example < 0, example, number[example])
        index = ((example < 0) | (renumbered >= 0)).nonzero()[:, 0]
        rows = self.pick(index)
        owner = torch.stack([renumbered[index], rows.owner[:, 1]], 1)
        return index, dataclasses.replace(rows, owner=owner, classes=self.classes[examples])

    def to(self, device: torch.device) -> Rows:
        def move(tensor: Tensor | None) -> Tensor | None:
            return None if tensor is None else tensor.to(device)

        return Rows(
            {name: tensor.to(device) for name, tensor in self.inputs.items()}, self.positions.to(device),
            self.owner.to(device), self.classes.to(device), move(self.columns), move(self.targets), self.sentences,
            self.scale, self.pooling, None if self.choices is None else self.choices.each(lambda t: t.to(device)),
            self.leading,
        )  # fmt: skip

    def assemble(self, readings: Tensor) -> Tensor:
        """Readings of all rows to class scores.

        Args:
            readings: (P, R, C) logits, (P, R) or with ``choices`` (P, R, S) log-probabilities, or (P, R, H) vectors,
                float32.

        Returns:
            (P, N, C) float32; -inf for classes that an example does not have.
        """
        population, examples = readings.shape[0], self.classes.shape[0]
        if self.columns is not None:
            return readings[:, self.owner[:, 0].argsort()]
        scores = readings.new_full((population, examples, int(self.classes.max())), -torch.inf)
        if self.sentences:
            vectors = torch.nn.functional.normalize(readings, dim=-1)
            texts = self.owner[:, 1] < 0
            order = self.owner[texts, 0].argsort()
            text = vectors[:, texts][:, order]  # (P, N, H)
            labels, owner = vectors[:, ~texts], self.owner[~texts]
            if bool((owner[:, 0] < 0).all()):  # one set of label sentences for all examples
                return self.scale * text @ labels[:, owner[:, 1].argsort()].mT
            values = self.scale * (text[:, owner[:, 0]] * labels).sum(-1)  # (P, label rows)
        elif self.choices is not None:
            there = self.choices.classes >= 0
            values = readings[:, there]  # (P, choices)
            example = self.owner[:, :1].expand_as(there)
            owner = torch.stack([example[there], self.choices.classes[there]], 1)
        else:
            values, owner = readings, self.owner
        # A class scores as its best choice, hence the maximum where several choices speak for one class.
        flat = scores.view(population, -1)
        target = owner[:, 0] * scores.shape[2] + owner[:, 1]
        flat.scatter_reduce_(1, target.expand(population, -1), values, reduce="amax")
        return scores


def buckets(lengths: Sequence[int], row_limit: int, overhead: int) -> list[list[int]]:
    """Cut rows, sorted by length, where padding costs more than another launch.

    Dynamic programming over the sorted rows; the cost of a bucket is rows x longest + overhead, in tokens.

    Args:
        lengths: real tokens of each row.
        row_limit: most padded tokens in one bucket (a single row may exceed it).
        overhead: what one more forward costs, in tokens.

    Returns:
        Row indices of each bucket, shortest rows first.
    """
    order = sorted(range(len(lengths)), key=lambda row: (lengths[row], row))
    best: list[tuple[float, int]] = [(0.0, 0)]
    for end in range(1, len(order) + 1):
        longest = lengths[order[end - 1]]
        options = []
        for start in range(end - 1, -1, -1):
            tokens = (end - start) * longest
            if tokens > row_limit and end - start > 1:
                break
            options.append((best[start][0] + tokens + overhead, start))
        best.append(min(options))
    cuts, end = [], len(order)
    while end:
        start = best[end][1]
        cuts.append(order[start:end])
        end = start
    return cuts[::-1]
