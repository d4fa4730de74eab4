"""Curves out of logs, ``dfolora plot``, and the page of ``dfolora report`` in a browser."""

from __future__ import annotations

import builtins
import html
import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dfolora import UserError, cli
from dfolora.comparison import drawing
from dfolora.comparison.curves import Curve, Group, groups_of, read_curve
from dfolora.comparison.plot import plot
from dfolora.comparison.report import report

CHROMIUM = next(
    (path for name in ("chromium", "chromium-browser", "google-chrome") if (path := shutil.which(name))), None
)


def log_line(work: int, losses: list[float | None], layer: int | None, dev: float | None = None) -> str:
    look = None if dev is None else {"metrics": {"accuracy": dev}, "main": dev, "loss": 1.0}
    line = {"token_layers": work, "seconds": work / 100, "losses": losses, "layer": layer, "dev": look}
    return json.dumps(line) + "\n"


LOG = [
    log_line(0, [], None, 50.0),
    log_line(100, [1.0, 0.9], 0),
    log_line(200, [0.8, None], 1),
    log_line(300, [0.7, 0.5], 0, 70.0),
    log_line(400, [0.6, 0.65], 1, 60.0),
]


def row(task: str, method: str, score: float, folder: str = "", p: float | None = None) -> dict[str, Any]:
    run = {"seed": 13, "folder": folder, "evaluations": 40 if folder else 0}
    difference = (
        None if p is None else {"value": score - 70, "low": score - 72, "high": score - 68, "p": p, "detectable": 3.1}
    )
    return {
        "model": "a-model-with-a-rather-long-name-that-does-not-break", "task": task, "method": method, "choice": {},
        "metric": "accuracy", "examples": 500, "seeds": [13], "failed": [], "score": {"mean": score, "sd": 1.0},
        "dev": {"mean": score - 1, "sd": None}, "evaluations": 40.0, "token_layers": 1.5e6 * score, "seconds": 12.0,
        "token_layers_with_dev": 1.6e6 * score, "processor_seconds": 20.0, "peak_memory_bytes": 5e8,
        "peak_gpu_memory_bytes": None, "difference": difference, "runs": [run],
    }  # fmt: skip


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A comparison of one model, two tasks and two methods, one of them with a log."""
    run = tmp_path / "model" / "task" / "method" / "seed-13" / "run"
    run.mkdir(parents=True)
    (run / "log.jsonl").write_text("".join(LOG), encoding="utf-8")
    where = "/elsewhere/model/task/method/seed-13"  # the folder was moved since
    rows = [
        row("glue/sst2", "zero-shot", 9.5),
        row("glue/sst2", "<cma & co>", 70.0, where),
        row("agnews", "fzoo", 100.0, p=0.0004),
    ]
    results = {
        "command": "dfolora compare --tasks glue/sst2 " + "--methods " + "x" * 80, "written": "now", "platform": "here",
        "versions": {"dfolora": "0.2.0"}, "split": "test", "test_limit": 500, "against": "<cma & co>", "rows": rows,
        "averages": [], "failures": [{"cell": "a, b", "model": "c", "folder": "d", "error": "out of <memory>"}],
    }  # fmt: skip
    (tmp_path / "results.json").write_text(json.dumps(results), encoding="utf-8")
    return tmp_path


def test_a_curve(folder: Path) -> None:
    curve = read_curve(folder / "model/task/method/seed-13/run")
    assert curve.looks.tolist() == [[0, 0, 50], [300, 3, 70], [400, 4, 70]]
    assert curve.losses.tolist() == [[100, 1, 0.9], [200, 2, 0.8], [300, 3, 0.5], [400, 4, 0.5]]
    assert curve.gains == {0: pytest.approx(0.3), 1: pytest.approx(0.1)}
    group = groups_of([folder])[0]
    assert (group.task, group.method, len(group.curves)) == ("glue/sst2", "<cma & co>", 1)


def test_a_band_over_seeds() -> None:
    def curve(score: float, end: float) -> Curve:
        return Curve(np.array([[0.0, 0, 50], [end, 1, score]]), np.zeros((0, 3)), {0: score})

    group = Group("m", "t", "a", [curve(60, 100), curve(80, 200)])
    line = group.line("score", "token-layers")
    assert line is not None
    assert (line.x[0], line.x[-1]) == (0, 200)
    assert (line.mean[0], line.mean[-1]) == (50, 70)
    at_150 = np.searchsorted(line.x, 150)
    assert line.mean[at_150] == 55  # one has arrived, the other has not
    assert line.sd[-1] == pytest.approx(np.std([60, 80], ddof=1))
    assert group.line("loss", "seconds") is None
    assert group.gains() == {0: 70}


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [(0, 1, [0, 0.2, 0.4, 0.6, 0.8, 1]), (60, 100, [60, 70, 80, 90, 100]), (3, 3, [2.4, 2.6, 2.8, 3, 3.2, 3.4, 3.6])],
)
def test_ticks_are_round(low: float, high: float, expected: list[float]) -> None:
    assert drawing.ticks(low, high) == pytest.approx(expected)


def test_pictures(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("matplotlib", reason="pip install 'dfolora[plot]'")
    assert cli.main(["plot", str(folder), "--json"]) == 0
    files = [Path(path) for path in json.loads(capsys.readouterr().out)["files"]]
    assert [path.suffix for path in files] == [".png", ".svg"] * 2
    assert files[0].read_bytes()[:4] == b"\x89PNG"
    assert "<svg" in files[1].read_text(encoding="utf-8")
    run = folder / "model/task/method/seed-13/run"
    assert plot(run, output=str(folder / "here"), formats="svg")[0].parent == folder / "here"
    with pytest.raises(UserError, match="formats: unknown 'gif'"):
        plot(folder, formats="gif")
    with pytest.raises(UserError, match="holds neither a comparison"):
        plot(folder / "model")


def test_without_matplotlib(folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    real = builtins.__import__

    def without(name: str, *rest: Any) -> Any:
        if name.startswith("matplotlib"):
            raise ImportError(name)
        return real(name, *rest)

    monkeypatch.setattr(builtins, "__import__", without)
    assert cli.main(["plot", str(folder)]) == 2
    assert capsys.readouterr().err == "dfolora: plot: needs matplotlib; pip install 'dfolora[plot]'\n"


def test_the_page_asks_nobody_and_escapes(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["report", str(folder)]) == 0
    path = Path(capsys.readouterr().out.strip())
    text = path.read_text(encoding="utf-8")
    assert path == folder / "report.html"
    assert not re.search(r"""https?:|url\(|@import|<link[^>]+href="(?!data:)|\ssrc=""", text)
    assert "<cma" not in text
    assert "&lt;cma &amp; co&gt;" in text
    assert "out of &lt;memory&gt;" in text
    assert text.count("<svg") == 4
    assert "at most 500 examples" in text
    with pytest.raises(UserError, match=r"holds no comparison: it has no results\.json"):
        report(folder / "model")


