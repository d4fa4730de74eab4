"""Files read line by line, and what is said of a malformed one."""

import re

import pytest

from dfolora.errors import UserError
from dfolora.tasks.reading import class_index, csv_rows, items, number, pick, read_rows, text, tsv_rows


def records(rows) -> list:
    return [record for _, record in rows]


def test_byte_order_mark_and_quotes_in_tsv(write) -> None:
    file = write("a.tsv", '\ufeffa\tb\tlabel\r\n"open\tx " y\t1\r\n')
    assert records(tsv_rows(file)) == [{"a": '"open', "b": 'x " y', "label": "1"}]


def test_two_columns_are_split_from_the_right(write) -> None:
    file = write("a.tsv", "text\tlabel\none\ttab\t0\n\t1\n\n")
    assert records(tsv_rows(file)) == [{"text": "one\ttab", "label": "0"}, {"text": "", "label": "1"}]


def test_only_line_feeds_end_lines(write) -> None:
    file = write("a.tsv", "text\tlabel\none\x0c\u2028\x85line\t0\n")
    assert len(records(tsv_rows(file))) == 1


def test_csv_is_quoted(write) -> None:
    file = write("a.csv", '\ufefftext,label\n"one, ""two""\nthree",0\n')
    assert list(csv_rows(file)) == [(f"{file}:3", {"text": 'one, "two"\nthree', "label": "0"})]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.tsv", "a\tb\tc\n1\t2\n", ":2: 2 columns, but the header has 3"),
        ("a.jsonl", '{"a": 1}\n{"a"\n', ":2: not JSON"),
        ("a.jsonl", "[1]\n", ":1: a JSON object is expected"),
        ("a.csv", 'a,b\n1,"2\n', ":2: not csv"),
        ("a.csv", "a,b\n1\n", ":2: 1 columns"),
        ("a.xlsx", "", "cannot read a .xlsx file; give one of .csv, .jsonl, .tsv"),
    ],
)
def test_malformed(write, name: str, content: str, message: str) -> None:
    file = write(name, content)
    with pytest.raises(UserError, match=re.escape(f"{file}") + ".*" + re.escape(message)):
        list(read_rows(file))


@pytest.mark.parametrize("name", ["a.tsv", "a.csv", "a.jsonl"])
def test_unreadable(tmp_path, name: str) -> None:
    file = tmp_path / name
    with pytest.raises(UserError, match="No such file"):
        list(read_rows(file))
    file.write_bytes(b"text,label\n\xff\xfe")
    with pytest.raises(UserError, match="not UTF-8 text"):
        list(read_rows(file))


def test_fields() -> None:
    assert pick({"b": 1}, "a", "b") == 1
    assert text({"a": "  "}, "a") == ""
    with pytest.raises(UserError, match="no field 'a'; there are b, c"):
        pick({"b": 1, "c": 2}, "a")
    with pytest.raises(UserError, match="an object with a field 'a'"):
        pick(["b"], "a")
    with pytest.raises(UserError, match="'a' has to be text"):
        text({"a": None}, "a")
    with pytest.raises(UserError, match="'a' has to be a whole number"):
        number({"a": True}, "a")
    with pytest.raises(UserError, match="'a' has to be a list"):
        items({"a": {}}, "a")


@pytest.mark.parametrize(("value", "index"), [("yes", 1), (0, 0), ("1", 1), (" no ", 0)])
def test_labels(value: object, index: int) -> None:
    assert class_index(value, ("no", "yes")) == index


def test_boolean_labels() -> None:
    assert [class_index(value, ("false", "true")) for value in (False, True, "true", 0)] == [0, 1, 1, 0]


@pytest.mark.parametrize("value", [2, -1, "2", "-1", "maybe", True, None, 1.0])
def test_labels_that_are_none(value: object) -> None:
    with pytest.raises(UserError, match="is none of no, yes"):
        class_index(value, ("no", "yes"))
