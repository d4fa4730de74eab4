"""``dfolora prompt --evolve``: the run of a search for an instruction, whose log brings it back."""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from dfolora.chat import CallLimit, Chat
from dfolora.errors import UserError, unknown
from dfolora.evolution.fitness import ChoiceFitness, Fitness, QuestionFitness
from dfolora.question import QuestionSet
from dfolora.reasoning import options_of, own_options
from dfolora.reasoning.folder import FREE, PromptFolder, settings_of
from dfolora.reasoning.opening import called_up, named_set, open_model, saved_prompt, task_name, unused
from dfolora.runs.description import name_of
from dfolora.runs.listener import Listener
from dfolora.settings.model import ModelSettings
from dfolora.settings.prompting import EvolveSettings
from dfolora.texts import make_text_optimizer, text_options
from dfolora.texts.gepa import Gepa, Judged
from dfolora.texts.optimizer import TextOptimizer

STALE = 5  # generations in a row that name no new text end a search


def evolve(
    model: Any = "",
    task: Any = "",
    *,
    chat: Chat | None = None,
    resume: str | Path | None = None,
    listener: Listener | None = None,
    **options: Any,
) -> dict[str, Any]:
    """Search for the instruction that a task goes best with; the dev examples select, the test set only reports.

    The log holds the texts and losses of each generation, the cache every reply that was paid for: a run that was
    killed or stopped by ``max_calls`` goes on as ``dfolora.prompt`` does.

    Args:
        model: folder or hub id of a causal model; in Python also a ``LanguageModel``, or for questions a ``Chat``.
        task: a set of questions, or a task of choices.
        chat: of a task of choices, what varies the instructions; None: the server of ``base_url``, or else the model
            itself, without the adapter. It must be the same one when a run goes on.
        resume: the folder of a run to go on with.
        listener: told how it gets on.
        options: any option of ``dfolora prompt --evolve``.

    Returns:
        What ``scores.json`` holds: ``best`` (the instruction), its ``loss`` and ``dev_loss``, ``scored`` texts,
        ``calls``, of a task of choices the ``template`` with which ``dfolora.tune`` and others ask in that way, and the
        test metrics ``plain`` (without it) and ``evolved``.

    Raises:
        UserError: whatever was given that cannot work; ``CallLimit`` where ``max_calls`` is reached before the end.
    """
    given = {name: value for name, value in (("model", model), ("task", task)) if value != ""}
    return search_texts(evolve_settings({**given, **options}, resume), None, chat, listener or Listener())


def search_texts(
    settings: EvolveSettings, scored_by: ModelSettings | None, chat: Chat | None, listener: Listener
) -> dict[str, Any]:
    """As ``evolve``, from settings.

    Args:
        settings: of the search.
        scored_by: the model, task and examples that score an instruction; None: those that ``settings`` name.
        chat, listener: as for ``evolve``.
    """
    questions = named_set(settings.task) if scored_by is None else None
    if questions is None and not settings.model:
        raise UserError("model: a task of choices is scored by a local model; name its folder or hub id")
    if questions is not None and not settings.data:
        raise UserError("data: where are the questions? name their folder or file")
    if questions is not None and chat is not None:
        raise UserError("chat: the model that answers questions varies the instructions too; leave chat out")
    if questions is None and settings.slot != "solve":
        raise UserError(f"slot: {settings.slot!r} is a step of eot; a task of choices has the one instruction, solve")
    path = Path(settings.output).expanduser() if settings.output else unused(settings, f"evolve-{settings.evolve}")
    if questions is not None:
        QuestionFitness(settings, questions, None)  # type: ignore[arg-type]  # whatever is wrong shows before a folder is made
    with PromptFolder.open(path, saved_prompt(settings)) as folder:
        return folder.scores or _search(settings, questions, scored_by, folder, chat, listener)


def evolve_settings(values: dict[str, Any], resume: str | Path | None = None) -> EvolveSettings:
    """The settings that options make, those of the optimizer and of the method among them.

    Raises:
        UserError: an option that there is not, or a value that cannot work.
    """
    values = {name.replace("-", "_"): value for name, value in values.items()}
    if resume:
        free = set(FREE) - {"output"}
        old = settings_of(Path(resume).expanduser())
        extra = [
            name for name in values if name not in free and not (name == "model" and isinstance(values[name], Chat))
        ]
        if extra := [name for name in extra if name != "evolve" or values[name] != old.get("evolve")]:
            raise UserError(f"resume: everything comes from {str(resume)!r}; leave out {', '.join(sorted(extra))}")
        old = {name: value for name, value in old.items() if name not in ("predictor", "max_calls")}
        values = {**old, **values, "output": str(Path(resume).expanduser())}
    names = {field.name for field in dataclasses.fields(EvolveSettings)} - {"predictor_options", "evolve_options"}
    takes = text_options(str(values.get("evolve", "evoprompt-ga")))
    method = str(values.get("method", "zero-shot-cot"))
    methods = options_of(method)
    plain = {name: value for name, value in values.items() if name in names}
    searched = {name: value for name, value in values.items() if name in takes and name not in names}
    asked = {name: value for name, value in values.items() if name in methods and name not in (*names, *takes)}
    for name in values:
        if name not in {*names, *takes, *methods}:
            raise unknown("option", name, {*names, *takes, *methods})
    return EvolveSettings(**plain, predictor_options=own_options(method, asked), evolve_options=searched)


