"""Continue prompts of one batch with a causal model, each in its own way: drawn or not, cut where it says."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers import GenerationConfig, LogitsProcessor, LogitsProcessorList, StoppingCriteria, StoppingCriteriaList

from dfolora.engine.generate import left_padded, without_own_settings


@dataclass(frozen=True)
class Row:
    """A prompt, and how it goes on.

    Attributes:
        prompt: token ids, at least one.
        max_tokens: most tokens that follow.
        temperature, top_p: as in ``Request``; temperature 0: the likeliest token every time.
        seed: of what is drawn.
        stop: texts that end it.
    """

    prompt: Sequence[int]
    max_tokens: int
    temperature: float = 0.0
    top_p: float = 1.0
    seed: int = 0
    stop: tuple[str, ...] = ()


class BrokenLogits(ValueError):
    """A logit is NaN or +inf."""


@torch.inference_mode()
def continue_rows(model: Any, tokenizer: Any, rows: Sequence[Row], ends: Collection[int]) -> list[list[int]]:
    """The new tokens of each row, those that ended it included.

    What a row says depends on nothing but the row: neither on those beside it nor on how many they are.

    Args:
        model: a causal model of transformers.
        tokenizer: its tokenizer.
        rows: prompts, padded on the left so that all go on at the same place.
        ends: tokens that end a text.

    Raises:
        BrokenLogits: the model's numbers overflow.
    """
    inputs = left_padded([row.prompt for row in rows], tokenizer.pad_token_id, model.device)
    settings = GenerationConfig(
        max_new_tokens=max(row.max_tokens for row in rows), do_sample=False, num_beams=1, use_cache=True,
        pad_token_id=tokenizer.pad_token_id, eos_token_id=sorted(ends) or None,
    )  # fmt: skip
    length = inputs["input_ids"].shape[1]
    stops = _Stops(tokenizer, rows, length)
    with without_own_settings(model):
        output = model.generate(
            **inputs,
            generation_config=settings,
            logits_processor=LogitsProcessorList([_Draws(rows)]),
            stopping_criteria=StoppingCriteriaList([stops]),
        )
    answers = []
    for ids, most in zip(output[:, length:].tolist(), stops.lengths, strict=True):
        end = next((place for place, token in enumerate(ids) if token in ends), len(ids))
        answers.append(ids[: end + 1][:most])
    return answers


class _Draws(LogitsProcessor):
    """Adds noise to the logits of rows with a temperature, so that the largest is a draw.

    Gumbel noise makes it one of softmax(logits / T). Each row has a generator of its own.
    """

    def __init__(self, rows: Sequence[Row]) -> None:
        self.rows = [(place, row) for place, row in enumerate(rows) if row.temperature > 0]
        self.generators = [torch.Generator().manual_seed(row.seed) for _, row in self.rows]

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        if bool((scores.isnan() | scores.isposinf()).any()):
            raise BrokenLogits
        scores = scores.float()
        for (place, row), generator in zip(self.rows, self.generators, strict=True):
            logits = scores[place] / row.temperature
            if row.top_p < 1:
                likely, order = logits.softmax(-1).sort(descending=True)
                logits[order[likely.cumsum(-1) - likely >= row.top_p]] = -torch.inf
            uniform = torch.rand(logits.shape, generator=generator, dtype=torch.float64).clamp_(min=1e-300)
            scores[place] = logits - (-uniform.log()).log().to(logits)
        return scores


class _Stops(StoppingCriteria):
    """Ends a row at its last token, or once one of its stop texts is in its last words.

    Attributes:
        lengths: of each row, after how many tokens it ended at the latest.
    """

    def __init__(self, tokenizer: Any, rows: Sequence[Row], length: int) -> None:
        self.tokenizer, self.rows, self.length = tokenizer, rows, length
        self.lengths = [row.max_tokens for row in rows]
        # A token stands for a byte at least, so that these many hold a stop text whole; the last one may hold more.
        self._tails = [max((len(text.encode()) for text in row.stop), default=0) + 1 for row in rows]

    def __call__(self, input_ids: Tensor, scores: Any, **_: Any) -> Tensor:
        new = input_ids.shape[1] - self.length
        places = [place for place, row in enumerate(self.rows) if row.stop and new < self.lengths[place]]
        if places:
            tails = [input_ids[place, self.length :][-self._tails[place] :].tolist() for place in places]
            for place, text in zip(places, text_of(self.tokenizer, tails), strict=True):
                if any(stop in text for stop in self.rows[place].stop):
                    self.lengths[place] = new
        return torch.tensor([new >= most for most in self.lengths], device=input_ids.device)


def text_of(tokenizer: Any, answers: list[list[int]]) -> list[str]:
    """Token ids as texts, without special tokens."""
    texts: list[str] = tokenizer.batch_decode(answers, skip_special_tokens=True, clean_up_tokenization_spaces=False)
    return texts
