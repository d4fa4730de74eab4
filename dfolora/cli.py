"""The ``dfolora`` command: parse, call, print. It decides nothing."""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

from dfolora.errors import UserError, unknown
from dfolora.settings.config import BenchConfig, EvaluateConfig, ModelConfig, TuneConfig
from dfolora.settings.options import build, flag, read_yaml

SYNTHETIC = (
    "The demo's language is synthetic: its sentences come from a grammar in this package, its model was trained on it."
)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; 0 for success, 2 for bad input (one line on standard error), 130 when interrupted."""
    try:
        return _run(list(sys.argv[1:] if argv is None else argv))
    except UserError as error:
        print("dfolora: " + " ".join(str(error).split()), file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("dfolora: interrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:  # the reader of our output, such as `head`, has gone
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1


class _Parser(argparse.ArgumentParser):
    """argparse with errors of one line and near misses for flags."""

    def error(self, message: str) -> NoReturn:
        raise UserError(message + f"; see `{self.prog} --help`")


def _parser() -> _Parser:
    parser = _Parser(prog="dfolora", description="Tune LoRA adapters of any Hugging Face model without gradients.")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND")
    for name, kind, text in (
        ("tune", TuneConfig, "tune an adapter; with nothing given, the embedded demo"),
        ("evaluate", EvaluateConfig, "score a saved adapter, or a model as it is"),
        ("bench", BenchConfig, "measure how fast a population is scored, in units of plain inference"),
    ):
        command = commands.add_parser(name, help=text, description=text, allow_abbrev=False)
        command.add_argument("--config", metavar="FILE", help="YAML file with any of these flags; flags win")
        if name == "tune":
            command.add_argument("--resume", metavar="RUN", help="go on with an interrupted run folder")
        for field in dataclasses.fields(kind):
            text = f"{field.metadata['help']} (default: {field.default!r})"
            if isinstance(field.default, bool):
                command.add_argument(flag(field.name), action="store_true", default=argparse.SUPPRESS, help=text)
            else:
                metavar = type(field.default).__name__.upper()
                command.add_argument(flag(field.name), default=argparse.SUPPRESS, metavar=metavar, help=text)
        command.add_argument("--json", action="store_true", help="print one JSON object on standard output")
    for name, text in (("tasks", "list the tasks"), ("optimizers", "list the optimizers")):
        command = commands.add_parser(name, help=text, description=text, allow_abbrev=False)
        command.add_argument("--json", action="store_true", help="print one JSON object on standard output")
    return parser


def _run(argv: list[str]) -> int:
    parser = _parser()
    arguments, rest = parser.parse_known_args(argv)
    if rest:
        commands = parser._subparsers._group_actions[0].choices  # type: ignore[union-attr]
        known = commands.get(arguments.command, parser)._option_string_actions  # type: ignore[union-attr]
        raise unknown("flag", rest[0].split("=")[0], known)
    given = vars(arguments)
    command = given.pop("command", None)
    if command is None:
        parser.print_help()
        return 0
    as_json = given.pop("json")
    if command == "tune":
        return _tune(given, as_json)
    if command == "evaluate":
        return _evaluate(given, as_json)
    if command == "bench":
        return _bench(given, as_json)
    return _tasks(as_json) if command == "tasks" else _optimizers(as_json)


def _tune(given: dict[str, Any], as_json: bool) -> int:
    from dfolora import api as jobs
    from dfolora.runs.folder import Run
    from dfolora.runs.progress import Display

    resume = given.pop("resume")
    if resume:
        if extra := [flag(name) for name, value in given.items() if value is not None]:
            raise UserError(f"--resume: everything comes from {resume}/config.yaml; leave out {', '.join(extra)}")
        run = Run.open(resume)
        config = run.config
    else:
        run = None
        config = _with_demo(build(TuneConfig, _merged(TuneConfig, given)))
        if (config.dev_file or config.test_file) and not (config.train_file or config.task):
            raise UserError(f"--train-file: there is none to go with {config.dev_file or config.test_file!r}")
    task, examples = _task(config)
    with Display(config, task.name) as display:
        try:
            scores = jobs.tune(config, task, examples, run, display.progress, display.started)
        except KeyboardInterrupt:
            display.interrupted()
            return 130
    if as_json:
        print(json.dumps(scores))
    else:
        display.scores(scores)
        if task.name.startswith("demo/"):
            print(SYNTHETIC)
    return 0


def _evaluate(given: dict[str, Any], as_json: bool) -> int:
    from dfolora import api as jobs
    from dfolora.tasks.common import split_name

    config = build(EvaluateConfig, _merged(EvaluateConfig, given))
    if config.adapter and not config.model:
        config = dataclasses.replace(config, model=jobs.adapter_model(config.adapter))
    config = _with_demo(dataclasses.replace(config, split=split_name(config.split)))
    own = {"train": config.train_file, "dev": config.dev_file or config.train_file, "test": config.test_file}
    if any(own.values()) and not own[config.split]:
        raise UserError(f"--split: {config.split!r} needs examples; give them with --{config.split}-file")
    task, examples = _task(config)
    scores = jobs.evaluate(config, task, examples)
    if as_json:
        print(json.dumps(scores))
    else:
        print(f"{scores['task']}, {scores['split']}: {scores['examples']} examples")
        for name, value in scores["metrics"].items():
            print(f"  {name:12s} {value:6.2f}")
    return 0


def _bench(given: dict[str, Any], as_json: bool) -> int:
    from dfolora.bench import CASES, SHAPES, bench
    from dfolora.problems.encode import PromptEncoder
    from dfolora.runs.progress import bench_table

    values = _merged(BenchConfig, given)
    case = values.get("case") or ""
    if case and case not in CASES:
        raise unknown("--case", case, CASES)
    config = build(BenchConfig, {**CASES.get(case, {}), **values})
    if config.shape and config.shape not in SHAPES:
        raise unknown("--shape", config.shape, SHAPES)
    if bool(config.shape) == bool(config.model):
        raise UserError("--case, --shape or --model: which one to measure? one of the three")
    encode = None
    if config.task or config.train_file:
        if config.shape:
            raise UserError(f"--task: the {config.shape} shape has no tokenizer; give --model, or --lengths")
        task, examples = _task(config)
        train = examples("train")

        def encode(language_model: Any) -> Any:
            return PromptEncoder(language_model, task, config.max_length).encode(train)

    measured = bench(config, encode, say=lambda line: print(line, file=sys.stderr))
    if as_json:
        print(json.dumps(measured))
    else:
        bench_table(measured)
    return 0


def _tasks(as_json: bool) -> int:
    from dfolora import tasks

    lines = {name: tasks.about(name) for name in tasks.task_names()}
    return _listing(lines, as_json)


def _optimizers(as_json: bool) -> int:
    from dfolora.optimizers import describe

    return _listing(describe(), as_json)


def _listing(lines: dict[str, str], as_json: bool) -> int:
    if as_json:
        print(json.dumps(lines))
    else:
        width = max(map(len, lines))
        print("\n".join(f"{name:{width}s}  {text}" for name, text in lines.items()))
    return 0


def _merged(kind: type[ModelConfig], given: dict[str, Any]) -> dict[str, Any]:
    """Flags over the YAML file, which may serve ``tune`` and ``evaluate`` alike: what is the other's is left aside."""
    path = given.pop("config")
    values = {name.replace("-", "_"): value for name, value in read_yaml(path).items()} if path else {}
    own = {field.name for field in dataclasses.fields(kind)}
    others = {field.name for other in (TuneConfig, EvaluateConfig, BenchConfig) for field in dataclasses.fields(other)}
    for name in values:
        if name not in others:
            raise unknown(f"--config {path}", name, own)
    return {**{name: value for name, value in values.items() if name in own}, **given}


