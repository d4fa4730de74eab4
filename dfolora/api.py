"""The two jobs: tune an adapter and evaluate one. Load, run, score, save; nothing is printed here."""

from __future__ import annotations

import gc
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from string import Formatter
from typing import Any

from dfolora.engine import Engine
from dfolora.errors import UserError, unknown
from dfolora.methods.first_order import FirstOrder
from dfolora.methods.full_tuner import FullTuner, replay
from dfolora.methods.hybrid import Hybrid
from dfolora.methods.search import Progress, Tuner
from dfolora.models import adapter as adapters
from dfolora.models import load as models
from dfolora.models.adapter import Adapter
from dfolora.models.bare import Bare
from dfolora.models.load import LanguageModel
from dfolora.optimizers import make_optimizer
from dfolora.problems.answers import Answers
from dfolora.problems.encode import PromptEncoder
from dfolora.problems.objectives import make_objective
from dfolora.runs.card import model_card
from dfolora.runs.folder import Run
from dfolora.settings.config import EvaluateConfig, ModelConfig, TuneConfig
from dfolora.subspaces.lora import subspace_class
from dfolora.task import Example, Metrics, Prompt, Task

Examples = Callable[[str], list[Example]]
"""split -> examples: a task's ``load`` with its source filled in."""

_METHODS: dict[str, type[Tuner] | type[FirstOrder]] = {
    "gradient-free": Tuner, "first-order": FirstOrder, "hybrid": Hybrid,
}  # fmt: skip
TEST_BATCH = 512  # examples encoded at a time; the engine cuts them further


def tune(
    config: TuneConfig, task: Task, examples: Examples, resume: Run | None = None,
    progress: Progress = lambda state, best: None, started: Callable[[Run], None] = lambda run: None,
) -> dict[str, Any]:  # fmt: skip
    """Tune an adapter, save it, score it beside the model as it was.

    Args:
        config: everything about the run.
        task: what to tune for.
        examples: gives the examples of ``train``, ``dev`` and ``test``.
        resume: an interrupted run to go on with, opened by ``Run.open``; its config is ``config``.
        progress: called after every generation.
        started: called once the run folder exists.

    Returns:
        The scores, as saved in ``scores.json``: ``model, task, method, optimizer, subspace, seed, evaluations,
        token_layers, seconds, zero_shot, tuned, dev_zero_shot, dev_tuned, dev_loss, run``, ``adapter`` (where all
        weights are tuned ``model_folder``) and a few more.

    Raises:
        UserError: whatever the user gave that cannot work; the run folder is made once all of it is checked.
    """
    # Names first: a mistyped optimizer should not cost the loading of a model.
    make_objective(config.objective, lambda found: 0.0, task.new_tokens > 0)
    if config.method == "gradient-free":
        subspace_class(config.subspace)
        options = config.optimizer_options
        make_optimizer(config.optimizer, 2, population=config.population, sigma=config.sigma, **options)
    train, dev = examples("train"), examples("dev")
    test = [] if config.test_split == "none" else examples(config.test_split)
    _check_train(task, train)
    language_model = _load(config)
    scorer = PromptEncoder(language_model, task, config.max_length)
    _check_fields(task, scorer.prompt, train[0])
    adapter, tuner = _tuner(config, language_model, scorer, train, dev)
    if resume is not None:
        resume.check_data(tuner.data_checksum)
    if not isinstance(tuner, Tuner):
        tuner.prepare(resume)
        run = resume or Run.create(config, language_model.device, tuner.data_checksum)
    elif resume is None:
        measured = tuner.prepare()
        run = Run.create(config, language_model.device, tuner.data_checksum)
        run.save_subspace(measured)
    else:
        run = resume
        tuner.prepare(run.load_subspace(len(adapter.layers)))
    started(run)
    tuner.fit(run, progress)
    state, best = tuner.last, tuner.selection.best
    scores: dict[str, Any] = {
        "model": config.model,
        "task": task.name,
        "method": config.method,
        "optimizer": config.search,
        "subspace": config.subspace if config.method == "gradient-free" else "",
        "first_order_layers": tuner.chosen if isinstance(tuner, FirstOrder) else [],
        "seed": config.seed,
        "evaluations": state.evaluations,
        "token_layers": state.token_layers,
        "dev_token_layers": state.dev_token_layers,
        "forwards": state.forwards,
        "backwards": state.backwards,
        "seconds": state.seconds,
        "zero_shot": {},
        "tuned": {},
        "dev_zero_shot": tuner.selection.base,
        "dev_tuned": best.dev["metrics"] if best.dev else {},
        "dev_loss": best.dev["loss"] if best.dev else None,
        "selected_at": best.evaluations,
        "examples": {"train": len(train), "dev": len(dev), config.test_split: len(test)},
        "run": str(run.folder),
    }
    kind, prompt = language_model.kind, scorer.prompt
    folder = run.folder / ("model" if config.method == "full-parameter" else "adapter")
    scores["model_folder" if config.method == "full-parameter" else "adapter"] = str(folder)
    if isinstance(tuner, FullTuner):
        chosen = tuner.chosen
        # Room for the weights as they were, from which all others follow; what loads them holds itself in circles.
        del adapter, tuner, scorer, language_model
        gc.collect()
        language_model = _load(config)
        scorer, adapter = PromptEncoder(language_model, task, config.max_length), Bare(language_model)
        scores["zero_shot"] = score(adapter, scorer, test, config.chunk_tokens) if test else {}
        replay(config, language_model.model, run.folder, best.generation, chosen)
        scores["tuned"] = score(adapter, scorer, test, config.chunk_tokens) if test else {}
    elif test:
        scores["tuned"] = score(adapter, scorer, test, config.chunk_tokens)
        kept = adapter.state()
        adapter.clear()
        scores["zero_shot"] = score(adapter, scorer, test, config.chunk_tokens)
        adapter.restore(kept)
    adapter.save(folder, model_card(config, scores, kind, prompt, task.new_tokens))
    run.save_scores(scores)
    return scores


