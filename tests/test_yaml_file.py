"""YAML files of settings: what their words mean, and what is refused in one line."""

from __future__ import annotations

import math
import random
import string
import time
from pathlib import Path
from typing import Any

import pytest

from dfolora.errors import UserError
from dfolora.settings.yaml_file import DEEPEST, LARGEST_FILE, read_yaml, write_yaml


def read(folder: Path, content: str | bytes) -> dict[str, Any]:
    file = folder / "own.yaml"
    file.write_bytes(content if isinstance(content, bytes) else content.encode())
    return read_yaml(file)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("yes", "yes"), ("No", "No"), ("on", "on"), ("OFF", "OFF"), ("y", "y"),
        ("true", True), ("False", False), ("'true'", "true"), ('"No"', "No"), ("!!str true", "true"),
        ("12", 12), ("-3", -3), ("1.5", 1.5), ("1e-3", 1e-3), ("2.5E+2", 250.0), ("-.inf", -math.inf), ("'7'", "7"),
        ("1_000", "1_000"), ("0x10", "0x10"), ("12:30:45", "12:30:45"), ("2020-01-01", "2020-01-01"),
        ("2020-99-99", "2020-99-99"), ("", None), ("~", None), ("null", None), ("Null", "Null"), ("=", "="),
        ("[Yes, No]", ["Yes", "No"]), ("{0: No, 1: Yes}", {"0": "No", "1": "Yes"}),
        ("{False: No, true: x}", {"False": "No", "true": "x"}), ("[true, True, 1, 1.0]", [True, "True", 1, 1.0]),
        ('{0: "Poor, not worth it."}', {"0": "Poor, not worth it."}), ("[[1, 2], {a: [b]}]", [[1, 2], {"a": ["b"]}]),
        ("|\n  two\n  lines\n", "two\nlines\n"), ("9" * 5000, "9" * 5000),
    ],
)  # fmt: skip
def test_what_a_value_means(text: str, value: object, tmp_path: Path) -> None:
    found = read(tmp_path, f"name: {text}")["name"]
    assert found == value
    assert type(found) is type(value)


def test_whole_files(tmp_path: Path) -> None:
    assert read(tmp_path, "") == read(tmp_path, "# nothing\n") == read(tmp_path, "---\n") == {}
    assert read(tmp_path, "\ufeffa: 1\nb-c: d # note\n") == {"a": 1, "b-c": "d"}
    assert math.isnan(read(tmp_path, "a: .nan")["a"])


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("budget: 100\nmodel: m\nbudget: 200\n", "line 3: 'budget' is given twice"),
        ("label_words:\n  yes: a\n  yes: b\n", "line 3: 'yes' is given twice"),
        ("a: &x [lol, lol]\n", "line 1: anchors (&) and aliases (*)"),
        ("a: 1\nb: *x\n", "line 2: anchors (&) and aliases (*)"),
        ("<<: &a {<<: *a}\n", "line 1: anchors"),
        ("a: !!python/object/apply:os.system ['true']\n", "line 1: tags (!)"),
        ("budget: !!int abc\n", "line 1: tags (!)"),
        ("? [a]\n: 1\n", "line 1: a name must be plain text"),
        ("- a\n- b\n", "must hold `name: value` lines"),
        ("just text", "must hold `name: value` lines"),
        ("a: 1\n---\nb: 2\n", "more than one document"),
        ("a: " + "[" * (DEEPEST + 1) + "]" * (DEEPEST + 1), f"line 1: lists and mappings may be {DEEPEST} deep"),
        ("a: " + "[" * 100_000, f"line 1: lists and mappings may be {DEEPEST} deep"),
        ("a: " + "{a: " * 100_000, f"line 1: lists and mappings may be {DEEPEST} deep"),
        ("a: [1,\n  2", "is not YAML"),
        ("a: b: c", "is not YAML"),
        ("\x00", "is not YAML"),
        (b"a: \xff\xfe", "is not YAML"),
        ("#" * (LARGEST_FILE + 1), "is larger than 1,000,000 bytes"),
    ],
)
def test_what_is_refused(content: str | bytes, said: str, tmp_path: Path) -> None:
    start = time.process_time()
    with pytest.raises(UserError) as caught:
        read(tmp_path, content)
    assert time.process_time() - start < 2
    message = str(caught.value)
    assert said in message
    assert message.startswith(f"config: '{tmp_path / 'own.yaml'}'")
    assert "\n" not in message
    assert len(message) < 500


def test_no_such_file(tmp_path: Path) -> None:
    for path in (tmp_path / "none.yaml", tmp_path):
        with pytest.raises(UserError, match=r"resume: cannot read"):
            read_yaml(path, what="resume")


def test_what_is_written_is_read_back(tmp_path: Path) -> None:
    random.seed(0)
    words = ["yes", "True", "null", "~", "1e3", "1e-3", "-.5", "0x10", "1_000", ".nan", "012", "", " a ", "a: b", "*x",
             "&x", "!x", "# no", "2020-01-01", "12:30", "line\nbreak", "é 🦖", "{text} It was {mask}.", "=",
             "<<", "'"]  # fmt: skip
    words += ["".join(random.choices(string.printable.replace("\r", ""), k=random.randint(1, 12))) for _ in range(500)]
    values: dict[str, Any] = {f"text {i}": word for i, word in enumerate(words)}
    values |= {"numbers": [1, -2, 1.5, 1e-7, 1e30, math.inf], "flag": True, "off": False, "nothing": None}
    values |= {
        "label_words": {word: word for word in words},
        "words": words,
        "twice": [words, words],
        "empty": [[], {}],
    }
    text = write_yaml(values)
    assert read(tmp_path, text) == values
    assert list(read(tmp_path, text)) == list(values)
