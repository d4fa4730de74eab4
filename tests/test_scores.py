"""Scores of a test set: what is not a number is wrong, and said."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from tiny_models import Command, csv_files, model

import dfolora
from dfolora import scoring
from dfolora.engine import Engine
from dfolora.tasks.common import Source


def test_scores_that_are_not_numbers_count_as_wrong(
    command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = csv_files(tmp_path)
    plain = Engine.incumbent_scores

    def broken(self: Engine, examples: torch.Tensor | None = None) -> torch.Tensor:
        return plain(self, examples).index_fill(0, torch.tensor([0, 1, 2]), math.nan)

    predicted: list[scoring.Predictions] = []
    predict = scoring.predict

    def watched(*arguments: object, **options: object) -> scoring.Predictions:
        predicted.append(predict(*arguments, **options))  # type: ignore[arg-type]
        return predicted[-1]

    monkeypatch.setattr(scoring, "predict", watched)
    assert command("evaluate", "--model", model("masked"), *files) == 0
    monkeypatch.setattr(Engine, "incumbent_scores", broken)
    assert command("evaluate", "--model", model("masked"), *files) == 2
    assert command.err.splitlines()[-1].startswith("dfolora: --dtype: class scores of this model are not numbers")
    path = dict(zip(files[::2], files[1::2], strict=True))
    task = dfolora.Task.from_files(path["--train-file"], path["--test-file"], words={"0": "bad", "1": "great"})
    examples = task.load("test", Source())
    whole, cut = predicted
    assert cut.predicted == [None] * 3 + whole.predicted[3:]
    encoder = type("Encoder", (), {"task": task})
    right = [guess == example.label for guess, example in zip(whole.predicted, examples, strict=True)]
    expected = 100 * sum(right[3:]) / len(examples)
    assert scoring.metrics(encoder, examples, cut)["accuracy"] == pytest.approx(expected)  # type: ignore[arg-type]
    assert any(right[:3])
