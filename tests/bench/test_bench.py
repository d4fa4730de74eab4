"""The benchmark measures what it says, on models too small to take time; no speed is asserted."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_models import Command, csv_files, model

from dfolora.bench import CASES, bench, measure
from dfolora.bench.cases import FEWGLUE_LENGTHS, SHAPES, batch
from dfolora.engine import Engine
from dfolora.errors import UserError
from dfolora.settings.model import BenchSettings

ROWS = {"pure", "layerwise", "joint", "sequential", "mixed-batch"}
KEYS = {
    "name",
    "ratio_to_pure",
    "ratio_spread",
    "candidates_per_second",
    "utilisation",
    "peak_memory_bytes",
}
TINY = ["--examples", 3, "--tokens", 8, "--population", 3, "--repetitions", 1]


@pytest.fixture(scope="module")
def measured() -> dict[str, Any]:
    config = BenchSettings(
        shape="roberta12", examples=3, tokens=8, population=3, repetitions=2, layers="0,6,11", dtype="bfloat16"
    )
    return bench(config)


def test_the_rows(measured: dict[str, Any]) -> None:
    assert {row["name"] for row in measured["rows"]} == ROWS
    for row in measured["rows"]:
        assert set(row) == KEYS
        assert all(math.isfinite(value) and value >= 0 for key, value in row.items() if key != "name")
        assert 0 < row["utilisation"] <= 1
        assert row["peak_memory_bytes"] > 3 * 3 * 8 * 256 * 2  # no less than one hidden state of all candidates
    pure = next(row for row in measured["rows"] if row["name"] == "pure")
    assert (pure["ratio_to_pure"], pure["ratio_spread"]) == (1, 0)
    assert 0 < measured["optimizer_share"] < 1
    assert 0 < measured["optimizer_share_serial"] < 1
    assert -1 <= measured["kendall_tau_to_float32"] <= 1
    assert (measured["padded_tokens"], measured["sequences"], measured["dtype"]) == (24, 3, "bfloat16")


def test_rows_that_differ_are_not_timed(monkeypatch: pytest.MonkeyPatch) -> None:
    plain = Engine.scores
    monkeypatch.setattr(
        Engine,
        "scores",
        lambda self, factors: plain(self, factors) * (1.1 if type(self) is Engine else 1),
    )
    with pytest.raises(UserError, match="layerwise gives other class scores"):
        bench(BenchSettings(shape="roberta12", examples=2, tokens=6, population=2, repetitions=1, layers="3"))


def test_a_model_and_a_task_of_ones_own(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    command = Command(capsys)
    found = command.json("bench", "--model", model("masked"), *csv_files(tmp_path), *TINY, "--levers")
    names = {row["name"] for row in found["rows"]}
    assert names > ROWS
    assert "layerwise-without-prefix" in names
    assert found["kendall_tau_to_float32"] is None  # it is float32


def test_the_table_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    assert Command(capsys)("bench", "--shape", "llama12", "--layers", "11", *TINY) == 0


@pytest.mark.parametrize(
    ("flags", "error"),
    [
        (["--case", "cpu-roberta"], "cpu-roberta12"),
        (["--shape", "lama-7b"], "llama-7b"),
        ([], "name a case, a shape or a model"),
        (["--shape", "roberta12", "--layers", "0,12"], "--layers"),
        (["--shape", "roberta12", "--layers", "first"], "--layers"),
        (["--shape", "roberta12", "--lengths", "rted"], "rte"),
        (["--shape", "roberta12", "--task", "glue/sst2"], "--task"),
        (["--shape", "roberta12", "--repetitions", "0"], "--repetitions"),
    ],
)
def test_bad_flags(flags: list[str], error: str, capsys: pytest.CaptureFixture[str]) -> None:
    command = Command(capsys)
    assert command("bench", *flags) == 2
    said = command.err.strip().splitlines()
    assert len(said) == 1
    assert error in said[0]


def test_two_candidates(capsys: pytest.CaptureFixture[str]) -> None:
    """Fewer than CMA-ES takes: the optimizer's share is measured all the same."""
    flags = ["--shape", "roberta12", "--examples", 2, "--tokens", 6, "--population", 2, "--layers", "11"]
    found = Command(capsys).json("bench", *flags, "--repetitions", 1)
    assert 0 < found["optimizer_share"] < 1


def test_named_cases_are_whole() -> None:
    for name, settings in CASES.items():
        config = BenchSettings(case=name, **settings)
        config.check()
        assert config.shape in SHAPES
    assert all(len(lengths) == 32 and max(lengths) <= 256 for lengths in FEWGLUE_LENGTHS.values())
    rows = batch(FEWGLUE_LENGTHS["rte"], 1000)
    assert rows.lengths.tolist() == list(FEWGLUE_LENGTHS["rte"])


def test_kendall_tau() -> None:
    losses = torch.tensor([3.0, 1.0, 2.0, 5.0])
    assert measure.kendall_tau(losses, 2 * losses + 1) == 1
    assert measure.kendall_tau(losses, -losses) == -1
    assert measure.kendall_tau(losses, torch.tensor([3.0, 2.0, 1.0, 5.0])) == pytest.approx(4 / 6)


def test_a_row_that_beats_every_product_is_the_measure(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the product that is measured beside the rows is slow, the fastest row is what the machine can do."""
    monkeypatch.setattr(measure, "product_speed", lambda *_: 1.0)
    found = bench(BenchSettings(shape="roberta12", examples=2, tokens=6, population=2, repetitions=1, layers="11"))
    assert max(row["utilisation"] for row in found["rows"]) == 1


def test_counters() -> None:
    x = torch.randn(10, 20)
    assert measure.operations(lambda: x @ x.T) == 2 * 10 * 20 * 10
    held = measure.peak_bytes(lambda: (torch.empty(1000), torch.empty(3000))[1], torch.device("cpu"))
    assert 16000 <= held < 17000
    assert measure.seconds(lambda: sum(range(100_000)), torch.device("cpu"), 1) > 0
