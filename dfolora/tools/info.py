"""What a model and a task are to this library, and what a run on them would cost, without searching."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

from dfolora.log import Line
from dfolora.methods.method import Method
from dfolora.methods.search import Search
from dfolora.opening import check_examples, open_prompt, open_task, run_settings
from dfolora.opening_methods import open_method
from dfolora.problems.encode import PromptEncoder
from dfolora.runs.description import name_of
from dfolora.runs.forecast import forecast
from dfolora.settings.tune import TuneSettings
from dfolora.task import Example


def info(model: Any = "", task: Any = "", **options: Any) -> dict[str, Any]:
    """Describe a model, a task, and the run that ``tune`` would make of them. Nothing is searched or written.

    Args:
        model, task, options: as for ``tune``.

    Returns:
        ``model``: kind, architecture, layers, parameters, number format, device, longest prompt; ``task``: classes,
        prompt, and by split the examples, their prompts' tokens (least, mean, most) and how many are cut; ``run``:
        method, search, what is adapted and how many numbers are moved; ``forecast``: see ``runs.forecast.Forecast``,
        measured on the few-shot set.

    Raises:
        UserError: whatever was given that cannot work.
    """
    named = {name: value for name, value in (("model", model), ("task", task)) if value}
    settings = run_settings(**named, **options)
    opened, load = open_task(settings)
    splits = {"train": load("train"), "dev": load("dev")}
    if settings.test_split == "test":
        splits["test"] = load("test")
    check_examples(opened, splits["train"])
    encoder = open_prompt(settings, opened, splits["train"][0])
    sizes = {split: _sizes(encoder, examples) for split, examples in splits.items()}
    language_model = encoder.language_model.read_weights()
    method, _ = open_method(settings, language_model, encoder, splits["train"], splits["dev"])
    tests = 0 if settings.test_split == "none" else len(splits[settings.test_split])
    weights = list(language_model.model.named_parameters())
    return {
        "model": {
            "name": name_of(settings.model),
            "kind": encoder.kind,
            "architecture": type(language_model.model).__name__,
            "layers": len(method.problem.engine.abilities.order.blocks),
            "parameters": sum(weight.numel() for name, weight in weights if "lora_" not in name),
            "dtype": str(weights[0][1].dtype).removeprefix("torch."),
            "device": str(language_model.device),
            "longest_prompt": encoder.max_length,
        },
        "task": {
            "name": opened.name,
            "classes": list(opened.classes),
            "template": encoder.prompt.template,
            "words": encoder.prompt.words and list(encoder.prompt.words),
            "shorten": opened.shorten,
            "splits": sizes,
        },
        "run": _run(settings, method),
        "forecast": _forecast(method, tests),
    }


def _sizes(encoder: PromptEncoder, examples: Sequence[Example]) -> dict[str, Any]:
    """How many examples, how long their prompts are, how many of these are cut."""
    lengths = [len(ids) for ids in encoder.prompts(examples)]
    return {
        "examples": len(examples),
        "tokens": [min(lengths), round(sum(lengths) / len(lengths), 1), max(lengths)],
        "cut": sum(encoder.shortened(example).fields != example.fields for example in examples),
    }


def _run(settings: TuneSettings, method: Method[Any]) -> dict[str, Any]:
    adapted = [name for layer in method.problem.adapter.layers for name in layer.modules]
    dims = [part.dim for part in method.problem.parts] if isinstance(method, Search) else []
    factors = [f for layer in method.problem.adapter.layers for m in layer.modules.values() for f in m.factors()]
    return {
        "method": settings.method,
        "search": settings.search,
        "subspace": name_of(getattr(settings, "subspace", "")),
        "adapted_layers": sum(bool(layer.modules) for layer in method.problem.adapter.layers),
        "adapted_modules": sorted({name.rpartition(".")[2] for name in adapted}),
        "adapter_parameters": sum(factor.numel() for factor in factors),
        "numbers_searched": dims,
        "evaluations": settings.evaluations,
        "evaluations_a_step": method.size,
    }


def _forecast(method: Method[Any], tests: int) -> dict[str, Any]:
    """The forecast of a run of any length; where only a step can tell, one is taken and forgotten."""
    line = Line(note=method.origin())
    with method.running():
        method.problem.selection.begin(line)
        cost = method.trial()
        if cost is None:
            started = time.perf_counter()
            line = line.next(method.step(line), method.problem.engine, started)
        return forecast(method, line, tests, cost).facts()
