"""Tune a model, evaluate one: what the command line does, for Python. Nothing is printed here."""

from __future__ import annotations

import dataclasses
import gc
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from dfolora import scoring
from dfolora.errors import UserError
from dfolora.log import Line
from dfolora.loop import run_method
from dfolora.methods.first_order import FirstOrder
from dfolora.methods.full_parameter.method import AllWeights, move_to, mover
from dfolora.models import adapter as adapters
from dfolora.models import deep_prompted, gated_adapter, prefix_folder, prompt_folder, prompted
from dfolora.models.bare import Bare
from dfolora.models.tuned import TunedModel
from dfolora.opening import check_examples, open_model, open_prompt, open_prompts, open_task, run_settings, with_demo
from dfolora.opening_methods import check_workers, open_method, open_problem
from dfolora.problems.encode import PromptEncoder
from dfolora.problems.objectives import make_objective
from dfolora.problems.parted import PartedProblem
from dfolora.problems.rewards import RewardError
from dfolora.runs import description
from dfolora.runs.card import model_card
from dfolora.runs.files import write_text
from dfolora.runs.folder import Run
from dfolora.runs.hub import check_push, push
from dfolora.runs.listener import Listener, one_listener
from dfolora.runs.trackers import with_trackers
from dfolora.settings.build import settings as settings_of
from dfolora.settings.methods import FullParameterSettings
from dfolora.settings.model import EvaluateSettings
from dfolora.settings.search import SearchSettings
from dfolora.settings.tune import TuneSettings
from dfolora.task import Example, Task


def tune(
    model: Any = "",
    task: Any = "",
    *,
    resume: str | Path | None = None,
    listener: Listener | Sequence[Listener] | None = None,
    **options: Any,
) -> Run:
    """Tune a model for a task, save the adapter, and score it against the untuned model.

    Args:
        model: hub id, folder, or a loaded ``LanguageModel``; nothing: the demo's.
        task: name, or a ``Task``; nothing: the demo.
        resume: folder of a run to go on with. Everything comes from there; ``budget`` may be raised, and what was given
            as an object must be given again.
        listener: told how the run gets on, and may ask it to end; one or several.
        options: any option of ``dfolora tune``: ``method``, ``preset``, ``optimizer`` (name, class, factory or
            instance), ``subspace`` (name or class), ``objective`` (name or function of scores and labels), ``reward``
            (function of generated texts and their examples, ``file.py:function``, or names with weights), ``budget``,
            ``output``, ... See docs/reference.md.

    Returns:
        The run: its ``folder``, ``adapter`` and ``scores``.

    Raises:
        UserError: whatever was given that cannot work; the run folder is made once all of it is checked.
    """
    named = {name: value for name, value in (("model", model), ("task", task)) if value}
    run = None if resume is None else Run.open(resume, options.pop("budget", None), **named, **options)
    try:
        settings = run_settings(**named, **options) if run is None else run.settings
        told = with_trackers(one_listener(listener), settings.track)
        if settings.push_to_hub:
            check_push(settings.push_to_hub)
        try:
            run = _tune(settings, run, told)
        finally:
            told.closed()
    finally:
        if run is not None:
            run.close()
    if settings.push_to_hub:
        push(run.adapter, settings.push_to_hub)
    return run


def evaluate(model: Any = "", task: Any = "", *, listener: Listener | None = None, **options: Any) -> dict[str, Any]:
    """Score a saved adapter, or a model as it is, on one split of a task.

    Args:
        model: hub id, folder or a loaded ``LanguageModel``; a ``Run``, or the folder of one or of its adapter: then
            task, prompt and everything else is that of the run unless it is named here.
        task: name, or a ``Task``.
        listener: told how far it has come.
        options: any option of ``dfolora evaluate``: ``adapter``, ``split``, ``predictions``, ``data``, ...

    Returns:
        ``model, adapter, task, split, examples, metrics``.

    Raises:
        UserError: whatever was given that cannot work.
    """
    from dfolora.tasks.common import split_name

    named = {name: value for name, value in (("model", model), ("task", task)) if value}
    settings = with_demo(settings_of(EvaluateSettings, **description.complete({**named, **options})))
    settings = dataclasses.replace(settings, split=split_name(settings.split))
    files = {"train": settings.train_file, "dev": settings.dev_file or settings.train_file, "test": settings.test_file}
    if any(files.values()) and not files[settings.split]:
        raise UserError(f"split: {settings.split!r} needs examples; give them as {settings.split}_file")
    listener = listener or Listener()
    opened, examples = open_task(settings)
    split = examples(settings.split)
    encoder = open_prompt(settings, opened, split[0])
    language_model = encoder.language_model
    encoder.check(split)
    listener.stage(f"loading {description.name_of(settings.model)}")
    language_model.read_weights()
    adapter = load_adapter(encoder, settings.adapter) if settings.adapter else Bare(language_model)
    predictions = scoring.predict(adapter, encoder, split, settings.chunk_tokens, listener)
    if any(guess is None for guess in predictions.predicted):
        dtype = str(next(language_model.model.parameters()).dtype).removeprefix("torch.")
        raise UserError(f"dtype: class scores of this model are not numbers in {dtype}; try float32")
    if settings.predictions:
        scoring.save_predictions(
            Path(settings.predictions).expanduser(), encoder, split, predictions, settings.reward is None
        )
    return {
        "model": description.name_of(settings.model),
        "adapter": settings.adapter,
        "task": opened.name,
        "split": settings.split,
        "examples": len(split),
        "metrics": scoring.metrics(encoder, split, predictions),
    }


