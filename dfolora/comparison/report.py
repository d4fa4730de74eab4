"""One HTML page of a comparison: tables that sort by a click, curves, nothing from anywhere else."""

from __future__ import annotations

import html
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from dfolora.comparison import tables
from dfolora.comparison.cell import read_json
from dfolora.comparison.curves import Group, groups_of
from dfolora.comparison.drawing import picture
from dfolora.errors import UserError
from dfolora.runs.files import write_text
from dfolora.settings.build import settings
from dfolora.settings.comparison import ReportSettings

NUMBERS = (
    "score", "dev", "evaluations", "token-layers", "with dev", "seconds", "processor s", "peak MiB", "difference",
    "95 %", "p", "detectable", "average", "95 % of it", "tasks",
)  # fmt: skip
STYLE = """
:root{color-scheme:light dark;--ink:#1c2024;--soft:#5b636b;--line:#d9dde1;--paper:#fff;--row:#f4f6f8;
--c0:#0b6bcb;--c1:#c8501e;--c2:#2b8a3e;--c3:#8e3bb0;--c4:#a17600;--c5:#0a8a8a;--c6:#c2255c;--c7:#5c5f66}
@media(prefers-color-scheme:dark){:root{--ink:#e6e9ec;--soft:#9aa3ac;--line:#363c43;--paper:#15181b;--row:#1e2226;
--c0:#6cb2ff;--c1:#ff9d6b;--c2:#74d48a;--c3:#d59bf2;--c4:#e5c04f;--c5:#5fd6d6;--c6:#ff8fb3;--c7:#adb3ba}}
*{box-sizing:border-box}
body{margin:0 auto;max-width:1200px;padding:1rem;font:16px/1.5 system-ui,sans-serif;color:var(--ink);
background:var(--paper);overflow-wrap:anywhere}
h1{font-size:1.5rem;margin:.2rem 0}h2{font-size:1.2rem;margin:2rem 0 .5rem}h3{font-size:1rem;margin:1.2rem 0 .3rem}
p{margin:.5rem 0}.soft{color:var(--soft);font-size:.875rem}
code{font:.875em ui-monospace,monospace;background:var(--row);padding:.1em .3em;border-radius:3px}
.wide{overflow-x:auto;border:1px solid var(--line);border-radius:6px}
table{border-collapse:collapse;width:100%;font-size:.875rem;font-variant-numeric:tabular-nums;overflow-wrap:normal}
th,td{padding:.4rem .6rem;text-align:left;white-space:nowrap;border-bottom:1px solid var(--line)}
tr:last-child td{border-bottom:0}td.n,th.n{text-align:right}tbody tr:nth-child(even){background:var(--row)}
th{padding:0}th button{font:inherit;font-weight:600;color:inherit;background:none;border:0;padding:.5rem .6rem;
width:100%;text-align:inherit;cursor:pointer;min-height:2.75rem}
th button:focus-visible{outline:2px solid var(--c0);outline-offset:-2px}
th[aria-sort=ascending] button::after{content:" \\25B2"}th[aria-sort=descending] button::after{content:" \\25BC"}
.pictures{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(100%,340px),1fr));gap:1rem}
figure{margin:0;min-width:0}figcaption{font-size:.875rem;color:var(--soft)}
svg{width:100%;height:auto;display:block}svg text{font:11px system-ui,sans-serif;fill:var(--soft)}
.grid{stroke:var(--line)}.curve{fill:none;stroke-width:2}.band{opacity:.15;stroke:none}
.key{display:flex;flex-wrap:wrap;gap:.2rem 1rem;font-size:.875rem;margin:.3rem 0}
.key i{display:inline-block;width:.8em;height:.8em;border-radius:2px;margin-right:.4em}
""" + "".join(
    f".curve.c{i}{{stroke:var(--c{i})}}.band.c{i}{{fill:var(--c{i})}}i.c{i}{{background:var(--c{i})}}\n"
    for i in range(8)
)
SCRIPT = """
document.querySelectorAll("th button").forEach(function(button){
  button.addEventListener("click",function(){
    var head=button.parentNode,row=head.parentNode,body=row.parentNode.parentNode.tBodies[0];
    var index=Array.prototype.indexOf.call(row.children,head);
    var down=head.getAttribute("aria-sort")==="ascending";
    row.querySelectorAll("th").forEach(function(other){other.removeAttribute("aria-sort")});
    head.setAttribute("aria-sort",down?"descending":"ascending");
    var key=function(line){return line.children[index].getAttribute("data-key")};
    Array.prototype.slice.call(body.rows).sort(function(one,two){
      var a=key(one),b=key(two);
      if(a===""||b==="")return (a==="")-(b==="");
      var order=head.className==="n"?a-b:a.localeCompare(b);
      return down?-order:order;
    }).forEach(function(line){body.appendChild(line)});
  });
});
"""


def report(folder: str | Path, **options: Any) -> Path:
    """Write one self-contained HTML page about a comparison.

    Args:
        folder: of the comparison.
        options: ``output``, the page.

    Returns:
        The page.

    Raises:
        UserError: the folder holds no comparison, or the page cannot be written.
    """
    asked, folder = settings(ReportSettings, **options), Path(folder).expanduser()
    results = read_json(folder / "results.json")
    if not results:
        raise UserError(f"folder: {str(folder)!r} holds no comparison: it has no results.json")
    groups = groups_of([folder]) if any(_has_log(run) for row in results["rows"] for run in row["runs"]) else []
    path = Path(asked.output).expanduser() if asked.output else folder / "report.html"
    write_text(path, page(results, groups))
    return path


