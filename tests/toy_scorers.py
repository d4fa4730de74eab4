"""Scorers over toy tokenizers and tiny models, and how to read what they encode."""

from __future__ import annotations

from typing import Any

from models_zoo import build
from toy_tokenizers import bert_like, gpt2_like, roberta_like, t5_like, toy

from dfolora.engine import Rows
from dfolora.models import load as models
from dfolora.problems.encode import PromptEncoder
from dfolora.task import Example, Kind, Prompt, Task

MAKES: dict[Any, tuple[Kind, str]] = {
    roberta_like: ("masked", "roberta"),
    bert_like: ("masked", "bert"),
    gpt2_like: ("causal", "gpt2"),
    t5_like: ("seq2seq", "t5"),
}
TEMPLATE = "{text} it was {mask}."
WORDS = ("great", "terrible")


def scorer(make: Any, template: str = TEMPLATE, words: Any = WORDS, kind: Any = None, **settings: Any) -> PromptEncoder:
    known, architecture = MAKES.get(make, ("masked", "bert"))
    kind = kind or known
    architecture = {"encoder": "bert-encoder"}.get(kind, architecture)
    tokenizer = make() if make is gpt2_like else toy(make)
    language_model = models.wrap(build(architecture, vocabulary=500), tokenizer, kind, "toy-model")
    prompt = Prompt(template, words, settings.pop("answer", "{choice}"))
    task = Task("toy", (), {kind: prompt}, load=list, measure=lambda *_: {}, shorten=settings.pop("shorten", "text"))
    return PromptEncoder(language_model, task, **settings)


def text(words: str, label: int = 0, **fields: str) -> Example:
    return Example({"text": words, **fields}, label)


def pieces(scorer: PromptEncoder, rows: Rows, row: int = 0, name: str = "input_ids") -> list[str]:
    ids = rows.inputs[name][row]
    real = ids[rows.inputs["attention_mask"][row].bool()] if name == "input_ids" else ids
    return scorer.tokenizer.convert_ids_to_tokens(real.tolist())
