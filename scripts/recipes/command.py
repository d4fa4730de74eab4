"""Run a published benchmark, and print the rows of its literature beside ours.

A recipe is a grid for ``dfolora compare``; every flag of that command goes, and wins over the recipe. Interrupted, the
same command goes on. They are meant for a machine with a GPU and the Hub.

python -m scripts.recipes dfo-lora
python -m scripts.recipes superglue --data FOLDER
python -m scripts.recipes mezo --models facebook/opt-1.3b --output runs/recipes/opt-1.3b
"""

from __future__ import annotations

import json
import shlex
import sys
from pathlib import Path
from typing import Any

from dfolora import compare
from dfolora.comparison.tables import show
from dfolora.errors import UserError
from dfolora.flags import Parser, add_settings, as_flags
from dfolora.runs.files import write_text
from dfolora.settings.comparison import CompareSettings
from dfolora.settings.yaml_file import read_yaml
from scripts.recipes.published import read_published, side_by_side

HERE = Path(__file__).parent


def main(arguments: list[str] | None = None) -> int:
    """Run the command; 0, 1 where a cell has failed, 2 for bad input, 130 when interrupted."""
    words = sys.argv[1:] if arguments is None else arguments
    values: dict[str, Any] = {}
    try:
        values = vars(_parser().parse_args(words))
        name, as_json = values.pop("recipe"), values.pop("json")
        results, table = run(name, values, shlex.join(["python", "-m", "scripts.recipes", *words]))
    except UserError as error:
        print("recipes: " + as_flags(" ".join(str(error).split()), {*values, "models", "tasks"}), file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("recipes: interrupted; the same command goes on", file=sys.stderr)
        return 130
    if as_json:
        print(json.dumps({**results, "beside": table}))
    else:
        show(results)
        print(f"\n{table}", end="")
    for each in results["failures"]:
        print(f"failed: {each['model']}, {each['cell']}: {each['error']}", file=sys.stderr)
    return 1 if results["failures"] else 0


def run(name: str, values: dict[str, Any], command: str) -> tuple[dict[str, Any], str]:
    """Run a recipe, or go on with it.

    Args:
        name: of the recipe.
        values: options of ``dfolora compare`` that win over it.
        command: what the results say made them.

    Returns:
        What ``dfolora compare`` returns, and the table with the literature's rows, in Markdown; it is also written into
        the comparison's folder as ``beside.md``.

    Raises:
        UserError: options that cannot work.
    """

    def say(line: str) -> None:
        print(line, file=sys.stderr, flush=True)

    grid = HERE / f"{name}.yaml"
    results = compare(config=str(grid), command=command, say=say, **values)
    table = side_by_side(results, read_published(HERE / "published" / f"{name}.yaml"))
    folder = values.get("output") or read_yaml(grid)["output"]
    write_text(Path(str(folder)).expanduser() / "beside.md", table)
    return results, table


def recipes() -> list[str]:
    """The names of all recipes."""
    return sorted(path.stem for path in HERE.glob("*.yaml"))


def _parser() -> Parser:
    parser = Parser(prog="python -m scripts.recipes", description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("recipe", metavar="RECIPE", choices=recipes(), help=", ".join(recipes()))
    parser.add_argument("--json", action="store_true", help="print one JSON object on standard output")
    add_settings(parser, CompareSettings)
    return parser
