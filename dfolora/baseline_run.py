"""Fit a baseline and score it as a run is scored: same task, same splits, same metrics, a folder of the same files."""

from __future__ import annotations

import json
import time
from dataclasses import replace
from typing import Any

import torch
import yaml
from torch import nn

from dfolora import scoring
from dfolora.baselines import baseline_settings
from dfolora.baselines.base import Baseline
from dfolora.baselines.few_shot import FewShot
from dfolora.opening import check_examples, open_prompt, open_task, with_demo
from dfolora.problems.problem import digest
from dfolora.runs.description import name_of
from dfolora.runs.files import write_text
from dfolora.runs.folder import environment, free_folder, new_folder
from dfolora.runs.listener import Listener
from dfolora.settings.baseline import BaselineSettings
from dfolora.settings.build import saved
from dfolora.task import Example


def baseline(
    name: Any,
    model: Any = "",
    task: Any = "",
    *,
    output: str = "",
    listener: Listener | None = None,
    **options: Any,
) -> dict[str, Any]:
    """Fit a baseline on a task's few-shot set and score it on the test set.

    Args:
        name: of the baseline, see `dfolora baselines`; or a ``Baseline`` class or instance.
        model: hub id, folder, or a loaded ``LanguageModel``; nothing: the demo's.
        task: name, or a ``Task``; nothing: the demo.
        output: folder for ``config.yaml``, ``environment.json``, ``predictions.jsonl`` and ``scores.json``, which
            appear together or not at all; nothing: a new one under runs/.
        listener: told how it gets on.
        options: any option of ``dfolora baseline``: what the baseline takes itself, ``data``, ``seed``, ``shots``, ...

    Returns:
        What ``scores.json`` holds: the keys of a run's scores, and ``details``, what the baseline has chosen.

    Raises:
        UserError: whatever was given that cannot work; no folder is left then.
    """
    named = {key: value for key, value in (("model", model), ("task", task), ("output", output)) if value}
    settings, plain = baseline_settings(name, {**named, **options})
    settings = with_demo(settings)
    listener = listener or Listener()
    folder = free_folder(settings)
    opened, examples = open_task(settings)
    train, dev = examples("train"), examples("dev")
    test = [] if settings.test_split == "none" else examples(settings.test_split)
    check_examples(opened, train)
    encoder = open_prompt(settings, opened, train[0])
    language_model = encoder.language_model
    plain.check(encoder, train)
    for examples_there in (train, dev, test):
        encoder.check(examples_there)
    few_shot = FewShot(encoder, train, dev, settings.seed, settings.chunk_tokens, listener)
    with new_folder(folder) as (partial, lock):
        if plain.reads_weights:
            listener.stage(f"loading {name_of(settings.model)}")
            language_model.read_weights()
        scores = _scores(settings, plain, few_shot)
        scores["examples"] = {"train": len(train), "dev": len(dev), settings.test_split: len(test)}
        scores["run"] = str(folder)
        if test:
            hidden = [_without_label(example, opened.new_tokens) for example in test]
            predictions = plain.predict(hidden)
            scores["tuned"] = scoring.metrics(encoder, test, predictions)
            if plain.reads_weights:
                scores["zero_shot"] = scoring.metrics(encoder, test, few_shot.zero_shot(hidden))
            scoring.save_predictions(partial / "predictions.jsonl", encoder, test, predictions)
        device = language_model.device if plain.reads_weights else torch.device("cpu")
        weights = language_model.model if plain.reads_weights else nn.Module()
        sets = (train, dev)
        checksum = digest([encoder.encode(each) for each in sets], [encoder.labels(each) for each in sets], weights)
        versions = environment(device, checksum)
        write_text(partial / "environment.json", json.dumps(versions, indent=2) + "\n")
        write_text(partial / "config.yaml", yaml.safe_dump(saved(settings) | {"output": str(folder)}, sort_keys=False))
        write_text(partial / "scores.json", json.dumps(scores, indent=2) + "\n")
        lock.release()
        (partial / "lock").unlink(missing_ok=True)
    return scores


def _scores(settings: BaselineSettings, plain: Baseline, few_shot: FewShot) -> dict[str, Any]:
    """Fit, and look at the dev set: the result before the test set is scored."""
    encoder, dev = few_shot.encoder, few_shot.dev
    started = time.perf_counter()
    details = plain.fit(few_shot)
    looked = plain.predict(dev)
    seconds = time.perf_counter() - started
    zero_shot = scoring.metrics(encoder, dev, few_shot.zero_shot(dev)) if plain.reads_weights else {}
    return {
        "model": name_of(settings.model),
        "task": encoder.task.name,
        "method": "baseline",
        "optimizer": settings.search,
        "seed": settings.seed,
        "evaluations": 0,
        "token_layers": few_shot.token_layers,
        "dev_token_layers": few_shot.dev_token_layers,
        "forwards": few_shot.forwards,
        "backwards": 0,
        "seconds": seconds,
        "zero_shot": {},
        "tuned": {},
        "dev_zero_shot": zero_shot,
        "dev_tuned": scoring.metrics(encoder, dev, looked),
        "details": details,
    }


def _without_label(example: Example, new_tokens: int) -> Example:
    """A test example as a baseline may see it; where answers are generated, reading a prompt needs a gold text."""
    return replace(example, label=0, gold=("",) if new_tokens else ())
