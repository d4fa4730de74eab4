"""Tuning from a base of demonstrations: what every prompt begins with, what is left to train on, and the run folder."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from tiny_models import SHOTS, csv_files, model

import dfolora
from dfolora.opening import open_prompts, open_task, run_settings
from dfolora.problems.demonstrations import demonstration, with_demonstrations

SMALL = dict(method="search", budget=12, population=4, subspace_dim=8, rank=2, shots=4)


def made(tmp_path: Path, kind: str = "causal", **options: Any) -> Any:
    flags = csv_files(tmp_path)
    named = {flags[i].lstrip("-").replace("-", "_"): flags[i + 1] for i in range(0, len(flags), 2)}
    return {**named, "model": model(kind), **SMALL, **options}


def test_examples_stand_in_front_and_leave_the_training_set(tmp_path: Path) -> None:
    settings = run_settings(**made(tmp_path, demonstrations=3))
    task, examples = open_task(settings)
    train = examples("train")
    plain, all_of_them = open_prompts(run_settings(**made(tmp_path)), task, train)
    encoder, left = open_prompts(settings, task, train)
    assert all_of_them == train
    assert len(left) == len(train) - 3
    shown = [example for example in train if example not in left]
    assert {example.label for example in shown} == {0, 1}
    (text,), (bare,) = encoder.texts(left[:1]), plain.texts(left[:1])
    assert text.endswith("\n\n" + bare)
    front = text[: -len(bare)].split("\n\n")[:-1]
    assert sorted(front) == sorted(demonstration(plain, example) for example in shown)
    again, _ = open_prompts(settings, task, train)
    assert again.prompt == encoder.prompt
    other, _ = with_demonstrations(plain, train, 3, settings.seed + 1)
    assert other.prompt != encoder.prompt


@pytest.mark.parametrize("kind", ["causal", "masked"])
def test_a_run_keeps_them(kind: str, tmp_path: Path) -> None:
    """The saved prompt holds them, so that what is evaluated from the folder is what was tuned; and it resumes."""
    options = made(tmp_path, kind, demonstrations=2, output=str(tmp_path / "run"))
    run = dfolora.tune(**options)
    about = json.loads((Path(run.adapter) / "dfolora.json").read_text())
    assert about["settings"]["template"] == about["prompt"]["template"]
    assert about["prompt"]["template"].count(" was ") == 3
    assert dfolora.evaluate(run)["metrics"] == run.scores["tuned"]
    assert run.scores["examples"]["train"] == SHOTS - 2
    longer = dfolora.tune(resume=str(run.folder), budget=20)
    assert longer.scores["evaluations"] == 20


def test_braces_in_a_text_are_no_fields(tmp_path: Path) -> None:
    settings = run_settings(**made(tmp_path))
    task, examples = open_task(settings)
    train = examples("train")
    odd = [dfolora.Example(fields={"text": "a {name} in {{braces}}"}, label=label) for label in (0, 1, 0)]
    encoder, _ = open_prompts(settings, task, train)
    longer, left = with_demonstrations(encoder, odd, 2, 13)
    assert longer.texts(left)[0].count("a {name} in {{braces}}") == 3


def test_bad_input(tmp_path: Path) -> None:
    for options, line in [
        ({"demonstrations": 6}, "^demonstrations: 6 leaves none of the 6 training examples"),
        ({"demonstrations": 5}, "holds one class only"),
        ({"demonstrations": 0}, "^demonstrations: 0"),
        ({"demonstrations": 2, "max_length": 9}, "max_length|does not fit|tokens"),
    ]:
        with pytest.raises(dfolora.UserError, match=line):
            dfolora.tune(**made(tmp_path, output=str(tmp_path / "none"), **options))
    with pytest.raises(dfolora.UserError, match="^demonstrations: a sentence encoder cannot be shown examples"):
        dfolora.tune(**made(tmp_path, "encoder", demonstrations=2, template="{text}", output=str(tmp_path / "none")))
    assert not (tmp_path / "none").exists()
