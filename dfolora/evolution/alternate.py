"""``dfolora.alternate``: the instruction and the weights in turn, each searched with the other held.

A cycle is a search for an instruction, scored with the last cycle's adapter, and then a search for an adapter, from
zero, with that instruction in front of the task's prompt. Both are runs of their own with a folder each. This file
stands beside the library, as a user's script would: it deals out the budget, calls one after the other, goes on where
it was stopped, and keeps the cycle that the dev examples like best.
"""

from __future__ import annotations

import dataclasses
import json
import math
import shutil
import time
from pathlib import Path
from typing import Any

import dfolora
from dfolora.chat import Chat
from dfolora.errors import UserError
from dfolora.evolution.run import search_texts
from dfolora.opening import run_settings
from dfolora.reasoning.folder import PromptFolder
from dfolora.runs.description import name_of
from dfolora.runs.listener import Listener
from dfolora.settings.build import saved
from dfolora.settings.options import as_text
from dfolora.settings.prompting import AlternateSettings, EvolveSettings
from dfolora.settings.tune import TuneSettings
from dfolora.settings.yaml_file import read_yaml
from dfolora.texts import text_options

FREE = ("max_calls", "device", "chunk_tokens", "trust_remote_code")  # which may stand beside resume


def alternate(
    model: Any = "",
    task: Any = "",
    *,
    chat: Chat | None = None,
    resume: str | Path | None = None,
    listener: Listener | None = None,
    **options: Any,
) -> dict[str, Any]:
    """Search for an instruction and for an adapter in turn, out of one budget.

    An instruction that is scored, and a candidate of the weight search, are an evaluation each. A run that was stopped
    goes on when it is called again with the same options and ``output``, or with ``resume``.

    Args:
        model, task: as for ``dfolora.tune``; the task is one of choices.
        chat: what varies the instructions; None: the server of ``base_url``, or else the model itself.
        resume: the folder of a run to go on with. What was given as an object must be given again.
        listener: told how it gets on.
        options: any option of ``dfolora tune``, and those of ``dfolora alternate``: ``cycles``, ``scored``, ...

    Returns:
        What ``scores.json`` holds: ``instruction`` and ``template``, the ``adapter``'s folder, its metrics ``tuned``,
        those of the model as it was with the task's own prompt (``plain``), and an entry for each of the ``cycles``.

    Raises:
        UserError: whatever was given that cannot work; ``CallLimit`` where a cycle's ``max_calls`` are used up.
    """
    given = {name: value for name, value in (("model", model), ("task", task)) if value != ""}
    values = _values({**given, **options}, resume)
    names = {field.name for field in dataclasses.fields(AlternateSettings)}
    settings = AlternateSettings(**{name: value for name, value in values.items() if name in names})
    tuning = {name: value for name, value in values.items() if name not in names}
    resolved = _checked(settings, tuning)
    if not resolved.output:
        raise UserError("output: where? name the folder of the run")
    path = Path(resolved.output).expanduser().resolve()
    if (path / "config.yaml").is_file() and "cycles" not in read_yaml(str(path / "config.yaml"), "output"):
        raise UserError(f"output: {str(path)!r} is of a run of another kind; choose another folder")
    with PromptFolder.open(path, {**saved(resolved), **saved(settings)}) as folder:
        return folder.scores or _alternate(settings, resolved, tuning, folder, chat, listener or Listener())


def _values(values: dict[str, Any], resume: str | Path | None) -> dict[str, Any]:
    """The options, those of a run that goes on among them."""
    values = {name.replace("-", "_"): value for name, value in values.items()}
    if not resume:
        return values
    path = Path(resume).expanduser()
    known = read_yaml(str(path / "config.yaml"), "resume") if (path / "config.yaml").is_file() else {}
    if "cycles" not in known:
        raise UserError(f"resume: {str(path)!r} is no run of `dfolora alternate`")
    for name, value in values.items():
        if name not in FREE and (isinstance(value, str) or as_text(value) != known.get(name)):
            raise UserError(f"resume: everything comes from {str(path)!r}; leave out {name}")
    # Somebody's code runs only where the user says so.
    known = {name: value for name, value in known.items() if name not in ("trust_remote_code", "max_calls")}
    return {**known, **values, "output": str(path)}


def _checked(settings: AlternateSettings, tuning: dict[str, Any]) -> TuneSettings:
    """The settings of the weight searches, with the budget of all.

    Raises:
        UserError: options that cannot work, or that do not go with an instruction in front.
    """
    if "population" not in text_options(settings.evolve):
        raise UserError(f"evolve: {settings.evolve} does not alternate, as it has no generations; take evoprompt-ga")
    resolved = run_settings(**tuning)
    if resolved.method == "full-parameter" or getattr(resolved, "tune", "lora") != "lora":
        what = f"tune: {resolved.tune}" if hasattr(resolved, "tune") else f"method: {resolved.method}"
        raise UserError(f"{what} does not alternate with instructions; it is LoRA that does")
    for name in ("demonstrations", "push_to_hub", "extend", "reward"):
        if getattr(resolved, name):
            raise UserError(
                f"{name}: {getattr(resolved, name)!r} does not go with instructions that change; leave it out"
            )
    share, most = resolved.budget // settings.cycles, settings.scored + settings.text_population
    if share <= most:
        raise UserError(
            f"budget: {resolved.budget} evaluations are {share} a cycle, and its instructions may take {most}; "
            f"give more than {most * settings.cycles}"
        )
    run_settings(**{**tuning, "budget": share - most})  # what is too little for the method should show now
    return resolved


