"""What the documents say works: commands parse, links lead somewhere, examples run, the reference is current."""

from __future__ import annotations

import argparse
import dataclasses
import re
import runpy
import shlex
import sys
import types
from pathlib import Path
from typing import Any

import pytest
from tiny_questions import model as reader
from tiny_questions import squad_folder

import dfolora
from dfolora import api, baseline_run, cli
from dfolora.baselines import make_baseline, options_of
from dfolora.baselines.zero_shot import ZeroShot
from dfolora.bench import command as bench
from dfolora.comparison import compare as comparison
from dfolora.comparison import plot, report
from dfolora.comparison.grid import make_grid
from dfolora.evolution import alternate as alternation
from dfolora.evolution import run as evolution
from dfolora.evolution.run import evolve_settings
from dfolora.reasoning import opening as answering
from dfolora.reasoning.opening import prompt_settings
from dfolora.runs import hub
from dfolora.settings.baseline import BaselineSettings
from dfolora.settings.build import settings, tune_settings
from dfolora.settings.model import BenchSettings, EvaluateSettings
from dfolora.settings.prompting import AlternateSettings
from dfolora.settings.tools import ExportSettings, MergeSettings, PushSettings
from dfolora.tasks.demo import MODEL_DIR
from dfolora.tools import info, lm_eval, merge

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").glob("*.md"))]
START = ("dfolora ", "python -m scripts.", "./scripts/")


class LastWord(ZeroShot):
    """Stands for the one of docs/adding.md."""

    def __init__(self, otherwise: int = 0) -> None: ...


class Parsed(Exception):
    """What was to be found out: the words were understood."""


def commands() -> list[str]:
    """Every command of a page, in a block or between backticks, once."""
    lines = {}
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        blocks = re.findall(r"^ *```\n(.*?)^ *```", text, re.MULTILINE | re.DOTALL)
        words = "\n".join(blocks).replace("\\\n", " ").splitlines()
        prose = re.sub(r"^ *```.*?^ *```", "", text, flags=re.MULTILINE | re.DOTALL)
        words += [" ".join(code.split()) for code in re.findall(r"(?<!`)`([^`]+)`(?!`)", prose)]
        for line in words:
            if line.strip().startswith(START) and "|" not in line and "<" not in line:
                lines[" ".join(line.split("#")[0].split())] = page.name
    return sorted(lines)


def words_of(command: str) -> list[str]:
    return [word for word in shlex.split(command) if word not in ("...", "[RUN]", "FILE") and word[:1] != ">"]