def _with_demo(config: Any) -> Any:
    """The demo where no task is named; its own model where a demo task has none."""
    from dfolora import tasks

    task = config.task
    if not (task or config.train_file or config.dev_file or config.test_file):
        if config.model or config.data:
            raise UserError("--task: which one? see `dfolora tasks`, or give --train-file for data of your own")
        task = "demo/sentiment"
    model = config.model
    if not model:
        if not task.startswith("demo/"):
            if task:
                tasks.about(task)  # a mistyped task comes first
            raise UserError("--model: which one? give a Hugging Face id or a folder")
        from dfolora.tasks.demo import MODEL_DIR

        model = str(MODEL_DIR)
    return dataclasses.replace(config, task=task, model=model)


def _task(config: ModelConfig) -> tuple[Any, Any]:
    """The task with the user's own template and words put in, and how to get its examples."""
    from dfolora.tasks import get_task
    from dfolora.tasks.common import Source
    from dfolora.tasks.files import file_task, with_prompt

    source = Source(Path(config.data).expanduser() if config.data else None, config.shots, config.data_seed)
    if file := config.train_file or config.dev_file or config.test_file:
        if config.task:
            raise UserError(f"--task: {config.task!r} and a file of your own exclude each other; leave one out")
        task = file_task(
            file,
            config.dev_file or None,
            config.test_file or None,
            text_columns=[name.strip() for name in config.text_columns.split(",")],
            label_column=config.label_column,
            template=config.template,
            label_words=config.label_words or "0=bad,1=great",
            shorten=config.shorten or None,
        )
    else:
        task = with_prompt(get_task(config.task), config.template, config.label_words, config.shorten)
    return task, lambda split: task.load(split, source)


if __name__ == "__main__":
    sys.exit(main())
