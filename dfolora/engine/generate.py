"""Greedy decoding of a population: every candidate continues every prompt, all of them in one batch with one KV cache.

The steps themselves are those of transformers' ``generate``. Row order is candidate-major, as in ``lora.py``: row
p * R + i is prompt i under candidate p. Prompts are padded on the left, so that all rows go on at the same place.
"""

from __future__ import annotations

import contextlib
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers import GenerationConfig, LogitsProcessor, LogitsProcessorList

from dfolora.engine import memory
from dfolora.engine.edits import Edits, as_edits, population_of
from dfolora.engine.engine import Engine
from dfolora.engine.rows import buckets


@dataclass(frozen=True)
class Generated:
    """What a population generates.

    Attributes:
        tokens: by candidate and prompt, (P, N) lists of int: the new tokens, the one that ended them included.
        broken: (P, N) bool on the CPU: whether a logit on the way was NaN or +inf, so that the tokens are luck.
    """

    tokens: list[list[list[int]]]
    broken: Tensor


@dataclass(frozen=True)
class _Bucket:
    index: list[int]  # which prompts
    inputs: dict[str, Tensor]  # (R, T), padded on the left

    def pick(self, rows: list[int]) -> _Bucket:
        inputs = {name: tensor[rows] for name, tensor in self.inputs.items()}
        return _Bucket([self.index[row] for row in rows], inputs)


class Generator:
    """Continues a fixed batch of prompts under candidate adapters of a causal model.

    What it computes is added to the engine's ``forwards`` and ``token_layers``: a step is a forward of one token a row,
    also for rows that have ended while others of their batch go on.
    """

    def __init__(
        self, engine: Engine, prompts: Sequence[Sequence[int]], new_tokens: int, stop: Collection[int], pad: int
    ) -> None:
        """Cut the prompts into batches of similar length.

        Args:
            engine: runs the candidates; the prompts need not be those of its rows.
            prompts: token ids of N prompts, none of them empty.
            new_tokens: most tokens that follow a prompt.
            stop: tokens that end an answer.
            pad: the token to pad with; it is masked.
        """
        self.engine = engine
        self.count = len(prompts)
        self.stop = frozenset(stop)
        self.settings = GenerationConfig(
            max_new_tokens=new_tokens, do_sample=False, num_beams=1, use_cache=True, pad_token_id=pad,
            eos_token_id=sorted(self.stop) or None,
        )  # fmt: skip
        device = engine.device
        fitting = memory.generated_tokens(engine.model, device, len(engine.order.blocks))
        self._limit = min(engine.chunk_tokens, fitting)
        overhead = engine.launch_tokens() * new_tokens
        cuts = buckets([len(prompt) + new_tokens for prompt in prompts], max(1, self._limit // 4), overhead)
        self._buckets = [_Bucket(cut, left_padded([prompts[i] for i in cut], pad, device)) for cut in cuts]

    @torch.inference_mode()
    def __call__(self, edits: Mapping[str, Any], examples: Tensor | None = None) -> Generated:
        """Generate under a population.

        Args:
            edits: as for ``Engine.scores``; empty: one candidate, the incumbents.
            examples: (n,) int64, which prompts, each once; None: all N in their order.
        """
        changes = as_edits(edits)
        population = population_of(changes) if changes else 1
        wanted = list(range(self.count)) if examples is None else examples.tolist()
        column = {prompt: place for place, prompt in enumerate(wanted)}
        tokens: list[list[list[int]]] = [[[] for _ in wanted] for _ in range(population)]
        broken = torch.zeros(population, len(wanted), dtype=torch.bool)
        for whole in self._buckets:
            bucket = whole.pick([row for row, prompt in enumerate(whole.index) if prompt in column])
            rows = len(bucket.index)
            if not rows:
                continue
            places = [column[prompt] for prompt in bucket.index]
            length = bucket.inputs["input_ids"].shape[1] + int(self.settings.max_new_tokens or 0)
            chunk = self.engine.at_once(population, self._limit // (rows * length))
            for start in range(0, population, chunk):
                copies = min(chunk, population - start)
                part = {name: edit.cut(start, start + copies) for name, edit in changes.items()}
                answers, bad = self._run(bucket, part, copies)
                for row, ids in enumerate(answers):
                    tokens[start + row // rows][places[row % rows]] = self._until_stop(ids)
                broken[start : start + copies, places] = bad.view(copies, rows).cpu()
        return Generated(tokens, broken)

    def _run(self, bucket: _Bucket, edits: Edits, copies: int) -> tuple[list[list[int]], Tensor]:
        """New tokens of ``copies`` candidates on a bucket, (copies R) lists, and which of them are broken."""
        engine = self.engine
        inputs = {name: tensor.repeat(copies, 1) for name, tensor in bucket.inputs.items()}
        rows, length = inputs["input_ids"].shape
        watch = _Watch(torch.zeros(rows, dtype=torch.bool, device=inputs["input_ids"].device))
        with engine.running(edits, copies), without_own_settings(engine.model):
            output = engine.model.generate(
                **inputs, generation_config=self.settings, logits_processor=LogitsProcessorList([watch])
            )
        engine.forwards += watch.steps
        layers = sum(block.calls for block in engine.order.blocks)
        engine.token_layers += rows * (length + watch.steps - 1) * layers
        return output[:, length:].tolist(), watch.broken

    def _until_stop(self, ids: list[int]) -> list[int]:
        end = next((place for place, token in enumerate(ids) if token in self.stop), len(ids))
        return ids[: end + 1]


class _Watch(LogitsProcessor):
    """Changes nothing: counts the steps, and remembers the rows (rows,) whose logits were no numbers."""

    def __init__(self, broken: Tensor) -> None:
        self.steps = 0
        self.broken = broken

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        self.steps += 1
        self.broken |= (scores.isnan() | scores.isposinf()).any(-1)
        return scores


@contextlib.contextmanager
def without_own_settings(model: Any) -> Iterator[None]:
    """Leave out the model's own generation settings, with which ``generate`` fills what it was not told.

    A repetition penalty among them would count padding as something that was said, so that an answer would depend on
    how long the other prompts of its batch are.
    """
    before = model.generation_config
    model.generation_config = GenerationConfig()
    try:
        yield
    finally:
        model.generation_config = before


def left_padded(prompts: Sequence[Sequence[int]], pad: int, device: torch.device) -> dict[str, Tensor]:
    """Arguments of a model that is to go on with some prompts: (R, T) ids and mask, padded on the left."""
    longest = max(map(len, prompts))
    ids = [[pad] * (longest - len(prompt)) + list(prompt) for prompt in prompts]
    mask = [[0] * (longest - len(prompt)) + [1] * len(prompt) for prompt in prompts]
    return {
        "input_ids": torch.tensor(ids, device=device),
        "attention_mask": torch.tensor(mask, device=device),
    }
