"""Runs of gauss-newton: visits, what the log holds, and objectives that have no scores."""

from __future__ import annotations

from pathlib import Path

import pytest
from tiny_models import Command, Tune


@pytest.fixture
def tune(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Tune:
    return Tune(Command(capsys), tmp_path)


@pytest.mark.parametrize(("visit", "lasts"), [(1, 2), (2, 2), (3, 4)])
def test_both_halves_of_a_step_are_one_visit(tune: Tune, visit: int, lasts: int) -> None:
    _, lines = tune("--optimizer", "gauss-newton", "--budget", 70, "--visit", visit)
    layers = [line["layer"] for line in lines[1:]]
    assert len(layers) >= 2 * lasts
    assert layers == [index // lasts % 2 for index in range(len(layers))]


def test_the_log_holds_the_coefficients_and_no_scores(tune: Tune) -> None:
    _, lines = tune("--optimizer", "gauss-newton", "--budget", 40, "--batch", 3)
    for probes, lengths in zip(lines[1::2], lines[2::2], strict=False):
        assert len(probes["note"]["coefficients"]) == len(probes["losses"]) - 1
        assert probes["note"]["promise"] > 0
        assert lengths["note"] is None
        assert len(lengths["losses"]) <= 4
    assert min(lines[2]["losses"]) < lines[1]["losses"][0]  # on the same three examples


def test_objectives_without_scores_are_refused_in_one_line(tune: Tune) -> None:
    flags = ("--optimizer", "gauss-newton", "--objective", "metric", "--output", tune.folder / "run")
    assert tune.command("tune", *tune.flags(*flags)) == 2
    assert "gauss-newton needs the class scores of every example" in tune.command.said[-1]
