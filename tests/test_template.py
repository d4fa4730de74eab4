"""Templates: names are looked up, whatever they are; and near misses of names."""

from __future__ import annotations

import pytest

from dfolora import template
from dfolora.errors import UserError, near_misses, unknown

FIELDS = {"text": "good {mask} {", "review.text": "a", "0": "b", "a b": "c", "text.__class__": "d", "mask": "M"}


@pytest.mark.parametrize(
    ("text", "filled"),
    [
        ("{text} It was {mask}.", "good {mask} { It was M."),
        ("{review.text}{0}{a b}", "abc"),
        ("{{text}} {{{0}}} }}{{", "{text} {b} }{"),
        ("{text.__class__}", "d"),
        ("", ""),
    ],
)
def test_filling(text: str, filled: str) -> None:
    assert template.fill(text, FIELDS) == filled


def test_names() -> None:
    assert template.names("{mask}: {{no}} {a.b}{mask} {0}") == ["mask", "a.b", "mask", "0"]


def test_before_and_without() -> None:
    assert template.before("{{mask}} {a} is {mask} or {b}", "mask") == "{{mask}} {a} is "
    assert template.before("{a}}}", "mask") == "{a}}}"
    assert template.without("{a} it was {mask} .", "mask") == "{a} it was ."
    assert template.without("{mask}: {a}{{", "mask") == ": {a}{{"
    assert template.without("{mask} News: {mask} {a}", "mask") == "News: {a}"
    assert template.without(" {a}\n", "mask") == " {a}\n"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{text!r:>9999999999} {mask}", "has '{text!r:>9999999999}'; only plain names"),
        ("{text:>99999999} {mask}", "only plain names"),
        ("{text:d}", "only plain names"),
        ("{text!x}", "only plain names"),
        ("{text} {mask!s}", "only plain names"),
        ("{mask:}", "only plain names"),
        ("{text:{mask}} {mask}", "lone '{'"),
        ("{text:{text:{text}}}", "lone '{'"),
        ("{} {mask}", "lone '{'"),
        ("{text {mask}", "lone '{'"),
        ("{text}}", "lone '}'"),
        ("{mask" + "x" * 5000, "lone '{'"),
        ("{text[0]}", "has {text[0]}, but the fields are text"),
        ("{text.__class__.__mro__}", "has {text.__class__.__mro__}, but the fields are text"),
    ],
)
def test_what_is_refused(text: str, said: str) -> None:
    with pytest.raises(UserError, match=r"^template: ") as caught:
        template.fill(text, {"text": "a", "mask": ""})
    assert said in str(caught.value)
    assert len(str(caught.value)) < 400
    assert "\n" not in str(caught.value)


NAMES = ["superglue/rte", "mezo/rte", "superglue/boolq", "superglue/cb", "mezo/boolq", "agnews", "demo/sentiment"]
OPTIONS = ["lr", "target", "rank", "budget", "batch", "seed", "bound", "trust_remote_code"]


@pytest.mark.parametrize(
    ("value", "known", "meant"),
    [
        ("rte", NAMES, ["mezo/rte", "superglue/rte"]),
        ("RTE", NAMES, ["mezo/rte", "superglue/rte"]),
        ("superglue/bolq", NAMES, ["superglue/boolq"]),
        ("bolq", NAMES, ["mezo/boolq", "superglue/boolq"]),
        ("glue/rte", NAMES, ["mezo/rte", "superglue/rte"]),
        ("learning-rate", OPTIONS, ["lr"]),
        ("target-modules", OPTIONS, ["target"]),
        ("lora_rank", OPTIONS, ["rank", "lr"]),
        ("trust-remote-code", OPTIONS, ["trust_remote_code"]),
        ("adamw", ["cma", "random", "fireworks", "spsa"], []),
        ("", NAMES, []),
    ],
)
def test_near_misses(value: str, known: list[str], meant: list[str]) -> None:
    assert near_misses(value, known) == meant


def test_the_error_for_an_unknown_name() -> None:
    assert str(unknown("task", "rte", NAMES)) == "task: unknown 'rte'; did you mean 'mezo/rte' or 'superglue/rte'?"
    assert "choose one of a, b" in str(unknown("mode", "zzz", ["b", "a"]))
    assert "there are 30" in str(unknown("mode", "zzz", map(str, range(30))))