def _has_log(run: dict[str, Any]) -> bool:
    return bool(run["evaluations"])


def page(results: dict[str, Any], groups: Sequence[Group]) -> str:
    """The page as text."""
    models = tables.models_of(results)
    title = "Comparison: " + ", ".join(models)
    body = [f"<h1>{html.escape(title)}</h1>", *(f"<p>{_text(line)}</p>" for line in tables.heading(results))]
    for model in models:
        rows = [row for row in results["rows"] if row["model"] == model]
        averages = [row for row in results["averages"] if row["model"] == model]
        body.append(f"<h2>{html.escape(model)}</h2>")
        if averages:
            keys = [_keys(row, average=True) for row in averages]
            body += [
                "<h3>Averages over tasks</h3>",
                _table(tables.AVERAGE_HEAD, [*map(tables.average_of, averages)], keys),
            ]
        body.append("<h3>Tasks</h3>")
        body.append(_table(tables.HEAD, [*map(tables.cells_of, rows)], [_keys(row) for row in rows]))
        for task in dict.fromkeys(row["task"] for row in rows):
            body += _pictures(task, [group for group in groups if (group.model, group.task) == (model, task)])
    if results["failures"]:
        lines = (
            f"<li>{html.escape(f['model'] + ', ' + f['cell'] + ': ' + f['error'])}</li>" for f in results["failures"]
        )
        body += ["<h2>Failed</h2><ul>", *lines, "</ul>"]
    body.append(f'<p class="soft">{_text(tables.EXPLAINED.format(**results))} Written {results["written"]}.</p>')
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f'<link rel="icon" href="data:,"><title>{html.escape(title)}</title><style>{STYLE}</style></head>\n<body>'
        + "\n".join(body)
        + f"\n<script>{SCRIPT}</script></body></html>\n"
    )


def _text(line: str) -> str:
    """A line of Markdown with `code` and **bold** as HTML."""
    out = html.escape(line)
    for mark, tag in (("**", "strong"), ("`", "code")):
        parts = out.split(mark)
        out = parts[0] + "".join(f"<{'/' * (i % 2 == 0)}{tag}>{part}" for i, part in enumerate(parts[1:], start=1))
    return out


def _table(head: Sequence[str], rows: Sequence[dict[str, str]], keys: Sequence[dict[str, Any]]) -> str:
    """A table whose cells carry what they are sorted by."""
    shown = [name for name in head if any(row[name] for row in rows)]
    kind = {name: ' class="n"' if name in NUMBERS else "" for name in shown}
    top = "".join(
        f'<th scope="col"{kind[name]}><button type="button">{html.escape(name)}</button></th>' for name in shown
    )
    lines = [
        "<tr>" + "".join(
            f'<td{kind[name]} data-key="{html.escape(_key(key.get(name, row[name])), quote=True)}">'
            f"{html.escape(row[name])}</td>" for name in shown
        ) + "</tr>"
        for row, key in zip(rows, keys, strict=True)
    ]  # fmt: skip
    return f'<div class="wide"><table><thead><tr>{top}</tr></thead><tbody>{"".join(lines)}</tbody></table></div>'


def _key(value: Any) -> str:
    return "" if value is None else str(value)


def _keys(row: dict[str, Any], average: bool = False) -> dict[str, Any]:
    """Column -> the number behind its text."""
    difference = row["difference"] or {}
    keys = {
        "evaluations": row["evaluations"],
        "token-layers": row["token_layers"],
        "with dev": row["token_layers_with_dev"],
        "seconds": row["seconds"],
        "difference": difference.get("value"),
        "p": difference.get("p"),
        "detectable": difference.get("detectable"),
    }
    if average:
        low = row["right"]["low"]
        return {
            **keys,
            "average": row["score"],
            "95 %": low,
            "95 % of it": difference.get("low"),
            "tasks": row["tasks"],
        }
    return {
        **keys,
        "score": row["score"]["mean"],
        "dev": row["dev"]["mean"],
        "processor s": row["processor_seconds"],
        "peak MiB": row["peak_memory_bytes"],
        "95 %": difference.get("low"),
    }


def _pictures(task: str, groups: Sequence[Group]) -> list[str]:
    """Curves of a task: score and loss against token-layers and seconds, with a key."""
    figures = []
    for what, text in (("score", "dev score, best so far"), ("loss", "loss, lowest so far")):
        for against in ("token-layers", "seconds"):
            found = [(i, group.method, group.line(what, against)) for i, group in enumerate(groups)]
            lines = [(i, label, line) for i, label, line in found if line is not None]
            if lines:
                title = f"{task}: {text}, against {against}"
                figures.append(f"<figure>{picture(title, against, lines)}<figcaption>{text}</figcaption></figure>")
    if not figures:
        return []
    key = "".join(f'<span><i class="c{i % 8}"></i>{html.escape(group.method)}</span>' for i, group in enumerate(groups))
    name = f"<h3>{html.escape(task)}</h3>"
    return [name, f'<div class="key">{key}<span class="soft">band: ± sd over seeds</span></div>',
            f'<div class="pictures">{"".join(figures)}</div>']  # fmt: skip
