"""Labelled records out of files, line by line; whatever is wrong with one is said as ``file:line: reason``."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from dfolora.errors import UserError

Row = tuple[str, Mapping[str, Any]]
"""Where a record stands (``file:line``), and the record."""


def path_of(option: str, text: Path | str) -> Path:
    """The path that an option gives, ``~`` resolved.

    Raises:
        UserError: it is none: too long, of an unknown user, or with a zero byte.
    """
    try:
        path = Path(text).expanduser()
        path.exists()  # says what cannot be a path here
    except (OSError, RuntimeError, ValueError) as error:
        raise UserError(f"{option}: {str(text)[:100]!r} is no path that can be looked up ({error!s:.100})") from None
    return path


def lines(path: Path) -> Iterator[tuple[str, str]]:
    """Yield ``(where, line)``, without empty lines and without a byte order mark.

    Only a line feed ends a line: texts hold form feeds and Unicode line separators, at which ``splitlines`` would cut.
    """
    try:
        with path.open(encoding="utf-8-sig", newline="\n") as file:
            for number, line in enumerate(file, 1):
                line = line.rstrip("\r\n")
                if line:
                    yield f"{path}:{number}", line
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: not UTF-8 text ({error.reason} at byte {error.start})") from None
    except OSError as error:
        raise UserError(f"{path}: {error.strerror or error}") from None


def jsonl_rows(path: Path) -> Iterator[Row]:
    """One JSON object a line."""
    for where, line in lines(path):
        yield where, _json_object(where, line)


def json_file(path: Path) -> dict[str, Any]:
    """A file that is one JSON object."""
    try:
        return _json_object(str(path), path.read_text(encoding="utf-8-sig"))
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: not UTF-8 text ({error.reason} at byte {error.start})") from None
    except OSError as error:
        raise UserError(f"{path}: {error.strerror or error}") from None


def _json_object(where: str, text: str) -> dict[str, Any]:
    try:
        value = json.loads(text)
        if "\\u" in text:  # half of a surrogate pair is JSON, but no tokenizer takes it
            json.dumps(value, ensure_ascii=False).encode()
    except json.JSONDecodeError as error:
        line = f"line {error.lineno}, " if error.lineno > 1 else ""
        raise UserError(f"{where}: not JSON ({error.msg} at {line}column {error.colno})") from None
    except RecursionError:
        raise UserError(f"{where}: lists or objects are nested too deeply") from None
    except UnicodeEncodeError:
        raise UserError(f"{where}: a text holds half of a surrogate pair (\\ud800 to \\udfff)") from None
    except ValueError:  # a whole number of more digits than Python reads
        raise UserError(f"{where}: a number has too many digits") from None
    if not isinstance(value, dict):
        raise UserError(f"{where}: a JSON object is expected, not {text[:40]!r}")
    return value


def tsv_rows(path: Path) -> Iterator[Row]:
    """Tab-separated with a header, as GLUE writes it: a quotation mark is a character like any other."""
    header: list[str] = []
    for where, line in lines(path):
        if not header:
            header = line.split("\t")
            continue
        # Of two columns the second is the label, and a text may hold a tab of its own.
        cells = line.rsplit("\t", 1) if len(header) == 2 else line.split("\t")
        yield where, _named(where, header, cells)


def csv_rows(path: Path) -> Iterator[Row]:
    """Comma-separated with a header, cells quoted where they need it."""
    header: list[str] = []
    for where, cells in csv_cells(path):
        if header:
            yield where, _named(where, header, cells)
        else:
            header = cells


def csv_cells(path: Path) -> Iterator[tuple[str, list[str]]]:
    """The cells of a quoted csv file, header or not; a record over several lines is named by its last one."""
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.reader(file, strict=True)
            try:
                for cells in reader:
                    if cells:
                        yield f"{path}:{reader.line_num}", cells
            except csv.Error as error:
                raise UserError(f"{path}:{reader.line_num}: not csv ({error})") from None
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: not UTF-8 text ({error.reason} at byte {error.start})") from None
    except OSError as error:
        raise UserError(f"{path}: {error.strerror or error}") from None


def read_rows(path: Path) -> Iterator[Row]:
    """The rows of a jsonl, tsv or csv file, told apart by the file's ending."""
    readers = {".jsonl": jsonl_rows, ".tsv": tsv_rows, ".csv": csv_rows}
    suffix = path.suffix.lower()
    if suffix not in readers:
        raise UserError(f"{path}: cannot read a {suffix or 'nameless'} file; give one of {', '.join(sorted(readers))}")
    return readers[suffix](path)


def _named(where: str, header: Sequence[str], cells: Sequence[str]) -> dict[str, str]:
    if len(cells) != len(header):
        raise UserError(f"{where}: {len(cells)} columns, but the header has {len(header)}")
    return dict(zip(header, cells, strict=True))


def pick(record: object, *names: str) -> Any:
    """The first of the named fields that the record has; the same field bears other names elsewhere."""
    if not isinstance(record, Mapping):
        raise UserError(f"an object with a field {names[0]!r} is expected, not {str(record)[:40]!r}")
    for name in names:
        if name in record:
            return record[name]
    raise UserError(f"no field {names[0]!r}; there are {', '.join(map(str, record)) or 'none'}")


def text(record: object, *names: str) -> str:
    """A field that has to be text, stripped. It may be blank: data sets hold blank texts."""
    return raw_text(record, *names).strip()


def raw_text(record: object, *names: str) -> str:
    """A field that has to be text, as it stands, for where positions in it matter."""
    value = pick(record, *names)
    if not isinstance(value, str):
        raise UserError(f"field {names[0]!r} has to be text, not {str(value)[:40]!r}")
    return value


def texts(values: list[Any], what: str) -> list[str]:
    """A list that has to hold texts alone."""
    for value in values:
        if not isinstance(value, str):
            raise UserError(f"{what} have to be texts, not {str(value)[:40]!r}")
    return values


def number(record: object, *names: str) -> int:
    """A field that has to be a whole number."""
    value = pick(record, *names)
    if isinstance(value, bool) or not isinstance(value, int):
        raise UserError(f"field {names[0]!r} has to be a whole number, not {str(value)[:40]!r}")
    return value


def items(record: object, *names: str) -> list[Any]:
    """A field that has to be a list."""
    value = pick(record, *names)
    if not isinstance(value, list):
        raise UserError(f"field {names[0]!r} has to be a list, not {str(value)[:40]!r}")
    return value


def class_index(value: object, classes: Sequence[str]) -> int:
    """The class that a label means: its name, its index in class order, or a JSON boolean for ``false, true``."""
    name = ("true" if value else "false") if isinstance(value, bool) else value
    if isinstance(name, str):
        name = name.strip()
        if name in classes:
            return classes.index(name)
        if name.isdecimal() and len(name) <= 9:
            name = int(name)
    if isinstance(name, int) and 0 <= name < len(classes):
        return name
    raise UserError(f"label {str(value)[:40]!r} is none of {', '.join(classes)}")
