"""Answers that a model generates, scored by the task's metric; no gradient comes from there."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from dfolora.engine import Draw, Engine, Generator
from dfolora.models.adapter import Factors
from dfolora.models.load import LanguageModel
from dfolora.problems.encode import PromptEncoder
from dfolora.seeds import seed_of
from dfolora.task import Example


@dataclass(frozen=True)
class Texts:
    """The answers of one candidate.

    Attributes:
        texts: by example; '' where the model broke on the way.
        broken: whether it did so anywhere (a logit was NaN or +inf).
        truncated: whether every answer went on to the last token that it may have.
    """

    texts: list[str]
    broken: bool
    truncated: bool = False


class Answers:
    """Generates and scores answers for a fixed set of examples.

    An answer is what stands before the first stop text, or else all of it; spaces around it are left out.

    Attributes:
        examples: one for each answer: the examples as they were given, as many times over as answers are drawn to each.
        latest: what the candidates answered whose losses were asked for last.
    """

    def __init__(
        self, engine: Engine, scorer: PromptEncoder, examples: Sequence[Example], samples: int | None = None
    ) -> None:
        """Encode the prompts.

        Args:
            engine: runs the candidates and counts what they cost.
            scorer: of a task whose answers are generated.
            examples: N of them.
            samples: answers to each; None: as the task's decoding says.
        """
        self.task, self.tokenizer = scorer.task, scorer.tokenizer
        how = self.task.decoding
        self.count, self.samples = len(examples), samples or how.samples
        self.examples = list(examples) * self.samples
        self.latest: list[Texts] = []
        self.stop = stop_tokens(scorer.language_model, how.stop)
        prompts = scorer.prompts(examples) * self.samples
        keys = [
            seed_of(how.seed, f"answer {sample} to {prompt}")
            for sample in range(self.samples)
            for prompt in range(len(examples))
        ]
        draw = Draw(how.temperature, how.top_p, keys) if how.temperature else None
        self.generator = Generator(engine, prompts, self.task.new_tokens, self.stop, self.tokenizer.pad_token_id, draw)

    def incumbent(self) -> Texts:
        """Answers of the current adapter to all examples."""
        return self.population({})[0]

    def population(self, factors: Factors, examples: Tensor | None = None) -> list[Texts]:
        """Answers of P candidates.

        Args:
            factors: module name -> (A (P, r, in), B (P, out, r)); empty: one candidate, the adapter as it stands.
            examples: (n,) int64, a minibatch; None: all N in their order.
        """
        found = self.generator(factors, self._all_samples(examples))
        return [
            Texts(
                ["" if bad else self._text(ids) for ids, bad in zip(tokens, broken, strict=True)],
                any(broken),
                all(map(self._is_truncated, tokens)),
            )
            for tokens, broken in zip(found.tokens, found.broken.tolist(), strict=True)
        ]

    def losses(self, factors: Factors, examples: Tensor | None = None) -> Tensor:
        """Minus the task's metric of each candidate's answers, (P,) float32 on the CPU; NaN for one that broke."""
        self.latest = self.population(factors, examples)
        index = self._all_samples(examples)
        chosen = self.examples if index is None else [self.examples[i] for i in index.tolist()]
        return torch.tensor(
            [
                float("nan") if found.broken else -self.task.main(self.task.measure(chosen, found.texts))
                for found in self.latest
            ]
        )

    def _all_samples(self, examples: Tensor | None) -> Tensor | None:
        """The places of every answer to some examples."""
        if examples is None:
            return None
        return torch.cat([examples.cpu() + self.count * sample for sample in range(self.samples)])

    def _text(self, ids: list[int]) -> str:
        text: str = self.tokenizer.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False)
        ends = [text.find(stop) for stop in self.task.decoding.stop]
        return text[: min((end for end in ends if end >= 0), default=len(text))].strip()

    def _is_truncated(self, ids: list[int]) -> bool:
        return len(ids) == self.task.new_tokens and ids[-1] not in self.stop


def stop_tokens(language_model: LanguageModel, stop: Sequence[str] = ("\n",)) -> set[int]:
    """Tokens that end an answer: those that end a text, and all that hold a stop text (byte-level BPE has many)."""
    tokenizer: Any = language_model.tokenizer
    model: Any = language_model.model
    found: set[int] = set()
    if stop:
        single = tokenizer.batch_decode(
            [[token] for token in range(len(tokenizer))], clean_up_tokenization_spaces=False
        )
        found = {token for token, text in enumerate(single) if any(each in text for each in stop)}
    for end in (tokenizer.eos_token_id, model.generation_config.eos_token_id):
        found |= set(end) if isinstance(end, list) else set() if end is None else {end}
    return found
