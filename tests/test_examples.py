"""The examples run as they stand, in seconds, and print what a reader expects of them."""

from __future__ import annotations

import re
import runpy
import sys
from pathlib import Path

import pytest

import dfolora
from dfolora.optimizers import options_of

EXAMPLES = Path(__file__).parent.parent / "examples"
NUMBER = r"(\d+\.\d+)"


@pytest.fixture
def run_example(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    """Runs an example as a script in an empty folder; returns what it printed."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(EXAMPLES))

    def run(name: str) -> str:
        runpy.run_path(str(EXAMPLES / f"{name}.py"), run_name="__main__")
        return capsys.readouterr().out

    return run


def numbers(text: str) -> list[float]:
    return [float(number) for number in re.findall(NUMBER, text)]


def test_every_example_is_run_here() -> None:
    here = Path(__file__).read_text(encoding="utf-8")
    for example in EXAMPLES.glob("*.py"):
        lines = [line for line in example.read_text(encoding="utf-8").splitlines() if line.strip()]
        most = 45 if example.stem == "own_method" else 32  # two classes
        assert 10 <= len(lines) <= most, f"{example.name} has {len(lines)} lines"
        assert f'"{example.stem}"' in here or example.stem == "tiny", f"{example.name} is not run"


def test_own_optimizer(run_example) -> None:
    first, second = run_example("own_optimizer").splitlines()
    before, after = numbers(first)
    assert after > before + 10  # Hill learns the demo
    assert second == "hill"


def test_an_own_optimizer_brings_its_option_to_the_command_line(
    run_example, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    hill = runpy.run_path(str(EXAMPLES / "own_optimizer.py"))["Hill"]
    assert options_of(hill)["shrink"].default == 0.9
    dfolora.register("optimizer", "hill-with-a-flag", hill)
    from dfolora import cli

    words = ["tune", "--optimizer", "hill-with-a-flag", "--budget", "40", "--test-split", "none"]
    assert cli.main([*words, "--shrink", "0.5", "--output", str(tmp_path / "run")]) == 0
    assert "shrink: 0.5" in (tmp_path / "run" / "config.yaml").read_text(encoding="utf-8")
    capsys.readouterr()


def test_own_subspace(run_example) -> None:
    text = run_example("own_subspace")
    before, after = numbers(text)
    assert text.startswith("__main__:Rows ")
    assert after > before + 10


def test_own_method(run_example) -> None:
    text = run_example("own_method")
    before, after = numbers(text)
    assert text.startswith("anneal ")
    assert after > before + 10
    dfolora.tune(method="anneal", output="part", budget=40, test_split="none")
    whole = dfolora.tune(method="anneal", output="whole", budget=80, test_split="none")
    on = dfolora.tune(resume="part", budget=80)
    losses = [[line.losses for line in each.logged()] for each in (on, whole)]
    assert losses[0] == losses[1]  # repeated from the log, then gone on with
    assert len(losses[1]) == 81


def test_own_reward(run_example) -> None:
    before, after = numbers(run_example("own_reward"))
    assert after > before


def test_own_loop(run_example) -> None:
    first, second = run_example("own_loop").splitlines()
    before, after = numbers(first)
    assert after < before
    assert numbers(second)[0] > 50


def test_own_task(run_example) -> None:
    first, second = run_example("own_task").splitlines()
    assert {"accuracy", "macro_f1"} <= set(re.findall(r"'(\w+)'", first))
    assert re.findall(r"'(\w+)'", second) == ["recall"]


def test_table(run_example) -> None:
    head, *rows = run_example("table").splitlines()
    assert head.split() == ["method", "zero-shot", "tuned"]
    assert [row.split()[0] for row in rows] == ["cma", "fzoo", "first-order"]
    for row in rows:
        before, after, spread = numbers(row)
        assert before == pytest.approx(61.4)
        assert after > before
        assert spread > 0


def test_one_word(run_example, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(sys, "argv", ["one_word.py", "prompts"])
    assert run_example("one_word") == "{'train': 12, 'dev': 12, 'test': 44}\n"
    files = [tmp_path / "prompts" / f"{part}.jsonl" for part in ("train", "dev", "test")]
    lines = [line for file in files for line in file.read_text(encoding="utf-8").splitlines()]
    assert len(lines) == len(set(lines)) == 68  # no question is in two of them
