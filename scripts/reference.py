"""Print docs/reference.md: every option, and every name that an option takes, as the code has them.

python -m scripts.reference > docs/reference.md
"""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Iterable, Mapping
from types import NoneType
from typing import Any, get_args

from dfolora import baselines, optimizers, reasoning, subspaces, tasks, texts
from dfolora.problems import objectives
from dfolora.runs import trackers
from dfolora.settings.baseline import BaselineSettings
from dfolora.settings.build import PLACES
from dfolora.settings.comparison import CompareSettings, PlotSettings, ReportSettings
from dfolora.settings.methods import METHODS
from dfolora.settings.model import BenchSettings, EvaluateSettings, ModelSettings
from dfolora.settings.options import Options, flag, hints
from dfolora.settings.presets import PRESETS
from dfolora.settings.prompting import AlternateSettings, EvolveSettings, PromptSettings
from dfolora.settings.tools import ExportSettings, MergeSettings, PushSettings
from dfolora.settings.tune import TuneSettings
from dfolora.tasks import reasoning as question_sets

HEAD = """# Reference

Made from the code by `python -m scripts.reference > docs/reference.md`; a test compares. An option is a flag of the
command (`--dev-every 100`), a line of a YAML file (`dev_every: 100`, read with `--config FILE`) and a keyword argument
in Python (`dfolora.tune(dev_every=100)`), with the same checks and defaults. `--json` makes a command print one JSON
object. Terms are explained in [concepts.md](concepts.md).
"""
COMMANDS = {
    "dfolora tune": "tune a model; `--resume RUN` goes on with a run folder, with `--budget N` beyond its end",
    "dfolora evaluate [RUN]": "score a run, a saved adapter, or a model as it is",
    "dfolora baseline NAME": "fit and score what a search is compared with",
    "dfolora compare": "run a grid of tasks, methods and seeds, and compare the methods: [comparing.md](comparing.md)",
    "dfolora plot FOLDER...": "draw scores, losses and gains of runs or of a comparison",
    "dfolora report FOLDER": "one HTML page of a comparison",
    "dfolora info MODEL TASK": "what a model and a task are, and what a run would cost; nothing is searched",
    "dfolora merge RUN OUTPUT": "a plain transformers folder of a model and its adapter",
    "dfolora export RUN": "`--lm-eval FOLDER`: tasks for lm-evaluation-harness; [working_with.md](working_with.md)",
    "dfolora push RUN REPOSITORY": "an adapter and its card to the Hugging Face Hub",
    "dfolora bench": "how fast a population is scored, in units of plain inference",
    "dfolora prompt": "answer questions, or evolve an instruction: [prompting_texts.md](prompting_texts.md)",
    "dfolora alternate": "an instruction and an adapter in turn: [prompting_texts.md](prompting_texts.md)",
    "dfolora tasks": "list the tasks; `dfolora task NAME` says what one is",
    "dfolora optimizers": (
        "list the optimizers; likewise `subspaces`, `objectives`, `presets`, `baselines`, `predictors`, `question-sets`"
    ),
    "dfolora --version": "the version",
}


def names_of(kind: type[Options]) -> set[str]:
    return {field.name for field in dataclasses.fields(kind)}


def cell(text: Any) -> str:
    return str(text).replace("|", "\\|").replace("\n", " ")


def value_of(hint: Any, choices: Iterable[Any], limits: Mapping[str, Any]) -> str:
    """What an option takes: its choices, or its type and limits."""
    if choices:
        return ", ".join(f"`{choice}`" for choice in choices if choice != "")
    kinds = [kind for kind in get_args(hint) or (hint,) if kind is not NoneType]
    text = {int: "whole number", float: "number", bool: "switch", str: "text"}.get(kinds[0], "text, or an object")
    text = "number, or a word" if len(kinds) > 1 and kinds[0] is float else text
    least, above, most = limits.get("least"), limits.get("above"), limits.get("most")
    bounds = [f"at least {least:g}"] if least is not None and least < 2**31 else []
    bounds += [f"above {above:g}"] if above is not None else []
    bounds += [f"at most {most:g}"] if most is not None and most < 2**31 else []
    return ", ".join([text, *bounds])


