"""Answers that a model generates, scored by the task's metric; no gradient comes from there."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from dfolora.engine import Engine, Generator
from dfolora.models.adapter import Factors
from dfolora.models.load import LanguageModel
from dfolora.problems.encode import PromptEncoder
from dfolora.task import Example


@dataclass(frozen=True)
class Texts:
    """The answers of one candidate.

    Attributes:
        texts: by example; '' where the model broke on the way.
        broken: whether it did so anywhere (a logit was NaN or +inf).
    """

    texts: list[str]
    broken: bool


class Answers:
    """Generates and scores answers for a fixed set of examples.

    An answer is the first line of what greedy decoding gives, spaces around it left out.
    """

    def __init__(self, engine: Engine, scorer: PromptEncoder, examples: Sequence[Example]) -> None:
        """Encode the prompts.

        Args:
            engine: runs the candidates and counts what they cost.
            scorer: of a task whose answers are generated.
            examples: N of them.
        """
        self.task, self.tokenizer = scorer.task, scorer.tokenizer
        self.examples = examples
        stop = stop_tokens(scorer.language_model)
        prompts = scorer.prompts(examples)
        self.generator = Generator(engine, prompts, self.task.new_tokens, stop, self.tokenizer.pad_token_id)

    def incumbent(self) -> Texts:
        """Answers of the current adapter to all examples."""
        return self.population({})[0]

    def population(self, factors: Factors, examples: Tensor | None = None) -> list[Texts]:
        """Answers of P candidates.

        Args:
            factors: module name -> (A (P, r, in), B (P, out, r)); empty: one candidate, the adapter as it stands.
            examples: (n,) int64, a minibatch; None: all N in their order.
        """
        found = self.generator(factors, examples)
        return [
            Texts(
                ["" if bad else self._text(ids) for ids, bad in zip(tokens, broken, strict=True)],
                any(broken),
            )
            for tokens, broken in zip(found.tokens, found.broken.tolist(), strict=True)
        ]

    def losses(self, factors: Factors, examples: Tensor | None = None) -> Tensor:
        """Minus the task's metric of each candidate's answers, (P,) float32 on the CPU; NaN for one that broke."""
        chosen = self.examples if examples is None else [self.examples[i] for i in examples.tolist()]
        return torch.tensor(
            [
                float("nan") if found.broken else -self.task.main(self.task.measure(chosen, found.texts))
                for found in self.population(factors, examples)
            ]
        )

    def _text(self, ids: list[int]) -> str:
        text: str = self.tokenizer.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False)
        return text.split("\n")[0].strip()


def stop_tokens(language_model: LanguageModel) -> set[int]:
    """Tokens that end an answer: those that end a text, and all that hold a line's end (byte-level BPE has many)."""
    tokenizer: Any = language_model.tokenizer
    model: Any = language_model.model
    single = tokenizer.batch_decode([[token] for token in range(len(tokenizer))], clean_up_tokenization_spaces=False)
    stop = {token for token, text in enumerate(single) if "\n" in text}
    for end in (tokenizer.eos_token_id, model.generation_config.eos_token_id):
        stop |= set(end) if isinstance(end, list) else set() if end is None else {end}
    return stop
