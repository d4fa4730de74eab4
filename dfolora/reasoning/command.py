"""The command ``prompt``."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from typing import Any

from dfolora.errors import UserError
from dfolora.flags import add_settings
from dfolora.reasoning import REGISTRY, options_of
from dfolora.runs.progress import Display
from dfolora.settings.prompting import PromptSettings
from dfolora.settings.yaml_file import read_yaml


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
    parser.add_argument("--config", metavar="FILE", help="YAML file with any of these options; flags win")
    parser.add_argument("--resume", metavar="RUN", help="go on with a run folder; with --max-calls, beyond its limit")
    add_settings(parser, PromptSettings, own_options(argv), "the method")


def own_options(argv: list[str]) -> dict[str, Any]:
    """What the method that a command line or its file names takes itself."""
    if argv[:1] != ["prompt"]:
        return {}
    words = [part for word in argv for part in (word.split("=", 1) if word.startswith("--") else [word])]
    pairs = dict(zip(words, words[1:], strict=False))
    method = pairs.get("--method") or "eot"
    if "--method" not in pairs and "--config" in pairs:
        method = str(read_yaml(pairs["--config"]).get("method", "eot"))
    if method not in REGISTRY.names():
        return {name: option for each in REGISTRY.builtin() for name, option in options_of(each).items()}
    return options_of(method)


def run(values: dict[str, Any], as_json: bool) -> int:
    """Run it and print the scores; the exit code."""
    from dfolora.reasoning.opening import prompt

    config, resume = values.pop("config"), values.pop("resume")
    if config and resume:
        raise UserError(f"resume: everything comes from {resume}; leave out --config")
    file = {name.replace("-", "_"): value for name, value in read_yaml(config).items()} if config else {}
    with Display() as display:
        try:
            scores = prompt(**{**file, **values}, resume=resume, listener=display)
        except KeyboardInterrupt:
            print("stopped; the same command goes on, with --output or --resume and its run folder", file=sys.stderr)
            raise
    print(json.dumps(scores) if as_json else table(scores))
    return 0


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
