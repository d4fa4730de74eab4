"""Good text, JSON, tensors and tables in; the same with something wrong in it out."""

from __future__ import annotations

import copy
import json
import random
import struct
from typing import Any

WORDS = (
    "", " ", "\t", "\\", "\\,", ",", ",,", "=", "==", "{", "}", "{}", "{{", "}}", "{mask}", "{text}", "{mask}{mask}",
    "{text:{mask}}", "{text!r}", "{text.__class__}", "{text[0]}", "{0}", "{text:>9999999}", "{choice}", "0=", "=1",
    "0=bad", "nan", "NaN", "inf", "-inf", "1e999", "-1", "0", "1e-400", "9" * 400, "0x10", "1_000", "True", "null", "~",
    "yes", "[", "]", "[]", "[[", "[1, 2]", "- a", "a: b", "a: &x [*x]", "!!python/object:os.system", "<<: *a", "#", "'",
    '"', "'''", "\u202e", "\ufeff", "\ud800", "\x00", "\x1b[31m", "\u00e9", "e\u0301", "\U0001f600", "日本語", "\n",
    "\r\n", "\r", "\x0c", "\u2028", "x" * 3000, "word " * 900, "(" * 300, "[" * 3000, "../../etc/passwd", "/dev/null",
    "/", ".", "~nobody_of_that_name/x", "%s", "%(x)s", "$HOME", "`id`", "--", "-h", "--json", "__import__('os')",
    "<script>", "label", "text", "f1", "2*", "length", "regex('(')", "regex('(a+)+$')", "**", "9**9**9", "lambda: 0",
)  # fmt: skip
VALUES: tuple[Any, ...] = (
    None, True, False, 0, -1, 1, 2, 10**6, 10**300, -(10**30), 0.0, -0.5, 1e-320, 1e308, float("nan"), float("inf"), "",
    "x", "nan", "5", [], [None], [[]], [1.5], {}, {"a": 1}, {"": None}, ["query"], "x" * 5000, "\ud800", "日本語",
)  # fmt: skip


def words(text: str, draw: random.Random) -> str:
    """Something put into a text, taken out of it, doubled, or in place of a part of it; never a zero byte."""
    for _ in range(draw.choice((1, 1, 1, 2, 3))):
        start, stop = sorted(draw.randint(0, len(text)) for _ in range(2))
        stop = min(stop, start + draw.choice((1, 3, 10, 10**6)))
        odd = draw.choice(WORDS) if draw.random() < 0.7 else chr(draw.choice((draw.randint(1, 127), 0x300, 0xFFFD)))
        kind = draw.randrange(5)
        if kind == 0:
            text = text[:start] + odd + text[start:]
        elif kind == 1:
            text = text[:start] + odd + text[stop:]
        elif kind == 2:
            text = text[:start] + text[stop:]
        elif kind == 3:
            text = text[:stop] + text[start:]
        else:
            text = odd
    return text.replace("\0", "")


def data(content: bytes, draw: random.Random) -> bytes:
    """Bytes of a file with some changed, lost, doubled, cut off, or its lines in another order."""
    for _ in range(draw.choice((1, 1, 2, 4))):
        start, stop = sorted(draw.randint(0, len(content)) for _ in range(2))
        kind = draw.randrange(7)
        odd = draw.choice(WORDS).encode("utf-8", "surrogatepass")
        if kind == 0:
            content = content[:start] + bytes([draw.randrange(256)]) + content[start + 1 :]
        elif kind == 1:
            content = content[:start] + odd + content[start:]
        elif kind == 2:
            content = content[:start] + content[min(stop, start + 40) :]
        elif kind == 3:
            content = content[:stop]
        elif kind == 4:
            lines = content.splitlines(keepends=True)
            draw.shuffle(lines)
            content = b"".join(lines)
        elif kind == 5:
            content = content[:stop] + content[start : start + 200] + content[stop:]
        else:
            content = odd
    return content


def value(thing: Any, draw: random.Random) -> Any:
    """A JSON value with one of its parts replaced, left out, renamed or doubled."""
    thing = copy.deepcopy(thing)
    for _ in range(draw.choice((1, 1, 1, 2, 3))):
        places = _places(thing)
        if not places:
            return draw.choice(VALUES)
        holder, key = draw.choice(places)
        kind = draw.randrange(6)
        if kind <= 2:
            holder[key] = draw.choice(VALUES)
        elif kind == 3:
            del holder[key]
        elif kind == 4 and isinstance(holder, dict):
            holder[draw.choice(WORDS)] = holder.pop(key)
        elif isinstance(holder[key], str):
            holder[key] = words(holder[key], draw)
        elif isinstance(holder[key], (int, float)):
            holder[key] = holder[key] * draw.choice((-1, 0, 2, 10**9)) + draw.choice((0, 1, 0.5))
        else:
            holder[key] = [holder[key], holder[key]]
    return thing


def json_text(text: str, draw: random.Random) -> bytes:
    """A JSON file, spoiled as bytes or as what it means."""
    if draw.random() < 0.3:
        return data(text.encode(), draw)
    return json.dumps(value(json.loads(text), draw)).encode()


def json_lines(text: str, draw: random.Random) -> bytes:
    """A file with a JSON value a line; one of them, or the bytes, are spoiled."""
    if draw.random() < 0.3:
        return data(text.encode(), draw)
    lines = text.splitlines()
    at = draw.randrange(len(lines))
    lines[at] = json.dumps(value(json.loads(lines[at]), draw))
    return ("\n".join(lines) + "\n").encode()


def tensors(content: bytes, draw: random.Random) -> bytes:
    """A safetensors file: its bytes, its header, or its numbers are spoiled."""
    kind = draw.randrange(4)
    size = struct.unpack("<Q", content[:8])[0]
    header, body = content[8 : 8 + size], content[8 + size :]
    if kind == 0:
        return data(content, draw)
    if kind == 1:
        header = json_text(header.decode(), draw)
        return struct.pack("<Q", len(header) if draw.random() < 0.8 else draw.choice((0, 2**40, 2**63))) + header + body
    if kind == 2:  # numbers that are none, or huge
        odd = draw.choice((b"\x00\x00\xc0\x7f", b"\x00\x00\x80\x7f", b"\xff\xff\x7f\x7f", b"\x00\x00\x00\x00"))
        at = draw.randrange(max(1, len(body) // 4)) * 4
        return content[: 8 + size] + (
            odd * (len(body) // 4) if draw.random() < 0.5 else body[:at] + odd + body[at + 4 :]
        )
    named = json.loads(header)
    names = [name for name in named if name != "__metadata__"]
    one = named[draw.choice(names)]
    change = draw.randrange(4)
    if change == 0:
        one["shape"] = one["shape"][::-1]
    elif change == 1:
        one["shape"] = [*one["shape"], 1]
    elif change == 2:
        one["dtype"] = draw.choice(("I32", "U8", "F16", "BF16", "BOOL", "F8_E4M3", "F64"))
    else:
        named[draw.choice(WORDS)] = named.pop(draw.choice(names))
    header = json.dumps(named).encode()
    return struct.pack("<Q", len(header)) + header + body


def _places(thing: Any) -> list[tuple[Any, Any]]:
    """Every (holder, key) within a value."""
    pairs = (
        list(thing.items()) if isinstance(thing, dict) else list(enumerate(thing)) if isinstance(thing, list) else []
    )
    return [(thing, key) for key, _ in pairs] + [place for _, part in pairs for place in _places(part)]