def default_of(default: Any) -> str:
    empty = default is None or default is False or default == "" or default is dataclasses.MISSING
    return "" if empty else f"`{default}`"


def option_table(kind: type[Options], names: Iterable[str]) -> list[str]:
    """Options of a dataclass of settings."""
    types, wanted = hints(kind), set(names)
    lines = ["| option | takes | default | |", "|---|---|---|---|"]
    for field in dataclasses.fields(kind):
        if field.name not in wanted or "help" not in field.metadata or not field.init:
            continue
        if field.name in PLACES.values():
            continue  # they are options themselves
        name = f"`{flag(field.name)}`" if field.metadata.get("group") else f"`{field.name}` (Python only)"
        takes = value_of(types[field.name], field.metadata.get("choices", ()), field.metadata)
        lines.append(f"| {name} | {takes} | {default_of(field.default)} | {cell(field.metadata['help'])} |")
    return [*lines, ""]


def brought(sources: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Options that optimizers or subspaces bring themselves: their names -> what each declares."""
    takers: dict[tuple[str, ...], list[str]] = {}
    for source, options in sources.items():
        for name, option in options.items():
            takes = value_of(option.type, option.choices, {})
            row = (f"`{flag(name)}`", takes, default_of(option.default), cell(option.help))
            takers.setdefault(row, []).append(f"`{source}`")
    lines = ["| option | of | takes | default | |", "|---|---|---|---|---|"]
    for (name, *rest), sources_of in takers.items():
        lines.append(f"| {name} | {', '.join(sources_of)} | " + " | ".join(rest) + " |")
    return [*lines, ""] if takers else []


def named(lines: Mapping[str, str]) -> list[str]:
    return ["| name | |", "|---|---|", *(f"| `{name}` | {cell(text)} |" for name, text in lines.items()), ""]


def builtin(registry: Any) -> dict[str, str]:
    """What the package itself brings, whatever else is installed or registered beside it."""
    return {name: text for name, text in registry.describe().items() if name in registry.builtin()}


def reference() -> str:
    out = [HEAD, *named(COMMANDS)]
    out += ["## Options of every `dfolora tune`", ""]
    out += [
        "`--method`, `--preset` and `--config FILE` come on top: " + ", ".join(f"`{name}`" for name in METHODS) + ".",
        "",
    ]
    for group in ("Model", "Task and data", "Search", "Run", ""):
        fields = [f.name for f in dataclasses.fields(TuneSettings) if f.metadata.get("group") == group]
        if fields:
            out += [f"### {group or 'From Python'}", "", *option_table(TuneSettings, fields)]
    for name, kind in METHODS.items():
        out += [f"## `--method {name}`" + (" (the default)" if name == "tangent" else ""), ""]
        out += [(kind.__doc__ or "").strip(), ""]
        out += option_table(kind, names_of(kind) - names_of(TuneSettings))
    out += ["## Optimizers", "", "`--optimizer NAME`; in Python also a class, a function or an instance.", ""]
    known = {name: text for name, text in optimizers.describe().items() if name in builtin(optimizers.REGISTRY)}
    family = {name: text for name, text in optimizers.describe().items() if name.startswith("nevergrad:")}
    out += named({**known, **family})
    out += ["What they take themselves:", "", *brought({name: optimizers.options_of(name) for name in known})]
    spaces = builtin(subspaces.REGISTRY)
    out += ["## Subspaces", "", "`--subspace NAME`; in Python also a class.", "", *named(spaces)]
    out += brought({name: subspaces.subspace_options(name) for name in spaces})
    out += [
        "## Objectives",
        "",
        "`--objective NAME`; in Python also a function of scores and labels, or a `reward`.",
        "",
    ]
    out += named(builtin(objectives.REGISTRY))
    out += ["## Trackers", "", "`--track NAME`; in Python also a `Tracker`.", "", *named(builtin(trackers.REGISTRY))]
    out += ["## Presets", "", "`--preset NAME`: a paper's settings. What is said beside it wins.", ""]
    out += named({name: ", ".join(f"{key} {value}" for key, value in each.items()) for name, each in PRESETS.items()})
    out += ["## Tasks", "", "`--task NAME`; in Python also a `Task`.", "", *named(builtin(tasks.REGISTRY))]
    out += ["## `dfolora evaluate`", "", "The options about model, task and data above, and:", ""]
    out += option_table(EvaluateSettings, names_of(EvaluateSettings) - names_of(ModelSettings))
    plain = builtin(baselines.REGISTRY)
    out += ["## `dfolora baseline NAME`", "", "The options about model, task and data above, and:", ""]
    out += option_table(BaselineSettings, names_of(BaselineSettings) - names_of(ModelSettings) - {"baseline"})
    out += ["In Python, `dfolora.baseline(NAME, model, task)`, also with a class or an instance.", "", *named(plain)]
    out += ["What they take themselves:", "", *brought({name: baselines.options_of(name) for name in plain})]
    out += ["## `dfolora prompt`", "", "`--config FILE`, `--resume RUN`, and:", ""]
    out += option_table(PromptSettings, names_of(PromptSettings) - {"predictor_options"})
    ways = builtin(reasoning.REGISTRY)
    out += ["Ways to answer, `--method NAME`:", "", *named(ways), "What they take themselves:", ""]
    out += brought({name: reasoning.options_of(name) for name in ways})
    out += ["Sets of questions, `--task NAME`; in Python also a `QuestionSet`:", ""]
    out += named(builtin(question_sets.REGISTRY))
    out += ["## `dfolora prompt --evolve NAME`", "", (EvolveSettings.__doc__ or "").strip().replace("\n    ", "\n"), ""]
    evolved = names_of(EvolveSettings) - names_of(PromptSettings) - {"evolve_options"} | {"method"}
    out += [*option_table(EvolveSettings, evolved), *named(builtin(texts.REGISTRY)), "What they take themselves:", ""]
    out += brought({name: texts.text_options(name) for name in builtin(texts.REGISTRY)})
    out += ["## `dfolora alternate`", "", "`--config FILE`, `--resume RUN`, the options of `dfolora tune`, and:", ""]
    out += option_table(AlternateSettings, names_of(AlternateSettings))
    out += ["## `dfolora compare`", "", "`--config FILE`, the options of every `dfolora tune` above, and:", ""]
    grid = [f.name for f in dataclasses.fields(CompareSettings) if f.metadata.get("group")]
    out += option_table(
        CompareSettings, [n for n in grid if n not in names_of(TuneSettings) or n in ("output", "test_split")]
    )
    for name, about in (("plot FOLDER...", PlotSettings), ("report FOLDER", ReportSettings)):
        out += [f"## `dfolora {name}`", "", *option_table(about, names_of(about))]
    out += ["## `dfolora info MODEL TASK`", "", "The options of `dfolora tune`.", ""]
    for name, about, shared in (
        ("merge RUN OUTPUT", MergeSettings, set()),
        ("push RUN REPOSITORY", PushSettings, set()),
        ("export RUN", ExportSettings, names_of(ModelSettings)),
    ):
        more = ["The options about model, task and data above, and:", ""] if shared else []
        out += [f"## `dfolora {name}`", "", *more, *option_table(about, names_of(about) - shared)]
    out += ["## `dfolora bench`", "", "The options about model, task and data above, and:", ""]
    out += option_table(BenchSettings, names_of(BenchSettings) - names_of(ModelSettings))
    return "\n".join(out).rstrip() + "\n"


if __name__ == "__main__":
    sys.stdout.write(reference())
