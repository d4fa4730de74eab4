"""The ``dfolora`` command: parse, call ``dfolora.tune`` and the like, print."""

from __future__ import annotations

import dataclasses
import json
import os
import signal
import sys
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

from dfolora.comparison import command as comparison
from dfolora.errors import UserError, unknown
from dfolora.evolution import alternate_command as alternation
from dfolora.evolution import command as prompting
from dfolora.flags import Parser, add_file, add_method, add_settings, as_flags, said
from dfolora.settings.baseline import BaselineSettings
from dfolora.settings.build import declared_options, method_of, refusal
from dfolora.settings.methods import METHODS
from dfolora.settings.model import BenchSettings, EvaluateSettings
from dfolora.settings.options import Options, flag
from dfolora.settings.presets import PRESETS
from dfolora.settings.prompting import EvolveSettings
from dfolora.settings.tune import TuneSettings
from dfolora.settings.yaml_file import read_yaml
from dfolora.tools import command as tools

SYNTHETIC = (
    "The demo's language is synthetic: its sentences come from a grammar in this package, its model was trained on it."
)
# What may stand beside --resume.
FREE = ("budget", "reward", "trust_remote_code", "device", "stop_at", "patience", "track", "push_to_hub", "workers",
        "ray_address", "slice_size")  # fmt: skip
LIKE_TUNE = ("tune", "info", "alternate")  # whose flags are those of the method and the optimizer
ROOMS = (comparison, tools, alternation)  # that bring commands of their own
LISTS = {
    "tasks": "list the tasks",
    "optimizers": "list the optimizers",
    "subspaces": "list the subspaces",
    "objectives": "list what can be minimised",
    "baselines": "list what a search can be compared with",
    "presets": "list the settings of published methods",
    **prompting.LISTS,
}


