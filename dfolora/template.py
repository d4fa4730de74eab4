"""Templates: text with ``{name}`` where a field goes. Names are looked up and nothing else.

``str.format`` would do more than that: attributes, indices, conversions and widths, so that a template could build a
string of ten gigabytes, and a column called ``review.text`` could not be named.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from dfolora.errors import UserError

Piece = tuple[str, bool]
"""A text of a template, and whether it is the name of a field."""

_MARKS = re.compile(r"\{\{|\}\}|\{([^{}]+)\}|[{}]")


def pieces(template: str) -> list[Piece]:
    """The template taken apart: ``"{text} is"`` gives ``("text", True), (" is", False)``. No piece is empty.

    Args:
        template: ``{name}`` for a field, ``{{`` and ``}}`` for a brace.

    Raises:
        UserError: a lone brace, an empty name, a name with a conversion (``!r``) or a format (``:>9``).
    """
    parts: list[Piece] = []
    literal, position = "", 0
    for mark in _MARKS.finditer(template):
        literal += template[position : mark.start()]
        position = mark.end()
        name = mark[1]
        if mark[0] in ("{{", "}}"):
            literal += mark[0][0]
        elif name is None:
            raise UserError(f"template: {shown(template)} has a lone {mark[0]!r}; write {mark[0] * 2} for a brace")
        elif "!" in name or ":" in name:
            raise UserError(
                f"template: {shown(template)} has {shown('{' + name + '}')}; only plain names may stand in braces"
            )
        else:
            parts += [(literal, False)] * bool(literal) + [(name, True)]
            literal = ""
    literal += template[position:]
    return parts + [(literal, False)] * bool(literal)


def names(template: str) -> list[str]:
    """The names in a template's braces, in their order, repeated as they are."""
    return [text for text, is_name in pieces(template) if is_name]


def fill(template: str, fields: Mapping[str, str]) -> str:
    """The template with each ``{name}`` replaced by that field.

    Raises:
        UserError: a name that is none of the fields.
    """
    return "".join(_value(template, text, fields) if is_name else text for text, is_name in pieces(template))


def before(template: str, name: str) -> str:
    """The part of a template that stands before ``{name}``, a template itself; all of it where the name is absent."""
    return "".join(map(_written, _until(pieces(template), name)))


def without(template: str, name: str) -> str:
    """The template without ``{name}``; what stood on its two sides is one space apart."""
    sides: list[list[Piece]] = [[]]
    for piece in pieces(template):
        if piece == (name, True):
            sides.append([])
        else:
            sides[-1].append(piece)
    texts = ["".join(map(_written, side)) for side in sides]
    if len(texts) == 1:
        return texts[0]
    return " ".join([texts[0].rstrip(), *(text.strip() for text in texts[1:-1]), texts[-1].lstrip()]).strip()


def _until(parts: list[Piece], name: str) -> list[Piece]:
    return parts[: parts.index((name, True))] if (name, True) in parts else parts


def _written(piece: Piece) -> str:
    text, is_name = piece
    return "{" + text + "}" if is_name else text.replace("{", "{{").replace("}", "}}")


def _value(template: str, name: str, fields: Mapping[str, str]) -> str:
    if name not in fields:
        raise UserError(f"template: {shown(template)} has {{{name:.60}}}, but the fields are {', '.join(fields)}")
    return fields[name]


def shown(text: str) -> str:
    """A text as errors quote it, cut where it is long."""
    return repr(text if len(text) <= 120 else text[:117] + "...")
