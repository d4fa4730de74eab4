"""Workers that are processes: Ray's, on this machine."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import signal
import socket
import time
from functools import partial
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch
from tiny_models import csv_files, given, model
from torch import Tensor

import dfolora
from dfolora.errors import UserError
from dfolora.problems.objectives import cross_entropy
from dfolora.workers import ray_crew

if importlib.util.find_spec("ray") is None:
    pytest.skip("needs Ray", allow_module_level=True)


def touchy(folder: Path, scores: Tensor, labels: Tensor) -> Tensor:
    """Cross-entropy; but one worker dies of it where a file says so, and another file makes all of them fail."""
    with contextlib.suppress(FileNotFoundError):
        (folder / "die").unlink()
        os.kill(os.getpid(), signal.SIGKILL)
    if (folder / "fail").exists():
        raise UserError("objective: it has had enough")
    return cross_entropy(scores, labels)


def test_two_workers_of_which_one_is_killed(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    before = signal.getsignal(signal.SIGTERM)
    options: dict[str, Any] = {**given([*csv_files(tmp_path), "--subspace-dim", "20"]), "method": "search"}
    options |= {"model": model("masked"), "objective": partial(touchy, tmp_path), "device": "cpu"}
    alone, shared = dfolora.problem(**options), dfolora.problem(**options, workers=2)
    try:
        z = torch.randn(8, 20, generator=torch.Generator().manual_seed(0))
        for part, file in ((0, ""), (1, "die"), (0, "")):
            if file:
                (tmp_path / file).touch()
            losses = shared.losses(z, part)
            torch.testing.assert_close(losses, alone.losses(z, part), rtol=0, atol=1e-6)
            assert len(losses.unique()) == 8
            for problem in (alone, shared):
                problem.keep(z[int(losses.argmin())], part)
        assert shared.evaluator.deaths == 1  # type: ignore[union-attr]
        (tmp_path / "fail").touch()
        with pytest.raises(UserError, match="^objective: it has had enough$"):
            shared.losses(z)
    finally:
        shared.close()
    for _ in range(100):
        left = [each for each in psutil.Process().children(recursive=True) if "ray" in each.name()]
        if not left:
            break
        time.sleep(0.1)
    assert not left
    assert signal.getsignal(signal.SIGTERM) is before
    assert capfd.readouterr().out == ""  # which is for results; Ray would write there


def test_an_address_where_nothing_listens_is_one_line_and_soon() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    started = time.monotonic()
    with pytest.raises(UserError, match=f"^ray_address: no cluster answers at '{address}' "):
        dfolora.tune(method="search", ray_address=address)
    assert time.monotonic() - started < ray_crew.ANSWER_SECONDS + 5
