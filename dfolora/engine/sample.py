"""A few short rows in the likeness of a batch, to try on what a model allows.

They hold what a trial must not miss: rows that differ, of several lengths, several choices of several tokens behind one
prompt. What is found on them holds for every batch of the same kind; only what a text's length can change (a window of
attention) is tried again, on a long row.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import torch
from torch import Tensor

from dfolora.engine.rows import Rows

LENGTHS = (12, 7, 9, 11)
ANSWER_TOKENS = 3
PROMPTS, CHOICES = (4, 6), ((4, 3, 4), (2, 4))  # tokens of two prompts, and of the choices behind each


class Sample:
    """Draws rows from a batch's own tokens, always the same ones for the same batch.

    Args:
        rows: the batch.
        longest: the most tokens that the model takes; None: it does not say.
        pad: the token to pad with.
    """

    def __init__(self, rows: Rows, longest: int | None, pad: int) -> None:
        self._rows = rows
        self._longest = longest
        self._pad = pad
        self._device = rows.owner.device
        mask = rows.inputs["attention_mask"].bool()
        texts = {name: part for name, part in rows.inputs.items() if not name.startswith("decoder_")}
        self._real = {name: part[mask] for name, part in texts.items() if name != "attention_mask"}
        self._first = {name: part[0, 0] for name, part in rows.inputs.items()}
        self._generator = torch.Generator().manual_seed(0)

    def words(self, answers: int = 1) -> Rows:
        """Rows of various lengths, each read at ``answers`` places near its end."""
        lengths = [self._at_most(length) for length in LENGTHS]
        inputs = self._padded(lengths)
        ends = lengths
        if "decoder_input_ids" in self._rows.inputs:
            ends = [self._at_most(max(LENGTHS) // 2)] * len(lengths)
            inputs["decoder_input_ids"] = self._decoder(len(lengths), ends[0])
        answers = min(answers, *ends)
        first = [end - answers - (row % 2 if end > answers + 1 else 0) for row, end in enumerate(ends)]
        positions = torch.tensor([[at + k for k in range(answers)] for at in first], device=self._device)
        return self._like(inputs, positions)

    def choices(self) -> Rows:
        """Rows of a causal model that share two prompts, one row a choice."""
        lengths, owner, positions, texts = [], [], [], []
        for example, (prompt, sizes) in enumerate(zip(PROMPTS, CHOICES, strict=True)):
            start = self._draw(prompt)
            for number, size in enumerate(sizes):
                more = self._draw(size - 1, inside=True)
                texts.append({name: torch.cat([part, more[name]]) for name, part in start.items()})
                lengths.append(prompt + size - 1)
                owner.append((example, number))
                positions.append([prompt - 1 + min(k, size - 1) for k in range(max(map(max, CHOICES)))])
        inputs = self._stack(texts)
        rows = self._like(inputs, torch.tensor(positions, device=self._device))
        real = torch.tensor([[k < size for k in range(len(positions[0]))] for sizes in CHOICES for size in sizes])
        assert rows.targets is not None, "only answers of several tokens share a prompt"
        targets = rows.targets.masked_fill(~real.to(self._device), -100)
        return dataclasses.replace(rows, owner=torch.tensor(owner, device=self._device), targets=targets)

    def long(self, length: int) -> Rows:
        """One row of so many tokens."""
        inputs = self._padded([length])
        if "decoder_input_ids" in self._rows.inputs:
            inputs["decoder_input_ids"] = self._rows.inputs["decoder_input_ids"][:1]
        return self._like(inputs, torch.full((1, 1), length - 1, device=self._device))

    def _at_most(self, length: int) -> int:
        return length if self._longest is None else max(1, min(length, self._longest))

    def _like(self, inputs: dict[str, Tensor], positions: Tensor) -> Rows:
        """Rows that are read as those of the batch are; what assembles scores is left empty."""
        count, answers = positions.shape
        rows, targets = self._rows, None
        if rows.targets is not None:
            known = rows.targets[rows.targets >= 0]  # ids of texts may stand for no word
            index = torch.randint(len(known), (count, answers), generator=self._generator)
            targets = known[index.to(self._device)]
        owner = torch.tensor([(row, -1) for row in range(count)], device=self._device)
        classes = torch.ones(count, dtype=torch.long, device=self._device)
        return Rows(inputs, positions, owner, classes, rows.columns, targets, rows.sentences, rows.scale, rows.pooling)

    def _draw(self, count: int, inside: bool = False) -> dict[str, Tensor]:
        """Arguments of a text of so many tokens: the batch's first token, unless it stands ``inside``, then others."""
        total = len(self._real["input_ids"])
        index = torch.randint(total, (count,), generator=self._generator).to(self._device)
        drawn = {name: part[index] for name, part in self._real.items()}
        if count and not inside:
            for name, part in drawn.items():
                part[0] = self._first[name]
        return drawn

    def _padded(self, lengths: Sequence[int]) -> dict[str, Tensor]:
        return self._stack([self._draw(length) for length in lengths])

    def _stack(self, texts: Sequence[dict[str, Tensor]]) -> dict[str, Tensor]:
        """Texts padded on the right as the batch is."""
        lengths = [len(text["input_ids"]) for text in texts]
        real = torch.arange(max(lengths)) < torch.tensor(lengths)[:, None]
        real = real.to(self._device)
        inputs = {}
        for name, part in self._real.items():
            pad = self._pad if name == "input_ids" else 0
            filled = torch.full(real.shape, pad, dtype=part.dtype, device=self._device)
            filled[real] = torch.cat([text[name] for text in texts])
            inputs[name] = filled
        inputs["attention_mask"] = real.to(self._rows.inputs["attention_mask"].dtype)
        return inputs

    def _decoder(self, count: int, length: int) -> Tensor:
        """Decoder arguments: the batch's first token, then others."""
        ids = torch.stack([self._draw(length)["input_ids"] for _ in range(count)])
        ids[:, 0] = self._first["decoder_input_ids"]
        return ids