class Terminated(KeyboardInterrupt):
    """Raised on SIGTERM: handled as Ctrl-C, with exit code 143."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; 0 for success, 2 for bad input (one line on standard error), 130 or 143 when interrupted."""
    argv = list(sys.argv[1:] if argv is None else argv)
    try:
        return _run(argv)
    except UserError as error:
        print("dfolora: " + as_flags(" ".join(str(error).split()), _option_names(argv)), file=sys.stderr)
        return 2
    except Terminated:
        print("dfolora: terminated", file=sys.stderr)
        return 143
    except KeyboardInterrupt:
        print("dfolora: interrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:  # the reader of our output, such as `head`, has gone
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1


def _option_names(argv: list[str]) -> set[str]:
    """Names of options: those of every command, those that a preset brings, and what was given as a flag."""
    kinds = [*METHODS.values(), EvaluateSettings, BenchSettings, BaselineSettings, EvolveSettings]
    kinds += [kind for room in ROOMS for kind in room.KINDS.values()]
    names = {"method", "preset", "resume", "config"} | {name for values in PRESETS.values() for name in values}
    names |= {field.name for kind in kinds for field in dataclasses.fields(kind)}
    names |= {*_own_options(argv), *prompting.option_names(argv)}
    without_flag = {"baseline", *tools.WORDS.get("".join(argv[:1]), ())}
    return names - without_flag | {word[2:].split("=")[0].replace("-", "_") for word in argv if word.startswith("--")}


def _run(argv: list[str]) -> int:
    parser = _parser(argv)
    arguments, rest = parser.parse_known_args(argv)
    values = vars(arguments)
    command = values.pop("command", None)
    if values.pop("version", False):
        from dfolora import __version__

        print(f"dfolora {__version__}")
        return 0
    if command is None:
        if rest:
            raise unknown("flag", rest[0].split("=")[0], {"--help", "--version"})
        parser.print_help()
        return 0
    if rest:
        raise _stranger(rest[0], command, argv)
    as_json = values.pop("json")
    for room in (*ROOMS, prompting):
        if command in room.KINDS:
            signal.signal(signal.SIGTERM, _terminate)
            return room.run(command, _values(values) if command in LIKE_TUNE else values, as_json, argv)
    runs = {"tune": _tune, "evaluate": _evaluate, "baseline": _baseline, "bench": _bench, "task": _task}
    return runs[command](values, as_json) if command in runs else _list(command, as_json)


def _parser(argv: list[str]) -> Parser:
    parser = Parser(prog="dfolora", description="Tune LoRA adapters of any Hugging Face model without gradients.")
    parser.add_argument("--version", action="store_true", help="print the version")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND")

    made: dict[str, Parser] = {}

    def add(name: str, text: str, more: str = "") -> Parser:
        command = commands.add_parser(name, help=text, description=f"{text[0].upper()}{text[1:]}. {more}".strip())
        command.add_argument("--json", action="store_true", help="print one JSON object on standard output")
        assert isinstance(command, Parser), "subparsers are of their parent's class"
        return made.setdefault(name, command)

    tune = add(
        "tune",
        "tune a model for a task; with nothing said, the embedded demo",
        "What follows are the options of the method and optimizer that are named on the same line; "
        "docs/reference.md has all of them. Example: dfolora tune --model roberta-large --task superglue/rte --seed 13",
    )
    add_file(tune)
    tune.add_argument("--resume", metavar="RUN", help="go on with a run folder; with --budget, beyond its end")
    add_method(tune)
    evaluate = add(
        "evaluate", "score a saved adapter, a finished run, or a model as it is", "Example: dfolora evaluate runs/RUN"
    )
    evaluate.add_argument("run", nargs="?", metavar="RUN", help="folder of a run or of its adapter")
    add_file(evaluate)
    add_settings(evaluate, EvaluateSettings)
    baseline = add(
        "baseline",
        "fit and score what a search is compared with",
        "What it takes itself comes on top. Example: dfolora baseline calibrated --model roberta-base --task glue/sst2",
    )
    baseline.add_argument("name", metavar="NAME", help="see `dfolora baselines`")
    add_file(baseline)
    add_settings(baseline, BaselineSettings, _own_options(argv), "the baseline")
    bench = add("bench", "measure how fast a population is scored, in units of plain inference")
    add_file(bench)
    add_settings(bench, BenchSettings)
    prompting.add_command(add, argv)
    for room in ROOMS:
        room.add_commands(add)
    if argv and argv[0] in LIKE_TUNE:
        kind, chosen = _asked(argv)
        options = {name: option for name, (_, option) in declared_options(kind, chosen).items()}
        add_settings(made[argv[0]], kind, options)
    add("task", "what one task is").add_argument("name", metavar="NAME", help="see `dfolora tasks`")
    for name, text in LISTS.items():
        add(name, text)
    return parser


def _asked(argv: list[str]) -> tuple[type[TuneSettings], dict[str, str]]:
    """Find the settings class, and what decides its options, on a command line, so that they become flags."""
    from dfolora.tasks import is_generated

    flags = said(argv)
    asked = {name: flags.get(name, "") for name in ("method", "preset", "optimizer", "subspace", "tune", "config")}
    file = read_yaml(asked["config"]) if asked["config"] else {}
    preset = PRESETS.get(asked["preset"] or str(file.get("preset", "")), {})
    given = {**{name.replace("-", "_"): value for name, value in file.items()}, **flags}
    method = method_of(given, is_generated(given.get("task")))
    if method not in METHODS:
        raise unknown("method", method, METHODS)
    kind = METHODS[method]
    chosen = {
        name: asked[name] or str(file.get(name, "")) or preset.get(name, "")
        for name in ("optimizer", "subspace", "tune")
    }
    for name in (name.replace("-", "_") for name in file):
        if name not in _known(kind, chosen) | alternation.own_names(argv[0]):
            raise UserError(f"config: {asked['config']!r}: {refusal(name, kind, chosen)}")
    return kind, chosen


def _own_options(argv: list[str]) -> dict[str, Any]:
    """What the baseline that a command line names takes itself."""
    from dfolora import baselines

    name = next((word for word in argv[1:] if word in baselines.REGISTRY.names()), "")
    return baselines.options_of(name) if argv[:1] == ["baseline"] and name else {}


def _known(kind: type[TuneSettings], chosen: dict[str, str]) -> set[str]:
    """What a method, its optimizer and its subspace take."""
    fields = {field.name for field in dataclasses.fields(kind)}
    return fields | set(declared_options(kind, chosen)) | {"method", "preset"}


def _stranger(word: str, command: str, argv: list[str]) -> UserError:
    """The error for a flag that the command does not have."""
    name = word.split("=")[0]
    if not name.startswith("--"):
        return UserError(f"{name!r} is one word too many; see `dfolora {command} --help`")
    if command in LIKE_TUNE:
        kind, chosen = _asked(argv)
        if not str(error := refusal(name[2:].replace("-", "_"), kind, chosen)).startswith("option:"):
            return error
        known = _known(kind, chosen) | alternation.own_names(command)
        return unknown("flag", name, map(flag, known | {"config", "resume", "json"}))
    kinds: dict[str, Any] = {"evaluate": EvaluateSettings, "bench": BenchSettings, "baseline": BaselineSettings}
    kinds |= {name: kind for room in ROOMS for name, kind in room.KINDS.items()}
    kinds["prompt"] = prompting.kind_of(argv)
    flags = {flag(field.name) for field in dataclasses.fields(kinds[command])} if command in kinds else {"--json"}
    return unknown("flag", name, flags | set(map(flag, {**_own_options(argv), **prompting.own_options(argv)})))


def _values(values: dict[str, Any], kind: type[Options] | None = None, more: Collection[str] = ()) -> dict[str, Any]:
    """Flags over the YAML file, which may serve several commands.

    Args:
        values: the flags, ``config`` among them.
        kind: the settings of a command that leaves aside what is only for ``tune``; None: it is ``tune``.
        more: what the command takes besides.
    """
    path = values.pop("config")
    if not path:
        return values
    file = {name.replace("-", "_"): value for name, value in read_yaml(path).items()}
    if str(file.get("output", "")) == str(Path(path).parent):
        del file["output"]  # the settings of a run, for another one
    if kind is not None:
        taken = {field.name for field in dataclasses.fields(kind)} | set(more)
        tuning = {field.name for each in METHODS.values() for field in dataclasses.fields(each)} | {"method", "preset"}
        method = METHODS.get(method_of(file), METHODS["search"])
        tuning |= set(declared_options(method, file))
        file = {name: value for name, value in file.items() if name in taken or name not in tuning}
    return {**file, **values}


def _tune(values: dict[str, Any], as_json: bool) -> int:
    from dfolora import api
    from dfolora.runs.progress import Display

    resume = values.pop("resume")
    values = _values(values)
    if resume and (extra := [flag(name) for name in values if name not in FREE]):
        raise UserError(f"resume: everything comes from {resume}/config.yaml; leave out {', '.join(extra)}")
    signal.signal(signal.SIGTERM, _terminate)
    with Display() as display:
        try:
            run = api.tune(**values, resume=resume, listener=display)
        except KeyboardInterrupt as stopped:
            display.interrupted()
            return 143 if isinstance(stopped, Terminated) else 130
    scores = run.scores
    if as_json:
        print(json.dumps(scores))
    else:
        display.scores(scores)
        if scores["task"].startswith("demo/"):
            print(SYNTHETIC)
    return 0


def _terminate(number: int, frame: Any) -> None:
    raise Terminated


def _evaluate(values: dict[str, Any], as_json: bool) -> int:
    from dfolora import api
    from dfolora.runs.progress import Display

    values = _values(values, EvaluateSettings)
    run = values.pop("run", None)
    if run:
        if values.get("adapter"):
            raise UserError(f"adapter: {values['adapter']!r} and {run!r} exclude each other; leave one out")
        values["adapter"] = run
    with Display() as display:
        scores = api.evaluate(**values, listener=display)
    if as_json:
        print(json.dumps(scores))
    else:
        print(f"{scores['task']}, {scores['split']}: {scores['examples']} examples")
        for name, value in scores["metrics"].items():
            print(f"  {name:12s} {value:6.2f}")
    return 0


def _baseline(values: dict[str, Any], as_json: bool) -> int:
    from dfolora import baseline_run
    from dfolora.runs.progress import Display

    signal.signal(signal.SIGTERM, _terminate)
    name = values.pop("name")
    options = _values(values, BaselineSettings, _own_options(["baseline", name]))
    options.pop("baseline", None)  # of a file; the command line names it
    with Display() as display:
        scores = baseline_run.baseline(name, **options, listener=display)
    if as_json:
        print(json.dumps(scores))
    else:
        display.scores(scores)
    return 0


def _bench(values: dict[str, Any], as_json: bool) -> int:
    from dfolora.bench.command import bench_command
    from dfolora.runs.progress import bench_table

    measured = bench_command(_values(values, BenchSettings), say=lambda line: print(line, file=sys.stderr))
    if as_json:
        print(json.dumps(measured))
    else:
        bench_table(measured)
    return 0


def _task(values: dict[str, Any], as_json: bool) -> int:
    from dfolora import tasks

    facts = tasks.describe(values["name"])
    if as_json:
        print(json.dumps(facts))
    else:
        for name, value in facts.items():
            lines = [f"{key}: {each}" for key, each in value.items()] if isinstance(value, dict) else [value]
            print(f"{name:10s} " + f"\n{'':10s} ".join(str(line).replace("\n", "\\n") for line in lines))
    return 0


def _list(what: str, as_json: bool) -> int:
    lines = _lines(what)
    if as_json:
        print(json.dumps(lines))
    else:
        width = max(map(len, lines))
        print("\n".join(f"{name:{width}s}  {text}" for name, text in lines.items()))
    return 0


def _lines(what: str) -> dict[str, str]:
    """Name -> what it is, in one line."""
    if what == "tasks":
        from dfolora import tasks

        return {name: tasks.about(name) for name in tasks.task_names()}
    if what == "optimizers":
        from dfolora import optimizers

        return optimizers.describe()
    if what == "subspaces":
        from dfolora import subspaces

        return subspaces.REGISTRY.describe()
    if what == "baselines":
        from dfolora import baselines

        return baselines.REGISTRY.describe()
    if what in prompting.LISTS:
        return prompting.lines(what)
    if what == "objectives":
        from dfolora.problems import objectives

        return objectives.REGISTRY.describe()
    return {name: ", ".join(f"{key} {value}" for key, value in values.items()) for name, values in PRESETS.items()}


if __name__ == "__main__":
    sys.exit(main())