def _search(
    settings: EvolveSettings,
    questions: QuestionSet | None,
    scored_by: ModelSettings | None,
    folder: PromptFolder,
    chat: Chat | None,
    listener: Listener,
) -> dict[str, Any]:
    started = time.monotonic()
    listener.stage(f"opening {name_of(settings.model) or settings.base_url}")
    fitness, chat = _opened(settings, questions, scored_by, folder, chat)
    seeds = [text.strip() for text in settings.texts.split("|") if text.strip()] or list(fitness.seeds)
    optimizer = make_text_optimizer(settings.evolve, chat, seeds, settings.seed, settings.evolve_options)
    try:
        if isinstance(optimizer, Gepa):
            best = _by_itself(settings, optimizer, fitness, folder, chat, listener)
        else:
            best = _go_on(settings, optimizer, fitness, folder, chat, listener)
        listener.stage("scoring the test set")
        plain, evolved = fitness.report(None), fitness.report(best["text"])
    except CallLimit as limit:
        raise called_up(settings, folder, f"{len(optimizer.known)} of {settings.scored} instructions") from limit
    scores = {
        "model": name_of(settings.model) or settings.api_model,
        "task": task_name(settings),
        "evolve": settings.evolve,
        "slot": settings.slot,
        "best": best["text"],
        "loss": optimizer.known[best["text"]],
        "dev_loss": best["dev"],
        "scored": len(optimizer.known),
        "calls": chat.ledger.calls,
        **({"template": fitness.template(best["text"])} if isinstance(fitness, ChoiceFitness) else {}),
        "plain": plain,
        "evolved": evolved,
        "seconds": time.monotonic() - started,
        "run": str(folder.path),
    }
    folder.finish(scores)
    return scores


def _opened(
    settings: EvolveSettings,
    questions: QuestionSet | None,
    scored_by: ModelSettings | None,
    folder: PromptFolder,
    chat: Chat | None,
) -> tuple[Fitness, Chat]:
    """What scores instructions, and what varies them; a local model that does both is loaded once."""
    if questions is not None:
        answers = open_model(settings, folder)
        return QuestionFitness(settings, questions, answers), answers
    if scored_by is None:
        scored_by = ModelSettings(
            model=settings.model, task=settings.task, data=settings.data, shots=settings.shots, seed=settings.seed,
            device=settings.device, dtype=settings.dtype, trust_remote_code=settings.trust_remote_code,
            test_limit=settings.limit,
        )  # fmt: skip
    fitness = ChoiceFitness(scored_by)
    other = chat if chat is not None else None if settings.base_url else fitness.language_model
    varies = open_model(dataclasses.replace(settings, model=other, adapter=""), folder)
    if settings.adapter:
        fitness.hold(settings.adapter)  # after the chat was named by the weights as they are without it
    return fitness, varies


def _go_on(
    settings: EvolveSettings, optimizer: TextOptimizer, fitness: Fitness, folder: PromptFolder, chat: Chat,
    listener: Listener,
) -> dict[str, Any]:  # fmt: skip
    """Tell the optimizer what the log holds, and search on; the best text on the dev examples and its loss there."""
    best: dict[str, Any] = {"text": optimizer.seeds[0], "dev": math.inf}
    logged, stale = list(folder.lines), 0
    while len(optimizer.known) < settings.scored and stale < STALE:
        before = optimizer.best_loss
        texts = optimizer.ask()
        if logged:
            line = logged.pop(0)
            if line["texts"] != texts:
                raise UserError(f"resume: the log of {str(folder.path)!r} cannot be repeated; was its cache removed?")
            losses = line["losses"]
        else:
            losses = _losses(settings, optimizer, fitness, texts, listener)
            line = {}
        optimizer.tell(losses)
        stale = 0 if texts else stale + 1
        if not line:
            better = optimizer.best_loss < before
            line = {"index": len(folder.lines), "calls": chat.ledger.calls, "texts": texts, "losses": losses}
            line["dev"] = fitness.look(optimizer.best) if better else None
            folder.add(line)
        if line["dev"] is not None and line["dev"] < best["dev"]:
            best = {"text": optimizer.best, "dev": line["dev"]}
    return best


def _by_itself(
    settings: EvolveSettings, optimizer: Gepa, fitness: Fitness, folder: PromptFolder, chat: Chat, listener: Listener
) -> dict[str, Any]:
    """Let GEPA search, for as many judgements of an example as ``scored`` instructions would take; as ``_go_on``."""
    seen = 0

    def judge(text: str, split: str, places: Sequence[int]) -> list[Judged]:
        nonlocal seen
        listener.stage(f"{settings.evolve}: {seen} of {judgements} examples judged")
        seen += len(places)
        return fitness.judge(text, split, places)

    judgements = settings.scored * len(fitness.train)
    texts = optimizer.search(judge, len(fitness.train), len(fitness.dev), judgements)
    losses = list(fitness.losses(texts))
    dev = fitness.look(optimizer.best)
    optimizer.known = dict(zip(texts, losses, strict=True))
    if not folder.lines:
        folder.add({"index": 0, "calls": chat.ledger.calls, "texts": texts, "losses": losses, "dev": dev})
    return {"text": optimizer.best, "dev": dev}


def _losses(
    settings: EvolveSettings, optimizer: TextOptimizer, fitness: Fitness, texts: list[str], listener: Listener
) -> list[float]:
    """The losses of a generation; the listener is told of each."""
    losses: list[float] = []

    def tell() -> None:
        done = len(optimizer.known) + len(losses)
        best = f"best {optimizer.best_loss:.4f}"
        listener.stage(f"{settings.evolve}: {done} of {settings.scored} instructions, {best}")

    tell()
    for loss in fitness.losses(texts):
        losses.append(loss)
        tell()
    return losses
