"""What setup.cfg says about the package."""

from __future__ import annotations

import configparser
from pathlib import Path

import dfolora

ROOT = Path(__file__).resolve().parents[1]


def _setup_cfg() -> configparser.ConfigParser:
    parser = configparser.ConfigParser()
    parser.read(ROOT / "setup.cfg", encoding="utf-8")
    return parser


def test_one_version() -> None:
    assert _setup_cfg()["metadata"]["version"] in (dfolora.__version__, "attr: dfolora.__version__")


def test_every_folder_with_code_is_packaged() -> None:
    options = _setup_cfg()["options"]
    folders = dict(line.replace(" ", "").split("=") for line in options["package_dir"].split("\n") if line)
    listed = {folders.get(name, name.replace(".", "/")) for name in options["packages"].split()}
    found = {
        file.parent.relative_to(ROOT).as_posix()
        for top in ("dfolora", "tasks")
        for file in (ROOT / top).rglob("*.py")
        if "demo_model" not in file.parts
    }
    assert found == listed


def test_files_that_are_no_code_are_packaged_too() -> None:
    data = _setup_cfg()["options.package_data"]
    assert "demo_model/*" in data["dfolora.tasks"].split()
    assert "py.typed" in data["dfolora"].split()
    assert (ROOT / "dfolora" / "py.typed").is_file()
    others = {
        file.relative_to(ROOT).parts[:2]
        for top in ("dfolora", "tasks")
        for file in (ROOT / top).rglob("*")
        if file.is_file() and file.suffix != ".py" and "__pycache__" not in file.parts and "." not in file.name[:1]
    }
    assert others <= {("dfolora", "py.typed"), ("tasks", "demo_model")}
