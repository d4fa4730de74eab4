"""The recipes, every line of their grids, on tiny models and records of our own; and the rows beside them."""

from __future__ import annotations

import json
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from test_superglue_end_to_end import RECORDS, TASKS
from tiny_models import BAD, GOOD, model
from tiny_questions import record as squad

from dfolora import UserError
from dfolora.comparison import run as runner
from dfolora.comparison import worker
from dfolora.comparison.cell import Cell
from dfolora.settings.yaml_file import read_yaml, write_yaml
from scripts.recipes import command as recipes
from scripts.recipes.published import Published, read_published, side_by_side

NAMES = recipes.recipes()
KINDS = {"dfo-lora": "masked", "superglue": "masked", "mezo": "causal"}
SHORT = {"budget": 20, "dev_every": 20, "max_length": 96, "batch": 4, "demonstrations": 2}
FOLDERS = {"sst2": "SST-2", "yelp": "yelp-2", "agnews": "agnews", "dbpedia": "dbpedia", "mrpc": "MRPC", "snli": "SNLI",
           "squad": "SQuAD", "drop": "DROP", **{name: folder for name, (folder, _) in TASKS.items()}}  # fmt: skip


def text(i: int) -> str:
    return (GOOD, BAD)[i % 2].split("|")[i // 2 % 6]


def row(name: str, i: int) -> dict[str, Any]:
    """A record of a task."""
    if name in RECORDS:
        return RECORDS[name](i)
    if name == "squad":
        return squad(i)
    if name == "drop":
        return {"passage": text(i), "question": "What is it?", "answers_spans": {"spans": [text(i).split()[-1]]}}
    classes = {"agnews": 4, "dbpedia": 14, "snli": 3}.get(name, 2)
    one = {"sentence": text(i), "text": text(i), "label": i % classes}
    pair = {"sentence1": text(i), "sentence2": text(i + 2), "premise": text(i), "hypothesis": text(i + 2)}
    return {**one, **pair}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Every task's files, as FewGLUE has them."""
    home = tmp_path_factory.mktemp("data")
    for name, folder in FOLDERS.items():
        (home / folder).mkdir()
        for split, count in (("train", 6), ("dev32", 4), ("val", 4)):
            lines = "".join(json.dumps(row(name, i)) + "\n" for i in range(count))
            (home / folder / f"{split}.jsonl").write_text(lines, encoding="utf-8")
    return home


@pytest.fixture
def here(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Cells run in this process, which is much faster."""
    before = signal.getsignal(signal.SIGTERM)
    monkeypatch.setattr(runner, "process", lambda cell: worker.main(cell.folder))
    yield
    signal.signal(signal.SIGTERM, before)


def small(name: str) -> dict[str, Any]:
    """A recipe's grid with small numbers in the place of large ones."""

    def shrunk(entry: Any) -> Any:
        if isinstance(entry, dict):
            return {key: SHORT.get(key, value) for key, value in entry.items() if key != "shots"}
        return entry

    grid = read_yaml(recipes.HERE / f"{name}.yaml")
    grid = {key: [shrunk(each) for each in value] if isinstance(value, list) else value for key, value in grid.items()}
    return {
        **grid,
        "models": model(KINDS[name]),
        "seeds": 13,
        "max_length": 120,
        "budget": 48,
    }  # two rounds of the default


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("over", ["tasks", "methods"])
def test_every_line_of_a_recipe_runs(
    name: str, over: str, here: None, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    """All tasks with the first method, then the first task with all methods."""
    grid = small(name)
    grid = {**grid, "methods": grid["methods"][:1]} if over == "tasks" else {**grid, "tasks": grid["tasks"][:1]}
    (tmp_path / f"{name}.yaml").write_text(write_yaml(grid), encoding="utf-8")
    (tmp_path / "published").symlink_to(recipes.HERE / "published")
    monkeypatch.setattr(recipes, "HERE", tmp_path)
    flags = [name, "--data", str(data), "--output", str(tmp_path / "out"), "--json"]
    assert recipes.main(flags) == 0
    results = json.loads(capsys.readouterr().out)
    assert results["failures"] == []
    labels = {row["task"] for row in results["rows"]}
    assert labels == {each["task"] if isinstance(each, dict) else each for each in grid["tasks"]}
    assert len({row["method"] for row in results["rows"]}) == 1 + len(grid["methods"])
    assert all(0 <= row["score"]["mean"] <= 100 for row in results["rows"])
    assert results["command"].startswith(f"python -m scripts.recipes {name} --data ")
    table = (tmp_path / "out" / "beside.md").read_text(encoding="utf-8")
    assert table == results["beside"]
    assert table.count("| ours |") == 1 + len(grid["methods"])
    published = read_published(recipes.HERE / "published" / f"{name}.yaml")
    assert table.count("| theirs |") == len(published.rows)


@pytest.mark.parametrize("name", NAMES)
def test_published_rows_name_their_source_and_the_recipe_s_tasks(name: str) -> None:
    published = read_published(recipes.HERE / "published" / f"{name}.yaml")
    grid = read_yaml(recipes.HERE / f"{name}.yaml")
    tasks = [each["task"] if isinstance(each, dict) else each for each in grid["tasks"]]
    for method, scores in published.rows.items():
        assert list(scores) == tasks, method
        assert all(0 < score < 100 for score in scores.values())
    assert bool(published.source) == bool(published.rows)


def test_the_bar() -> None:
    """The averages that the sources print, from the figures of their rows."""
    rows = read_published(recipes.HERE / "published" / "dfo-lora.yaml").rows
    printed = {
        "Model tuning": 78.88,
        "LoRA": 78.01,
        "BBT": 71.90,
        "BBTv2": 79.01,
        "BBT-RGB": 81.30,
        "Manual prompt": 62.56,
    }
    for name, average in printed.items():
        assert sum(rows[name].values()) / 7 == pytest.approx(average, abs=0.011), name


def test_ours_and_theirs() -> None:
    scores = {"a": {"mean": 80.0, "sd": 2.0}, "b": {"mean": 60.0, "sd": None}}
    rows = [{"model": "m", "task": task, "method": "default", "score": score} for task, score in scores.items()]
    rows.append({"model": "m", "task": "a", "method": "other", "score": {"mean": 70.0, "sd": 1.0}})
    table = side_by_side({"rows": rows}, Published("a paper", "five runs", {"Theirs": {"a": 90.0, "b": 50.5}}))
    assert table.splitlines()[2:5] == [
        "| ours | m, default | 80.0 ± 2.0 | 60.0 | 70.0 |",
        "| ours | m, other | 70.0 ± 1.0 |  |  |",
        "| theirs | Theirs | 90.0 | 50.5 | 70.2 |",
    ]
    assert table.endswith("\nTheirs, not measured here: a paper. five runs.\n")
    assert side_by_side({"rows": rows}, Published("s", "", {"x": {"c": 1.0}})).endswith("are of other tasks.\n")
    assert "none has been checked against its source" in side_by_side({"rows": rows}, Published())


def test_bad_input_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for flags, line in (
        (["mezzo"], "recipes: argument RECIPE: invalid choice: 'mezzo'"),
        (["mezo", "--budgets", "3"], "recipes: unrecognized arguments: --budgets 3"),
        (["mezo", "--seeds", "a"], "recipes: --seeds: 'a' is no whole number from 0"),
        (["mezo", "--seeds", "1", "--data", str(tmp_path / "no")], "recipes: --data: "),
        (["mezo", "--tasks", "sst"], "recipes: "),
    ):
        assert recipes.main([*flags, *(["--output", str(tmp_path / "out")] if len(flags) > 1 else [])]) == 2
        err = capsys.readouterr().err
        assert err.startswith(line)
        assert err.count("\n") == 1
        assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("tasks: [a]\nrows: {x: [1]}", "must name its source and its tasks"),
        ("source: s\ntasks: [a, b]\nrows: {x: [1]}", "'x' needs 2 numbers"),
        ("source: s\ntasks: [a]\nrows: {x: [one]}", "which are not all numbers"),
    ],
)
def test_a_file_of_published_rows_that_cannot_be_read(text: str, line: str, tmp_path: Path) -> None:
    (tmp_path / "x.yaml").write_text(text, encoding="utf-8")
    with pytest.raises(UserError, match="^published: ") as error:
        read_published(tmp_path / "x.yaml")
    assert line in str(error.value)


def test_a_cell_that_fails_is_named(
    here: None, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fails(cell: Cell) -> int:
        cell.fail("no luck")
        return 1

    monkeypatch.setattr(runner, "process", fails)
    flags = ["superglue", "--models", model("masked"), "--data", str(data), "--tasks", "superglue/rte", "--seeds", "1"]
    assert recipes.main([*flags, "--output", str(tmp_path / "out")]) == 1
    assert capsys.readouterr().err.count("no luck") >= 4