HARNESS = """<!doctype html><iframe id="page" style="width:390px;height:844px;border:0" srcdoc="{page}"></iframe>
<pre id="out"></pre><script>
document.getElementById("page").onload=function(){{
  var page=this.contentDocument,root=page.documentElement,out={{errors:[]}};
  out.width=root.clientWidth;out.scroll=root.scrollWidth;out.body=page.body.scrollWidth;
  var names=[].map.call(page.querySelectorAll("th"),function(th){{return th.textContent}});
  var column=function(name){{var i=names.indexOf(name);
    return [].map.call(page.querySelectorAll("tbody tr"),function(tr){{return tr.children[i].textContent}})}};
  var click=function(name){{page.querySelectorAll("th button")[names.indexOf(name)].click()}};
  out.names=names;out.before=column("score");
  click("score");out.up=column("score");click("score");out.down=column("score");
  out.sorted=page.querySelectorAll("th")[names.indexOf("score")].getAttribute("aria-sort");
  click("task");out.tasks=column("task");click("p");out.p=column("p");
  out.tall=page.querySelector("th button").getBoundingClientRect().height;
  out.svg=page.querySelector("svg").getBoundingClientRect().width;
  document.getElementById("out").textContent="RESULT"+JSON.stringify(out)+"END";
}};</script>"""


@pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium")
def test_the_page_in_a_browser(folder: Path, tmp_path: Path) -> None:
    """Sorting by number and by name, empty cells last, and no scrolling sideways on a screen of 390 pixels."""
    text = report(folder).read_text(encoding="utf-8")
    (tmp_path / "harness.html").write_text(HARNESS.format(page=html.escape(text, quote=True)), encoding="utf-8")
    command = [str(CHROMIUM), "--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--dump-dom"]
    command += [f"--user-data-dir={tmp_path / 'profile'}", "--virtual-time-budget=10000", "--no-first-run"]
    done = subprocess.run([*command, (tmp_path / "harness.html").as_uri()], capture_output=True, text=True, timeout=120)
    match = re.search(r"RESULT(.*?)END", html.unescape(done.stdout.rpartition('<pre id="out">')[2]), re.DOTALL)
    assert match, done.stderr[-2000:]
    found = json.loads(match[1])
    assert 370 <= found["width"] <= 390  # less a scroll bar
    assert found["scroll"] <= found["width"]
    assert found["body"] <= found["width"]
    assert found["svg"] <= 390
    assert found["tall"] >= 44  # a finger's width
    assert found["before"] == ["9.5 ± 1.0", "70.0 ± 1.0", "100.0 ± 1.0"]
    assert found["up"] == ["9.5 ± 1.0", "70.0 ± 1.0", "100.0 ± 1.0"]
    assert found["down"] == ["100.0 ± 1.0", "70.0 ± 1.0", "9.5 ± 1.0"]
    assert found["sorted"] == "descending"
    assert found["tasks"] == ["agnews", "glue/sst2", "glue/sst2"]
    assert found["p"] == ["< 0.001", "", ""]
