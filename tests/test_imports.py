"""Imports go one way: read from the source of every file, whether or not it runs."""

from __future__ import annotations

import ast
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
    "tasks": {"dfolora.task", "dfolora.template", "dfolora.errors", "dfolora.registry", "dfolora.tasks"},
}


def imported(source: str, package: str) -> set[str]:
    """Every module that a source names in an import, wherever it stands; relative ones resolved in ``package``."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(source)):
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


def names_in(file: Path) -> set[str]:
    parts = file.relative_to(ROOT).with_suffix("").parts[:-1]
    return imported(file.read_text(encoding="utf-8"), ".".join(("dfolora", *parts) if parts[0] == "tasks" else parts))


def ours(names: set[str]) -> set[str]:
    return {name for name in names if name.split(".")[0] in ("dfolora", "tasks", "scripts", "tests")}


@pytest.mark.parametrize("room", ALLOWED)
def test_a_room_imports_only_what_it_may(room: str) -> None:
    assert files(room)
    for file in files(room):
        for name in ours(names_in(file)):
            assert any(name == one or name.startswith(one + ".") for one in ALLOWED[room]), f"{file} imports {name}"


def test_only_the_command_line_knows_the_tasks() -> None:
    for file in files("dfolora"):
        tasks = {name for name in names_in(file) if name.startswith(("dfolora.tasks", "tasks"))}
        assert not tasks or file.name in ("cli.py", "task.py"), f"{file} imports {tasks}"


@pytest.mark.parametrize("room", ["dfolora", "tasks"])
def test_nothing_installed_imports_scripts_or_tests(room: str) -> None:
    for file in files(room):
        assert not {name for name in names_in(file) if name.split(".")[0] in ("scripts", "tests")}, file


def test_the_library_does_not_import_its_command_line() -> None:
    for file in files("dfolora"):
        assert "dfolora.cli" not in names_in(file), file


def test_no_room_imports_in_a_circle() -> None:
    """Among the library's modules, taking a package as one."""
    edges: dict[str, set[str]] = {}
    for file in files("dfolora"):
        module = ".".join(file.relative_to(ROOT).with_suffix("").parts[:2])
        if module != "dfolora.__init__":
            edges.setdefault(module, set()).update(".".join(n.split(".")[:2]) for n in ours(names_in(file)))
    done: set[str] = set()
    while len(done) < len(edges):
        ready = {m for m, needs in edges.items() if m not in done and needs & edges.keys() - {m} <= done}
        assert ready, f"a circle among {sorted(edges.keys() - done)}"
        done |= ready


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
