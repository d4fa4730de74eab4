"""The process of one cell: ``python -m dfolora.comparison.worker FOLDER`` does what ``FOLDER/cell.json`` asks."""

from __future__ import annotations

import json
import shutil
import signal
import sys
import time
import traceback
from pathlib import Path
from typing import Any

import dfolora
from dfolora.comparison.cell import FREE, read_json
from dfolora.errors import UserError
from dfolora.runs.files import write_text
from dfolora.runs.forecast import gpu_memory, peak_memory
from dfolora.runs.progress import Display


def main(folder: Path) -> int:
    """Run, resume or score the cell; 0, or 1 with one line in ``error.txt``, or 130 when interrupted."""
    started = time.perf_counter()
    for number in (signal.SIGINT, signal.SIGTERM):  # which a shell's background jobs ignore
        signal.signal(number, signal.default_int_handler)
    try:
        _work(folder, read_json(folder / "cell.json"))
        return 0
    except KeyboardInterrupt:
        return 130
    except UserError as error:
        write_text(folder / "error.txt", " ".join(str(error).split()) + "\n")
    except BaseException as error:  # whatever it is, the other cells go on
        traceback.print_exc()
        write_text(folder / "error.txt", " ".join(f"{type(error).__name__}: {error}".split()) + "\n")
    finally:
        with (folder / "measures.jsonl").open("a", encoding="utf-8") as file:
            file.write(json.dumps(_measures(started)) + "\n")
    return 1


def _work(folder: Path, asked: dict[str, Any]) -> None:
    options, run = asked["options"], folder / "run"
    if asked["kind"] == "tune":
        with Display() as display:
            if not (run / "config.yaml").exists():
                dfolora.tune(**options, output=str(run), test_split="none", listener=display)
            elif not (run / "scores.json").exists():
                free = {name: options[name] for name in FREE if name in options}
                dfolora.tune(resume=run, **free, listener=display)
        if asked["test"]:
            free = {name: options[name] for name in FREE if name in options}
            _score(folder, asked, {"model": str(run), **free})
    elif asked["kind"] == "zero-shot":
        _score(folder, asked, options)
    else:
        if not (run / "scores.json").exists():
            shutil.rmtree(run, ignore_errors=True)
            dfolora.baseline(**options, output=str(run), test_split=asked["split"])
        scores = read_json(run / "scores.json")
        shutil.copyfile(run / "predictions.jsonl", folder / "predictions.jsonl")
        size = len((run / "predictions.jsonl").read_bytes().splitlines())
        write_text(folder / "test.json", json.dumps({"metrics": scores["tuned"], "examples": size}) + "\n")


def _score(folder: Path, asked: dict[str, Any], options: dict[str, Any]) -> None:
    """Score on the reported split, once."""
    if not (folder / "test.json").exists():
        with Display() as display:
            found = dfolora.evaluate(
                **options, split=asked["split"], predictions=str(folder / "predictions.jsonl"), listener=display
            )
        write_text(folder / "test.json", json.dumps(found) + "\n")


def _measures(started: float) -> dict[str, Any]:
    """What this process has cost so far."""
    return {
        "seconds": round(time.perf_counter() - started, 3),
        "processor_seconds": round(time.process_time(), 3),
        "peak_memory_bytes": peak_memory(),
        "peak_gpu_memory_bytes": gpu_memory(),
    }


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