def _alternate(
    settings: AlternateSettings,
    resolved: TuneSettings,
    tuning: dict[str, Any],
    folder: PromptFolder,
    chat: Chat | None,
    listener: Listener,
) -> dict[str, Any]:
    started = time.monotonic()
    done: list[dict[str, Any]] = []
    for cycle in range(1, settings.cycles + 1):
        place = folder.path / f"cycle-{cycle}"
        text = search_texts(_text_step(settings, resolved, place / "text", done), resolved, chat, listener)
        spent = sum(each["evaluations"] for each in done) + text["scored"]
        budget = resolved.budget * cycle // settings.cycles - spent
        listener.stage(f"cycle {cycle} of {settings.cycles}: tuning with {text['best']!r}")
        weights = _weight_step(tuning, text["template"], budget, place / "weights", listener)
        done.append(
            {
                "instruction": text["best"],
                "template": text["template"],
                "text_dev_loss": text["dev_loss"],
                "plain": text["plain"],
                "evolved": text["evolved"],
                "calls": text["calls"],
                "evaluations": text["scored"] + weights["evaluations"],
                "dev_loss": weights["dev_loss"],
                "tuned": weights["tuned"],
                "adapter": weights["adapter"],
            }
        )
    best = min(done, key=lambda each: math.inf if each["dev_loss"] is None else each["dev_loss"])
    _copy(Path(best["adapter"]), folder.path / "adapter")
    scores = {
        "model": name_of(resolved.model),
        "task": name_of(resolved.task) or Path(resolved.train_file).stem,
        "instruction": best["instruction"],
        "template": best["template"],
        "plain": done[0]["plain"],
        "tuned": best["tuned"],
        "dev_loss": best["dev_loss"],
        "evaluations": sum(each["evaluations"] for each in done),
        "calls": sum(each["calls"] for each in done),
        "best_cycle": done.index(best) + 1,
        "cycles": done,
        "seconds": time.monotonic() - started,
        "adapter": str(folder.path / "adapter"),
        "run": str(folder.path),
    }
    folder.finish(scores)
    return scores


def _text_step(
    settings: AlternateSettings, resolved: TuneSettings, output: Path, done: list[dict[str, Any]]
) -> EvolveSettings:
    """The search for an instruction, which begins with that of the cycle before and holds its adapter."""
    from dfolora.evolution.fitness import ChoiceFitness

    first = [text.strip() for text in settings.texts.split("|") if text.strip()] or list(ChoiceFitness.seeds)
    if done:
        first = [done[-1]["instruction"].replace("|", "/"), *first]
    return EvolveSettings(
        model=resolved.model, task=resolved.task or resolved.train_file, output=str(output),
        adapter=done[-1]["adapter"] if done else "", texts=" | ".join(dict.fromkeys(first)), scored=settings.scored,
        evolve=settings.evolve, evolve_options={"population": settings.text_population}, base_url=settings.base_url,
        api_model=settings.api_model, key_variable=settings.key_variable, max_calls=settings.max_calls,
        device=resolved.device, dtype=resolved.dtype, trust_remote_code=resolved.trust_remote_code,
        seed=(resolved.seed + len(done)) % 2**31,
    )  # fmt: skip


def _weight_step(
    tuning: dict[str, Any], template: str, budget: int, output: Path, listener: Listener
) -> dict[str, Any]:
    """The search for an adapter with an instruction held: begun, gone on with, or finished already."""
    if (output / "scores.json").is_file():
        found: dict[str, Any] = json.loads((output / "scores.json").read_text(encoding="utf-8"))
        return found
    if (output / "config.yaml").is_file():
        simple = (str, int, float, bool, dict, list, type(None))
        objects = {name: value for name, value in tuning.items() if not isinstance(value, simple) or name in FREE}
        return dfolora.tune(resume=output, listener=listener, **objects).scores
    own = {**tuning, "template": template, "budget": budget, "output": str(output)}
    return dfolora.tune(listener=listener, **own).scores


def _copy(adapter: Path, folder: Path) -> None:
    """Put a copy of the best adapter where the run's own is looked for, whole or not at all."""
    partial = folder.with_name("adapter.partial")
    shutil.rmtree(partial, ignore_errors=True)
    shutil.copytree(adapter, partial)
    shutil.rmtree(folder, ignore_errors=True)
    partial.replace(folder)
