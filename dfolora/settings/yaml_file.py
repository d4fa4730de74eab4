"""YAML files of settings, read strictly and safely.

Booleans are YAML 1.2's ``true`` and ``false``; ``yes``, ``no``, ``on`` and ``off`` are words like any other. Dates are
text too. Keys are text as they are spelled. Anchors, tags and keys given twice are refused, and so is what is too large
or too deep: a file of 490 bytes can otherwise ask for gigabytes.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

from dfolora.errors import UserError

LARGEST_FILE = 1_000_000  # bytes
DEEPEST = 20  # mappings and lists inside each other

_INTEGER = re.compile(r"[-+]?[0-9]{1,100}")
_NUMBER = re.compile(r"[-+]?(\.[0-9]{1,100}|[0-9]{1,100}(\.[0-9]{0,100})?)([eE][-+]?[0-9]{1,10})?|[-+]?\.inf|\.nan")
_TEXT_TAG = "tag:yaml.org,2002:str"


def read_yaml(path: str | Path, what: str = "config") -> dict[str, Any]:
    """Read the mapping in a YAML file.

    Args:
        path: the file.
        what: the option that led to it, for errors.

    Returns:
        Option name -> value. Mappings and lists inside stay what they are. ``True`` and ``False`` as an option's whole
        value are booleans; in a list or mapping, which hold labels and words, only ``true`` and ``false`` are.

    Raises:
        UserError: no such file, too large, not YAML, or not one mapping; the line is named where there is one.
    """
    try:
        with Path(path).expanduser().open("rb") as file:
            content = file.read(LARGEST_FILE + 1)
        if len(content) > LARGEST_FILE:
            raise UserError(f"{what}: {str(path)!r} is larger than {LARGEST_FILE:,} bytes")
        values = _File(f"{what}: {str(path)!r}").read(content.decode("utf-8-sig"))
    except OSError as error:
        raise UserError(f"{what}: cannot read {str(path)!r} ({error.strerror})") from error
    except (UnicodeDecodeError, yaml.YAMLError) as error:
        reason = " ".join(str(error).split())
        raise UserError(f"{what}: {str(path)!r} is not YAML ({reason:.200})") from error
    return values


def write_yaml(values: Mapping[str, Any]) -> str:
    """YAML that ``read_yaml`` reads back as it was; mappings keep their order.

    Args:
        values: texts, numbers, booleans, None, and lists and mappings of these.
    """
    return yaml.dump(
        dict(values), Dumper=_Dumper, sort_keys=False, allow_unicode=True, default_flow_style=None, width=100
    )


class _Dumper(yaml.SafeDumper):
    """Puts a text in quotation marks wherever YAML 1.1 or 1.2 would read something else in it."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


_Dumper.add_implicit_resolver("tag:yaml.org,2002:float", re.compile(f"^(?:{_NUMBER.pattern})$"), list("-+.0123456789"))


class _File:
    """Reads one document's events; ``where`` begins every error."""

    def __init__(self, where: str) -> None:
        self.where = where

    def read(self, text: str) -> dict[str, Any]:
        events = iter(yaml.parse(text, Loader=yaml.SafeLoader))
        next(events)  # the stream's start
        if isinstance(next(events), yaml.StreamEndEvent):
            return {}
        first = next(events)
        if isinstance(first, yaml.MappingStartEvent):
            values = self._mapping(first, events, 1)
        elif isinstance(first, yaml.ScalarEvent) and first.value == "":
            values = {}
        else:
            raise UserError(f"{self.where} must hold `name: value` lines")
        next(events)  # the document's end
        if not isinstance(next(events), yaml.StreamEndEvent):
            raise UserError(f"{self.where} holds more than one document")
        return values

    def _mapping(self, start: yaml.Event, events: Iterator[yaml.Event], depth: int) -> dict[str, Any]:
        self._check(start, depth)
        values: dict[str, Any] = {}
        for key in events:
            if isinstance(key, yaml.MappingEndEvent):
                break
            self._check(key, depth)
            if not isinstance(key, yaml.ScalarEvent):
                raise self._error(key, "a name must be plain text, not a list or a mapping")
            if key.value in values:
                raise self._error(key, f"{key.value!r} is given twice")
            values[key.value] = self._value(next(events), events, depth)
        return values

    def _value(self, event: yaml.Event, events: Iterator[yaml.Event], depth: int) -> Any:
        if isinstance(event, yaml.MappingStartEvent):
            return self._mapping(event, events, depth + 1)
        self._check(event, depth + isinstance(event, yaml.SequenceStartEvent))
        if isinstance(event, yaml.SequenceStartEvent):
            items = []
            for item in events:
                if isinstance(item, yaml.SequenceEndEvent):
                    break
                items.append(self._value(item, events, depth + 1))
            return items
        assert isinstance(event, yaml.ScalarEvent)
        return _scalar(event, whole=depth == 1)

    def _check(self, event: yaml.Event, depth: int) -> None:
        if isinstance(event, yaml.AliasEvent) or getattr(event, "anchor", None) is not None:
            raise self._error(event, "anchors (&) and aliases (*) are not taken; write the value out or quote it")
        if getattr(event, "tag", None) not in (None, "!", _TEXT_TAG):
            raise self._error(event, "tags (!) are not taken; write the value plainly or quote it")
        if depth > DEEPEST:
            raise self._error(event, f"lists and mappings may be {DEEPEST} deep")

    def _error(self, event: yaml.Event, reason: str) -> UserError:
        return UserError(f"{self.where}, line {event.start_mark.line + 1}: {reason}")  # type: ignore[union-attr]


def _scalar(event: yaml.ScalarEvent, whole: bool) -> Any:
    """What a value means. ``whole``: it is all of an option's value."""
    text = event.value
    if event.style is not None or event.tag is not None:  # in quotation marks, or said to be text
        return text
    if text in ("", "~", "null"):
        return None
    if text in ("true", "false") or (whole and text in ("True", "False", "TRUE", "FALSE")):
        return text.lower() == "true"
    if _INTEGER.fullmatch(text):
        return int(text)
    return float(text.replace(".inf", "inf").replace(".nan", "nan")) if _NUMBER.fullmatch(text) else text
