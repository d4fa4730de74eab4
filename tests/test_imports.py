"""Imports go one way: read from the source of every file, whether or not it runs."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
ENGINE = {"dfolora.engine", "dfolora.models.adapter"}
OPTIMIZERS = {"dfolora.optimizers", "dfolora.errors", "dfolora.registry", "dfolora.declared"}

# What each room may import of this project, apart from itself.
ALLOWED: dict[str, set[str]] = {
    "dfolora/errors.py": set(),
    "dfolora/template.py": {"dfolora.errors"},
    "dfolora/task.py": {"dfolora.tasks.files"},  # where a task is made of files, not before
    "dfolora/optimizers": OPTIMIZERS,
    "tasks": {
        "dfolora.task",
        "dfolora.question",
        "dfolora.template",
        "dfolora.errors",
        "dfolora.registry",
        "dfolora.tasks",
    },
}


def imported(source: str, package: str, typing: bool = True) -> set[str]:
    """Every module that a source names in an import, wherever it stands; relative ones resolved in ``package``.

    Args:
        source, package: of a file.
        typing: also what is imported for annotations alone.
    """
    found: set[str] = set()
    tree = ast.parse(source)
    aside = set()
    if not typing:
        blocks = [n for n in ast.walk(tree) if isinstance(n, ast.If) and ast.unparse(n.test) == "TYPE_CHECKING"]
        aside = {node for block in blocks for part in block.body for node in ast.walk(part)}
    for node in ast.walk(tree):
        if node in aside:
            continue
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            parts = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
            base = ".".join([*parts, *([node.module] if node.module else [])])
            # ``from dfolora import adapter`` names a module, ``from dfolora.models.adapter import Adapter`` does not.
            bare = base in ("dfolora", "dfolora.tasks", "dfolora.optimizers")
            found |= {f"{base}.{alias.name}" for alias in node.names} if bare else {base}
        elif isinstance(node, ast.Call) and ast.unparse(node.func).endswith("import_module"):
            first = node.args[0]
            found |= {first.value} if isinstance(first, ast.Constant) else set()
    return found


def files(room: str) -> list[Path]:
    path = ROOT / room
    return [path] if path.is_file() else sorted(path.rglob("*.py"))


def names_in(file: Path, typing: bool = True) -> set[str]:
    parts = file.relative_to(ROOT).with_suffix("").parts[:-1]
    package = ".".join(("dfolora", *parts) if parts[0] == "tasks" else parts)
    return imported(file.read_text(encoding="utf-8"), package, typing)


def ours(names: set[str]) -> set[str]:
    return {name for name in names if name.split(".")[0] in ("dfolora", "tasks", "scripts", "tests")}


@pytest.mark.parametrize("room", ALLOWED)
def test_a_room_imports_only_what_it_may(room: str) -> None:
    assert files(room)
    for file in files(room):
        for name in ours(names_in(file)):
            assert any(name == one or name.startswith(one + ".") for one in ALLOWED[room]), f"{file} imports {name}"


def test_only_the_doors_know_the_tasks() -> None:
    for file in files("dfolora"):
        tasks = {name for name in names_in(file) if name.startswith(("dfolora.tasks", "tasks"))}
        assert not tasks or file.name in ("cli.py", "api.py", "opening.py", "registration.py", "task.py"), (
            f"{file} imports {tasks}"
        )


@pytest.mark.parametrize("room", ["dfolora", "tasks"])
def test_nothing_installed_imports_scripts_or_tests(room: str) -> None:
    for file in files(room):
        assert not {name for name in names_in(file) if name.split(".")[0] in ("scripts", "tests")}, file


def test_the_library_does_not_import_its_command_line() -> None:
    for file in files("dfolora"):
        assert "dfolora.cli" not in names_in(file) or file.name == "__main__.py", file


# A task is made of files by a constructor of its own class, which imports their reader when it is called.
BACK = {("dfolora.task", "dfolora.tasks")}


def rooms() -> dict[str, set[str]]:
    """Room -> rooms that it imports, be it at once or later: top-level modules and packages, and the tasks as one."""
    found: dict[str, set[str]] = {}
    for file in [*files("dfolora"), *files("tasks")]:
        parts = file.relative_to(ROOT).with_suffix("").parts
        room = "dfolora.tasks" if parts[0] == "tasks" else ".".join(parts[:2])
        if room not in ("dfolora.__init__", "dfolora.__main__"):
            names = {".".join(name.split(".")[:2]) for name in ours(names_in(file, typing=False))}
            found.setdefault(room, set()).update(names - {room})
    return {room: {n for n in needs & found.keys() if (room, n) not in BACK} for room, needs in found.items()}


def test_imports_go_one_way_over_at_most_ten_floors() -> None:
    edges, floors, below = rooms(), list[set[str]](), set[str]()
    while len(below) < len(edges):
        floor = {room for room, needs in edges.items() if room not in below and needs <= below}
        assert floor, f"a circle among {sorted(edges.keys() - below)}"
        floors.append(floor)
        below |= floor
    assert len(floors) <= 10, floors
    assert "dfolora.errors" in floors[0]
    assert floors[-1] == {"dfolora.cli"}


def test_there_is_one_loop_over_a_budget() -> None:
    """No other ``while`` or ``for`` of the library speaks of a budget or of evaluations."""
    found = []
    for file in [*files("dfolora"), *files("tasks")]:
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, (ast.While, ast.For)):
                over = ast.unparse(node.test if isinstance(node, ast.While) else node.iter)
                found += [(file.name, type(node).__name__)] if re.search("budget|evaluations|generations", over) else []
    assert found == [("loop.py", "While")]


def test_files_are_rooms_not_halls() -> None:
    long = {str(f.relative_to(ROOT)): len(f.read_text(encoding="utf-8").splitlines()) for f in files("dfolora")}
    assert {name: lines for name, lines in long.items() if lines > 380} == {}


def test_the_reader_sees_every_kind_of_import() -> None:
    source = (
        "import dfolora.tasks.copa\nfrom dfolora import cli\nfrom . import demo\nfrom .draw import shots\n"
        "def later():\n    from scripts.x import y\n    import_module('dfolora.runs.folder')\n"
    )
    assert imported(source, "dfolora.tasks") == {
        "dfolora.tasks.copa",
        "dfolora.cli",
        "dfolora.tasks.demo",
        "dfolora.tasks.draw",
        "scripts.x",
        "dfolora.runs.folder",
    }
