"""The command ``prompt``."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from dfolora.errors import UserError
from dfolora.flags import MISSING, add_file, add_settings, said
from dfolora.reasoning import REGISTRY, options_of
from dfolora.reasoning.folder import settings_of
from dfolora.runs.progress import Display
from dfolora.settings.prompting import EvolveSettings, PromptSettings
from dfolora.settings.yaml_file import read_yaml
from dfolora.texts import REGISTRY as TEXTS
from dfolora.texts import text_options

KINDS = {"prompt": EvolveSettings}
LISTS = {"predictors": "list the ways to answer questions", "question-sets": "list the sets of questions"}


def lines(what: str) -> dict[str, str]:
    """Name -> what it is, in one line, of one of ``LISTS``."""
    from dfolora.reasoning.opening import question_sets

    return REGISTRY.describe() if what == "predictors" else question_sets()


def add_command(add: Callable[..., Any], argv: list[str]) -> None:
    """Add the parser.

    Args:
        add: makes one, given name, help and more text.
        argv: the command line, which names the method whose options become flags.
    """
    parser = add(
        "prompt",
        "answer questions by a chat model, step by step, and score the answers",
        "Example: dfolora prompt --model HuggingFaceTB/SmolLM2-135M-Instruct --task coin-flip --data data/reasoning "
        "--method eot --limit 20",
    )
    add_file(parser)
    parser.add_argument("--resume", metavar="RUN", help="go on with a run folder; with --max-calls, beyond its limit")
    add_settings(parser, kind_of(argv), own_options(argv), "the method")
    if kind_of(argv) is PromptSettings:
        group = parser.add_argument_group("Instructions that evolve")
        group.add_argument("--evolve", metavar="NAME", default=MISSING, help=f"{', '.join(TEXTS.names())}; has options")


def kind_of(argv: list[str]) -> type[PromptSettings]:
    """The settings of a command line: those of a search for an instruction, or of answering questions."""
    return EvolveSettings if argv[:1] == ["prompt"] and _said(argv, "evolve") else PromptSettings


def _said(argv: list[str], name: str) -> str:
    """What a flag, or the file of ``--config`` or ``--resume``, says of an option; '' where nothing is said."""
    flags = said(argv)
    if name in flags:
        return flags[name]
    folder = flags.get("resume", "")
    if folder and (Path(folder).expanduser() / "config.yaml").is_file():
        return str(settings_of(Path(folder).expanduser()).get(name, ""))
    return str(read_yaml(flags["config"]).get(name, "")) if flags.get("config") else ""


def own_options(argv: list[str]) -> dict[str, Any]:
    """What the method that a command line or its file names takes itself."""
    if argv[:1] != ["prompt"]:
        return {}
    evolves = kind_of(argv) is EvolveSettings
    method = _said(argv, "method") or ("zero-shot-cot" if evolves else "eot")
    search = _said(argv, "evolve")
    found = text_options(search) if search in TEXTS.names() else {}
    names = [method] if method in REGISTRY.names() else REGISTRY.builtin()
    more = {name: option for each in names for name, option in options_of(each).items() if name not in found}
    return {**more, **found}


def option_names(argv: list[str]) -> set[str]:
    """Names of ``own_options``, for an error that is being told; none where a file that says them cannot be read."""
    try:
        return set(own_options(argv))
    except UserError:
        return set()


def run(command: str, values: dict[str, Any], as_json: bool, argv: list[str]) -> int:
    """Run it and print the scores; the exit code."""
    from dfolora.evolution.run import evolve
    from dfolora.reasoning.opening import prompt

    config, resume = values.pop("config"), values.pop("resume")
    if config and resume:
        raise UserError(f"resume: everything comes from {resume}; leave out --config")
    file = {name.replace("-", "_"): value for name, value in read_yaml(config).items()} if config else {}
    values = {**file, **values}
    evolves = bool(values.get("evolve") or (resume and _said(["--resume", resume], "evolve")))
    with Display() as display:
        try:
            scores = (evolve if evolves else prompt)(**values, resume=resume, listener=display)
        except KeyboardInterrupt:
            print("stopped; the same command goes on, with --output or --resume and its run folder", file=sys.stderr)
            raise
    try:
        print(json.dumps(scores) if as_json else found_text(scores) if evolves else table(scores))
    except (LookupError, TypeError, ValueError, AttributeError) as error:  # of a finished run, read from its folder
        raise UserError(f"resume: the run's scores.json is damaged ({error!s:.100}); remove it, and go on") from error
    return 0


def found_text(scores: dict[str, Any]) -> str:
    """The instruction that a search found, as lines for people."""
    rows = {name: scores[name] for name in ("plain", "evolved")}
    shown = {
        name: ", ".join(f"{key} {value:.2f}" for key, value in row.items() if isinstance(value, float))
        for name, row in rows.items()
    }
    return "\n".join(
        [
            f"{scores['evolve']} on {scores['task']}: {scores['scored']} instructions scored, {scores['calls']} calls",
            f"  best     {scores['best']}",
            f"  loss     {scores['loss']:.4f}, on the dev examples {scores['dev_loss']:.4f}",
            f"  plain    {shown['plain']} ({rows['plain']['questions']} test examples)",
            f"  evolved  {shown['evolved']}",
            f"run: {scores['run']}",
        ]
    )


def table(scores: dict[str, Any]) -> str:
    """The scores as lines for people."""
    low, high = scores["interval"]
    tokens = [scores[f"{name}_tokens_per_question"] for name in ("prompt", "completion")]
    spent = "tokens not counted" if None in tokens else f"{tokens[0]:.0f} tokens read and {tokens[1]:.0f} written"
    lines = [
        f"{scores['method']} on {scores['task']}, {scores['model']}: {scores['questions']} questions",
        f"  accuracy   {scores['accuracy']:.1f} % ({low:.1f} to {high:.1f})",
        f"  answers    {scores['correct']} right, {scores['wrong']} wrong, {scores['no_answer']} without an answer, "
        f"{scores['cut']} cut off",
        f"  a question {scores['calls_per_question']:.2f} calls, {spent}",
        f"run: {scores['run']}",
    ]
    return "\n".join(lines)