def problem(model: Any = "", task: Any = "", **options: Any) -> PartedProblem[Any]:
    """The search problem itself, for a loop of your own: ``losses``, ``keep``, ``save``.

    Args:
        model, task, options: as for ``tune`` with the method ``search``.

    Raises:
        UserError: whatever was given that cannot work.
    """
    named = {name: value for name, value in (("model", model), ("task", task)) if value}
    settings = run_settings(**{"method": "search", **named, **options})
    if not isinstance(settings, SearchSettings):
        raise UserError(f"method: a problem is for search, not for {settings.method}")
    check_workers(settings)
    opened, examples = open_task(settings)
    train, dev = examples("train"), examples("dev")
    check_examples(opened, train)
    encoder, train = open_prompts(settings, opened, train)
    encoder.language_model.read_weights()
    return open_problem(settings, encoder.language_model, encoder, train, dev)[0]


def load_adapter(encoder: PromptEncoder, folder: str) -> TunedModel:
    """Put what a folder holds on the model of an encoder: a LoRA adapter, or a soft prompt."""
    if encoder.soft is None:
        return adapters.load(encoder.language_model, folder)
    kind, model = prompt_folder.kind_of_folder(folder), encoder.language_model
    if kind == "prefix_tuning":
        return deep_prompted.load(model, folder, encoder.soft, prefix_folder.read_prefix(folder))
    if kind == "ipl-lora":
        assert encoder.instances is not None, "the encoder was made for gates"
        return gated_adapter.load(model, folder, encoder.soft, encoder.instances)
    return prompted.load(model, folder, encoder.soft, encoder.instances)


def _tune(settings: TuneSettings, run: Run | None, listener: Listener) -> Run:
    check_workers(settings)
    opened, examples = open_task(settings)
    if settings.reward is not None and settings.objective == "cross-entropy":
        settings = dataclasses.replace(settings, objective="metric")
    make_objective(settings.objective, opened)  # a mistyped name should not cost the loading of a model
    train, dev = examples("train"), examples("dev")
    test = [] if settings.test_split == "none" else examples(settings.test_split)
    check_examples(opened, train)
    encoder, train = open_prompts(settings, opened, train)
    opened, language_model = encoder.task, encoder.language_model
    for examples_there in (train, dev, test):  # a row that does not fit should not show after the search
        encoder.check(examples_there)
    listener.stage(f"loading {description.name_of(settings.model)}")
    language_model.read_weights()
    listener.stage("measuring the model on the few-shot set")
    method, measured = open_method(settings, language_model, encoder, train, dev, run.measured() if run else None)
    checksum = method.problem.data_checksum
    remarks = [method.remark()]
    if run is not None:
        remarks.append(run.begin(checksum))
    else:
        run = Run.create(settings, language_model.device, checksum, measured)
    listener.started(run, "; ".join(filter(None, remarks)))
    try:
        last = _to_the_end(method, run, encoder, opened, listener, len(test))
        scores = _scores(method, run, last, opened, {"train": train, "dev": dev, settings.test_split: test})
        if isinstance(method, AllWeights):
            chosen = method.chosen
            best = method.problem.selection.best
            # Room for the weights as they were, from which all others follow; what loads them holds itself in circles.
            del method, encoder, language_model
            gc.collect()
            _finish_weights(run, opened, test, scores, best, chosen, listener)
        else:
            _finish_adapter(run, method.problem.adapter, encoder, test, scores, listener)
        run.save_scores(scores)
        listener.finished(run)
    except RewardError as error:
        raise UserError(f"{error}; all evaluations so far are in the log, go on with --resume {run.folder}") from error
    finally:
        run.close()
    return run


