"""Rows of the zoo's models behind soft tokens, and plain ways to score a prompt: ``inputs_embeds``, one at a time."""

from __future__ import annotations

import dataclasses
from typing import Any

import torch
from models_zoo import READINGS, ZOO, language_model
from torch import Tensor

from dfolora.engine import Rows
from dfolora.engine.readout import Readout
from dfolora.models.instances import Instances
from dfolora.models.load import LanguageModel
from dfolora.models.prompted import Prompted
from dfolora.models.soft_tokens import SoftTokens

COUNT = 3


def texts_of(rows: Rows) -> list[list[int]]:
    """The real ids of each row."""
    lengths = rows.inputs["attention_mask"].sum(1).tolist()
    return [ids[:n] for ids, n in zip(rows.inputs["input_ids"].tolist(), lengths, strict=True)]


def asked_of(rows: Rows, kind: str) -> list[list[int]]:
    """What a gate looks at: the ids up to a causal model's answer."""
    texts = texts_of(rows)
    if kind != "causal":
        return texts
    return [ids[: at + 1] for ids, at in zip(texts, rows.positions[:, 0].tolist(), strict=True)]


def softly(rows: Rows, kind: str, tokens: SoftTokens, instances: Instances | None) -> Rows:
    """The same rows behind soft tokens."""
    numbers = [instances.number(ids) if instances else 0 for ids in asked_of(rows, kind)]
    before = torch.tensor([tokens.before([], number) for number in numbers])
    inputs = dict(rows.inputs)
    inputs["input_ids"] = torch.cat([before, rows.inputs["input_ids"]], 1)
    inputs["attention_mask"] = torch.cat([torch.ones_like(before), rows.inputs["attention_mask"]], 1)
    shift = 0 if kind in ("seq2seq", "encoder") else tokens.count
    return dataclasses.replace(rows, inputs=inputs, positions=rows.positions + shift, leading=tokens.count)


def prompted(name: str, reading: str, gated: bool) -> tuple[LanguageModel, Rows, Rows, Prompted]:
    """A model behind a random prompt, its rows without and with soft tokens."""
    opened, kind = language_model(name), ZOO[name][0]
    plain = READINGS[reading](kind)
    instances = Instances(2, lambda: opened.model.get_input_embeddings().weight) if gated else None
    tokens = SoftTokens(opened.vocabulary, COUNT)
    rows = softly(plain, kind, tokens, instances)
    if instances is not None:
        instances.fit()
    model = Prompted(opened, tokens, candidates(opened, 1, 5, None)["prompt"][0], instances)
    return opened, plain, rows, model


def candidates(opened: LanguageModel, population: int, seed: int, features: int | None) -> dict[str, Tensor]:
    """Random prompts of the size of embeddings, and gates that open and close."""
    generator = torch.Generator().manual_seed(seed)
    table = opened.model.get_input_embeddings().weight
    found = {"prompt": table.std() * torch.randn(population, COUNT, table.shape[1], generator=generator)}
    if features:
        found["b"] = torch.randn(population, COUNT, features, generator=generator)
        found["c"] = torch.randn(population, COUNT, generator=generator)
    return found


def by_embeddings(opened: LanguageModel, rows: Rows, leading: Tensor) -> Tensor:
    """(N, C) class scores of a plain model, given what stands before each text: (R, m, d)."""
    model: Any = opened.model
    inputs = dict(rows.inputs)
    words = model.get_input_embeddings()(inputs.pop("input_ids"))
    mask = torch.cat([torch.ones(leading.shape[:2], dtype=torch.long), inputs.pop("attention_mask")], 1)
    output = model(inputs_embeds=torch.cat([leading, words], 1), attention_mask=mask, **inputs)
    return readings_of(opened, rows, output, mask, leading.shape[1])


def readings_of(opened: LanguageModel, rows: Rows, output: Any, mask: Tensor, count: int) -> Tensor:
    shift = 0 if opened.kind in ("seq2seq", "encoder") else count
    moved = dataclasses.replace(
        rows, positions=rows.positions + shift, leading=count, inputs={**rows.inputs, "attention_mask": mask}
    )
    return moved.assemble(Readout(opened.model, lambda inputs: None).read(moved, output, 1))[0]