def _tuner(
    config: TuneConfig, language_model: LanguageModel, scorer: PromptEncoder, train: list[Example], dev: list[Example]
) -> tuple[Adapter, Tuner | FirstOrder | FullTuner]:
    """What the method tunes, and what tunes it."""
    if config.method == "full-parameter":
        bare = Bare(language_model)
        return bare, FullTuner(bare, scorer, train, dev, config)
    adapter = adapters.attach(language_model, config.rank, _names(config.target))
    return adapter, _METHODS[config.method](adapter, scorer, train, dev, config)


def evaluate(config: EvaluateConfig, task: Task, examples: Examples) -> dict[str, Any]:
    """Score a saved adapter, or the model as it is, on one split.

    Returns:
        ``model, adapter, task, split, examples, metrics``.

    Raises:
        UserError: whatever the user gave that cannot work.
    """
    found = examples(config.split)
    language_model = _load(config)
    scorer = PromptEncoder(language_model, task, config.max_length)
    _check_fields(task, scorer.prompt, found[0])
    adapter = adapters.load(language_model, config.adapter) if config.adapter else Bare(language_model)
    return {
        "model": config.model,
        "adapter": config.adapter,
        "task": task.name,
        "split": config.split,
        "examples": len(found),
        "metrics": score(adapter, scorer, found, config.chunk_tokens),
    }


def score(adapter: Adapter, scorer: PromptEncoder, examples: Sequence[Example], chunk_tokens: int = 0) -> Metrics:
    """The task's metrics of an adapter as it stands, in percent."""
    predictions: list[Any] = []
    for start in range(0, len(examples), TEST_BATCH):
        part = examples[start : start + TEST_BATCH]
        engine = Engine(adapter, scorer.encode(part), chunk_tokens)
        if scorer.task.new_tokens:
            predictions += Answers(engine, scorer, part).incumbent().texts
        else:
            predictions += engine.incumbent_scores().argmax(-1).tolist()
    return scorer.task.measure(examples, predictions)


def adapter_model(folder: str) -> str:
    """The model that a saved adapter says it was made for; '' where it does not say.

    Raises:
        UserError: there is no adapter.
    """
    try:
        config = json.loads((Path(folder).expanduser() / "adapter_config.json").read_text(encoding="utf-8"))
        return str(config.get("base_model_name_or_path") or "")
    except (OSError, ValueError, AttributeError) as error:
        raise UserError(f"--adapter: {folder!r} holds no adapter_config.json that can be read") from error


def _load(config: ModelConfig) -> LanguageModel:
    return models.load(
        config.model, kind=config.kind, dtype=config.dtype, device=config.device,
        trust_remote_code=config.trust_remote_code, quantize=config.quantize,
    )  # fmt: skip


def _check_train(task: Task, train: Sequence[Example]) -> None:
    if not train:
        raise UserError(f"--task: the training set of {task.name!r} is empty")
    if len({example.label for example in train}) < 2 and not task.one_class_train:
        raise UserError(f"--task: the training set of {task.name!r} holds one class only; two are needed to tell apart")


def _check_fields(task: Task, prompt: Prompt, example: Example) -> None:
    """A user's own template and ``--shorten`` may name what the examples do not have."""
    names = [name for _, name, _, _ in Formatter().parse(prompt.template) if name is not None]
    for name in names:
        if name != "mask" and name not in example.fields:
            raise unknown(f"--template: {prompt.template!r}", name, example.fields)
    if task.shorten and task.shorten not in example.fields:
        raise unknown("--shorten", task.shorten, example.fields)


def _names(text: str) -> list[str]:
    return [name.strip() for name in text.split(",") if name.strip()]