def _to_the_end(method: Any, run: Run, encoder: PromptEncoder, task: Task, listener: Listener, tests: int) -> Line:
    """Run the method; save the best adapter so far when it is interrupted."""
    try:
        return run_method(method, run, listener, tests)
    except KeyboardInterrupt:
        if not isinstance(method, AllWeights):
            _save(run, method.problem.adapter, encoder, f"# Stopped early: the best adapter so far for {task.name}\n")
        raise


def _scores(method: Any, run: Run, last: Line, task: Task, examples: dict[str, list[Example]]) -> dict[str, Any]:
    """The result of a run, before the test set is scored."""
    settings, best = run.settings, method.problem.selection.best
    return {
        "model": description.name_of(settings.model),
        "task": task.name,
        "method": settings.method,
        "optimizer": settings.search,
        "subspace": description.name_of(settings.subspace) if isinstance(settings, SearchSettings) else "",
        "tune": settings.tune if isinstance(settings, SearchSettings) else "lora",
        "first_order_layers": method.layers if isinstance(method, FirstOrder) else [],
        "seed": settings.seed,
        "evaluations": last.evaluations,
        "token_layers": last.token_layers,
        "dev_token_layers": last.dev_token_layers,
        "forwards": last.forwards,
        "backwards": last.backwards,
        "seconds": last.seconds,
        "zero_shot": {},
        "tuned": {},
        "dev_zero_shot": method.problem.selection.base,
        "dev_tuned": best.dev["metrics"] if best.dev else {},
        "dev_loss": best.dev["loss"] if best.dev else None,
        "selected_at": best.evaluations,
        "ended": last.ended,
        "examples": {split: len(each) for split, each in examples.items()},
        "run": str(run.folder),
        "model_folder" if settings.method == "full-parameter" else "adapter": run.adapter,
    }


def _save(run: Run, tuned: TunedModel, encoder: PromptEncoder, card: str) -> None:
    texts = {"README.md": card, description.FILE: description.text(run.settings, encoder)}
    tuned.save(Path(run.adapter), texts, encoder.tokenizer)


def _write_down(
    run: Run, name: str, encoder: PromptEncoder, test: list[Example], predictions: scoring.Predictions
) -> None:
    scoring.save_predictions(run.folder / name, encoder, test, predictions, run.settings.reward is None)


def _finish_adapter(
    run: Run,
    adapter: TunedModel,
    encoder: PromptEncoder,
    test: list[Example],
    scores: dict[str, Any],
    listener: Listener,
) -> None:
    """Save the adapter first, then score it; the card is written again with the scores."""
    card = lambda: model_card(run.settings, scores, encoder)  # noqa: E731
    _save(run, adapter, encoder, card())
    if not test:
        return
    chunk = run.settings.chunk_tokens
    tuned = scoring.predict(adapter, encoder, test, chunk, listener, "scoring the tuned model")
    scores["tuned"] = scoring.metrics(encoder, test, tuned)
    _write_down(run, "predictions.jsonl", encoder, test, tuned)
    selected = adapter.state()
    adapter.clear()
    bare = encoder.without_prompt()
    plain = scoring.predict(adapter, bare, test, chunk, listener, "scoring the model as it was")
    adapter.restore(selected)
    scores["zero_shot"] = scoring.metrics(encoder, test, plain)
    _write_down(run, "zero_shot_predictions.jsonl", encoder, test, plain)
    write_text(Path(run.adapter) / "README.md", card())


def _finish_weights(
    run: Run, task: Task, test: list[Example], scores: dict[str, Any], best: Line, chosen: str, listener: Listener
) -> None:
    """The same for all weights: the model is loaded anew, since the search has moved it past the best step."""
    settings = run.settings
    assert isinstance(settings, FullParameterSettings), "no other method moves all weights"

    def fresh() -> tuple[PromptEncoder, Bare]:
        language_model = open_model(settings).read_weights()
        return PromptEncoder(language_model, task, settings.max_length or 0), Bare(language_model)

    encoder, bare = fresh()
    move_to(run.logged(), best.generation, chosen, mover(settings, bare.model, lambda: 0.0))
    _save(run, bare, encoder, model_card(settings, scores, encoder))
    if not test:
        return
    tuned = scoring.predict(bare, encoder, test, settings.chunk_tokens, listener, "scoring the tuned model")
    scores["tuned"] = scoring.metrics(encoder, test, tuned)
    _write_down(run, "predictions.jsonl", encoder, test, tuned)
    del encoder, bare
    gc.collect()
    encoder, bare = fresh()
    plain = scoring.predict(bare, encoder, test, settings.chunk_tokens, listener, "scoring the model as it was")
    scores["zero_shot"] = scoring.metrics(encoder, test, plain)
    _write_down(run, "zero_shot_predictions.jsonl", encoder, test, plain)
    write_text(Path(run.adapter) / "README.md", model_card(settings, scores, encoder))