@pytest.mark.parametrize("command", commands())
def test_commands_parse(command: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def tune(**options: Any) -> None:
        options = {name: value for name, value in options.items() if name not in ("listener", "resume")}
        tune_settings(**options)
        raise Parsed

    def evaluate(**options: Any) -> None:
        del options["listener"]
        settings(EvaluateSettings, **options)
        raise Parsed

    def fit(name: Any, **options: Any) -> None:
        del options["listener"]
        taken = {key: options.pop(key) for key in list(options) if key in options_of(name)}
        settings(BaselineSettings, **options, baseline=name)
        make_baseline(name, taken)
        raise Parsed

    def compared(**options: Any) -> None:
        options = {name: value for name, value in options.items() if name not in ("command", "say", "data")}
        make_grid({"tasks": "demo/pair", "output": "runs/x", **options, "config": None})
        raise Parsed

    def drawn(folders: Any = (), folder: str = "", **_: Any) -> None:
        raise Parsed

    def about(model: str = "", task: str = "", **options: Any) -> None:
        tune(model=model, task=task, **options)

    def exported(run: str = "", **options: Any) -> None:
        settings(ExportSettings, **options)
        raise Parsed

    def merged(adapter: str, output: str, **options: Any) -> None:
        settings(MergeSettings, **options)
        raise Parsed

    def pushed(run: str, repository: str, **options: Any) -> None:
        settings(PushSettings, **options)
        raise Parsed

    def measure(options: Any, **_: Any) -> None:
        settings(BenchSettings, **options)
        raise Parsed

    def answered(resume: Any = None, listener: Any = None, **options: Any) -> None:
        if not resume:
            options = {"model": "" if "base_url" in options else "m", "task": "coin-flip", "data": "d", **options}
            (evolve_settings if "evolve" in options else prompt_settings)(options)
        raise Parsed

    def alternated(resume: Any = None, listener: Any = None, **options: Any) -> None:
        beside = {field.name for field in dataclasses.fields(AlternateSettings)}
        AlternateSettings(**{name: value for name, value in options.items() if name in beside})
        tune(**{name: value for name, value in options.items() if name not in beside})

    hill = runpy.run_path(str(ROOT / "examples" / "own_optimizer.py"))["Hill"]
    dfolora.register("optimizer", "hill", hill)  # docs/adding.md has it as an entry point
    dfolora.register("baseline", "last-word", LastWord)
    monkeypatch.setattr(api, "tune", tune)
    monkeypatch.setattr(api, "evaluate", evaluate)
    monkeypatch.setattr(baseline_run, "baseline", fit)
    monkeypatch.setattr(bench, "bench_command", measure)
    monkeypatch.setattr(info, "info", about)
    monkeypatch.setattr(lm_eval, "export", exported)
    monkeypatch.setattr(merge, "merge", merged)
    monkeypatch.setattr(hub, "push", pushed)
    monkeypatch.setattr(comparison, "compare", compared)
    monkeypatch.setattr(plot, "plot", drawn)
    monkeypatch.setattr(report, "report", drawn)
    monkeypatch.setattr(answering, "prompt", answered)
    monkeypatch.setattr(evolution, "evolve", answered)
    monkeypatch.setattr(alternation, "alternate", alternated)
    name, *words = words_of(command)
    if name.startswith("./scripts/"):
        assert (ROOT / name).stat().st_mode & 0o100, f"{name} cannot be run"
        return
    if name == "dfolora":
        for index, word in enumerate(words):
            if word == "--config":
                (tmp_path / "run.yaml").write_text("seed: 1\n", encoding="utf-8")
                words[index + 1 : index + 2] = [str(tmp_path / "run.yaml")]
        try:
            names = {"task": "squad", "baseline": "majority", "prompt": "random"}
            code = cli.main([names[words[0]] if word == "NAME" else word for word in words])
        except Parsed:
            return
        except SystemExit as stopped:  # --help
            code = stopped.code
        assert code == 0, f"{command}: exit code {code}"
        return
    module = words[1]
    parse = argparse.ArgumentParser.parse_args

    def parsed(parser: argparse.ArgumentParser, *_: Any) -> None:
        parse(parser, words[2:])
        raise Parsed

    monkeypatch.setattr(argparse.ArgumentParser, "parse_args", parsed)
    monkeypatch.setattr(sys, "argv", [module, *words[2:]])
    if module == "scripts.reference":
        assert (ROOT / "scripts" / "reference.py").is_file()
        return
    monkeypatch.delitem(sys.modules, module, raising=False)  # another test may have imported it
    with pytest.raises(Parsed):
        runpy.run_module(module, run_name="__main__")


def test_there_are_commands_of_every_kind() -> None:
    kinds = {" ".join(command.split()[:2]) for command in commands() if command.startswith("dfolora")}
    assert {"dfolora tune", "dfolora evaluate", "dfolora bench", "dfolora tasks", "dfolora compare"} <= kinds
    assert len(commands()) > 20


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    for target in re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", text):
        if not target.startswith("http"):
            assert (page.parent / target).exists(), f"{page.name} links to {target}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_paths_exist(page: Path) -> None:
    """Of files that are named between backticks, as ``docs/log.md`` or ``tests/test_imports.py``."""
    if page.name == "CHANGELOG.md":
        return  # it names what is gone
    for name in re.findall(r"`((?:dfolora|tasks|scripts|tests|docs|examples)/[\w/.]+)`", page.read_text("utf-8")):
        assert (ROOT / name).exists(), f"{page.name} names {name}"


def test_the_readme_is_short() -> None:
    assert len((ROOT / "README.md").read_text(encoding="utf-8").split()) <= 1300


def test_contributing_fits_a_screen() -> None:
    assert len((ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8").splitlines()) <= 40


def test_the_tree_of_the_readme_is_that_of_the_package() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    tree = text[text.index("```\ndfolora/\n") :].split("```")[1]
    inside = [line.strip().split("  ")[0] for line in tree.splitlines() if line.startswith("  ")]
    named = {word for words in inside for word in words.split()}
    there = {f"{path.name}/" for path in (ROOT / "dfolora").iterdir() if (path / "__init__.py").exists()}
    there |= {path.name for path in (ROOT / "dfolora").glob("*.py") if not path.name.startswith("__")}
    assert named - there == set()
    assert there - named <= {"errors.py", "seeds.py"}  # two dozen lines each


def test_the_reference_is_current() -> None:
    from scripts.reference import reference

    assert (ROOT / "docs" / "reference.md").read_text(encoding="utf-8") == reference(), (
        "python -m scripts.reference > docs/reference.md"
    )


def test_every_public_name_is_described() -> None:
    pages = "\n".join(page.read_text(encoding="utf-8") for page in PAGES)
    for name in dfolora.__all__:
        thing = getattr(dfolora, name)
        assert (thing.__doc__ or "").strip(), f"{name} has no docstring"
        assert len(thing.__doc__.strip().splitlines()[0]) > 20, f"{name}'s first line says nothing"
        assert re.search(rf"\b{name}\b", pages), f"{name} is on no page"


def python_blocks(page: str) -> list[tuple[str, str]]:
    """(heading, code) of every section of a page that holds python."""
    sections = re.split(r"^## ", (ROOT / page).read_text(encoding="utf-8"), flags=re.MULTILINE)
    found = []
    for section in sections:
        code = "\n\n".join(re.findall(r"^```python\n(.*?)^```", section, re.MULTILINE | re.DOTALL))
        if code:
            found.append((section.splitlines()[0], code))
    return found


@pytest.mark.parametrize(("heading", "code"), python_blocks("docs/adding.md"), ids=lambda text: text.splitlines()[0])
def test_what_adding_says_runs(heading: str, code: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    module = types.ModuleType("adding")
    monkeypatch.setitem(sys.modules, "adding", module)  # where dataclasses look up their annotations
    exec(compile(code, heading, "exec"), vars(module))
    if heading == "A baseline":
        assert module.scores["details"]["words"] > 0
        assert (Path(module.scores["run"]) / "predictions.jsonl").is_file()
        return
    run = module.run
    if run.scores["method"] == "tangent":
        last = run.logged()[-1].note
        assert last["kept"]
        assert last["unseen"] < 0.9 * last["before"]
        assert 14 < run.scores["evaluations"] <= 80  # a round has 13
    else:
        assert run.scores["evaluations"] in (40, 80)
    assert (run.folder / "adapter" / "adapter_model.safetensors").is_file()


def test_the_readme_runs(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Its Python, on tiny models and a table of a few lines; at most eight lines for each of its three promises."""
    monkeypatch.chdir(tmp_path)
    words = {"noisy": 0, "dull": 0, "quiet": 1, "lovely": 1}
    rows = "".join(f"the room was {word} ,{label}\n" for word, label in words.items())
    for name in ("reviews", "held_out"):
        Path(f"{name}.csv").write_text("text,label\n" + rows, encoding="utf-8")
    blocks = re.findall(r"^```python\n(.*?)^```", (ROOT / "README.md").read_text("utf-8"), re.MULTILINE | re.DOTALL)
    _, table, optimizer, use, reward = blocks
    for block in (table, use, reward):
        assert len([line for line in block.splitlines() if line.strip()]) <= 8
    assert len([line for line in (optimizer + use).splitlines() if line.strip()]) <= 8
    code = (table + optimizer + use).replace('"roberta-base"', repr(str(MODEL_DIR))).replace("budget=3000", "budget=40")
    code = code.replace('{"0": "bad", "1": "great"}', '{"0": "terrible", "1": "great"}')
    code = code.replace("task = ", "OPTIONS = {'shots': 1}\ntask = ").replace(", seed=13)", ", seed=13, **OPTIONS)")
    code = code.replace("optimizer=Hill)", "optimizer=Hill, budget=40, **OPTIONS)")
    space: dict[str, Any] = {"__name__": "readme"}
    exec(compile(code, "README.md", "exec"), space)
    assert space["run"].scores["optimizer"].endswith("Hill")
    model, data = reader("llama"), squad_folder(tmp_path / "data")
    code = reward.replace('"Qwen/Qwen3-0.6B"', repr(model)).replace('"DATA"', repr(str(data)))
    exec(compile(code.replace("reward=short)", "reward=short, budget=20)"), "README.md", "exec"), space)
    assert list(space["run"].scores["tuned"]) == ["reward"]
