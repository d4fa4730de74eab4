"""Where a reward comes from: ``file.py:function``, or a sum of registered ones such as ``json('name') - 0.01*length``.

A sum is read by Python's parser and never run: numbers, names, brackets with plain values in them, and nothing else.
"""

from __future__ import annotations

import ast
import functools
import hashlib
import importlib.util
import inspect
import math
import re
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from dfolora.errors import UserError, unknown
from dfolora.registry import Registry
from dfolora.task import Example

Reward = Callable[[list[str], Sequence[Example]], Any]
"""(generated texts, their examples) -> a number, or one for each text; higher is better."""

_PLACE = "dfolora.tasks.rewards"
REGISTRY = Registry(
    "reward",
    {
        "exact": (f"{_PLACE}:exact", "1 for a gold text; case, punctuation and articles aside"),
        "f1": (f"{_PLACE}:f1", "F1 of words with the nearest gold text, as SQuAD measures it"),
        "json": (f"{_PLACE}:json", "1 for one JSON object that has the keys: json('name', 'age')"),
        "length": (f"{_PLACE}:length", "words, or length('characters'); with a weight below 0, a price"),
        "numeric": (f"{_PLACE}:numeric", "1 where the last number is that of the gold text, as GSM8K is scored"),
        "regex": (f"{_PLACE}:regex", "1 where a regular expression is found: regex('^(yes|no)$')"),
    },
    "dfolora.rewards",
)
_FILE = re.compile(r"(?P<path>.+\.py):(?P<function>\w+)")
_OBJECT = re.compile(r"[\w.<>]+:[\w.<>]+")  # ``options.as_text`` of a function
_SYNTAX = 'write file.py:function, or rewards with weights such as "numeric - 0.01*length" or "json(\'name\')"'


def is_file(reward: Any) -> bool:
    """Whether a reward is a function in a file of the user's, which is run when it is opened."""
    return isinstance(reward, str) and _FILE.fullmatch(reward) is not None


def is_code(reward: Any) -> bool:
    """Whether a reward, as a run folder has it written down, is code that only its user can name again."""
    return is_file(reward) or (isinstance(reward, str) and _OBJECT.fullmatch(reward) is not None)


def checksum(reward: Any) -> str:
    """A checksum of the file that a reward is in; '' for one that is in no file.

    Raises:
        UserError: the file cannot be read.
    """
    return hashlib.blake2b(_source(reward), digest_size=8).hexdigest() if is_file(reward) else ""


def open_reward(reward: str | Reward) -> Reward:
    """The function that a reward stands for.

    Args:
        reward: a function, ``file.py:function``, or a sum of registered rewards: ``numeric - 0.01*length``.

    Raises:
        UserError: no such file, function or reward; a sum that cannot be read; a file that cannot be run.
    """
    if callable(reward):
        return reward
    if not isinstance(reward, str):
        raise UserError(f"reward: {reward!r} is no function of texts and examples and no text; {_SYNTAX}")
    if is_file(reward):
        return _function(reward)
    found = Sum(reward)
    found([], [])  # what stands in brackets is looked at before a model is loaded
    return found


def _source(reward: str) -> bytes:
    path = Path(reward.rpartition(":")[0]).expanduser()
    try:
        return path.read_bytes()
    except (OSError, ValueError) as error:
        raise UserError(f"reward: cannot read {str(path)!r} ({getattr(error, 'strerror', error)})") from error


def _function(reward: str) -> Reward:
    """Run a file and take a function out of it; files beside it can be imported, as where Python runs a script."""
    path, _, name = reward.rpartition(":")
    _source(reward)
    file = Path(path).expanduser().resolve()
    module_name = f"dfolora_reward_{file.stem}"
    spec = importlib.util.spec_from_file_location(module_name, file)
    assert spec is not None, "a path that ends in .py can be loaded"
    assert spec.loader is not None, "a path that ends in .py can be loaded"
    module = importlib.util.module_from_spec(spec)
    sys.modules[module_name] = module  # where dataclasses and pickle look things up
    if str(file.parent) not in sys.path:
        sys.path.append(str(file.parent))
    try:
        spec.loader.exec_module(module)
    except Exception as error:  # somebody else's code
        raise UserError(f"reward: {path!r} cannot be run; it raised {type(error).__name__}: {error}") from error
    found = getattr(module, name, None)
    if not callable(found):
        functions = [each for each, thing in vars(module).items() if inspect.isfunction(thing) and each[0] != "_"]
        if found is None and functions:
            raise unknown(f"reward: {path}", name, functions)
        raise UserError(f"reward: {path!r} has no function {name!r}")
    return found


class Sum:
    """Registered rewards, each with a weight: a reward itself.

    Args:
        text: as the user wrote it.

    Attributes:
        terms: weight, name and function of each.

    Raises:
        UserError: it cannot be read.
    """

    def __init__(self, text: str) -> None:
        self.text = text
        try:
            tree = ast.parse(text.strip(), mode="eval").body
        except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
            raise UserError(f"reward: {text[:120]!r} cannot be read; {_SYNTAX}") from error
        self.terms = [(weight, *self._bound(node)) for weight, node in self._weighted(tree, 1.0)]

    def __call__(self, texts: Sequence[str], examples: Sequence[Example]) -> list[float]:
        parts = [(weight, term(texts, examples)) for weight, _, term in self.terms]
        return [math.fsum(weight * values[i] for weight, values in parts) for i in range(len(texts))]

    def parts(self, texts: Sequence[str], examples: Sequence[Example]) -> dict[str, float]:
        """The mean of each term without its weight, by name; none where there is a single term."""
        found: dict[str, float] = {}
        for _, name, term in self.terms if len(self.terms) > 1 else ():
            number = sum(each.split(" ")[0] == name for each in found) + 1
            found[name if number == 1 else f"{name} {number}"] = math.fsum(term(texts, examples)) / len(texts)
        return found

    def _weighted(self, node: ast.expr, weight: float) -> list[tuple[float, ast.expr]]:
        if isinstance(node, ast.UnaryOp) and isinstance(node.op, (ast.USub, ast.UAdd)):
            return self._weighted(node.operand, -weight if isinstance(node.op, ast.USub) else weight)
        if isinstance(node, ast.BinOp) and isinstance(node.op, (ast.Add, ast.Sub)):
            right = -weight if isinstance(node.op, ast.Sub) else weight
            return self._weighted(node.left, weight) + self._weighted(node.right, right)
        if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Mult):
            for number, other in ((node.left, node.right), (node.right, node.left)):
                value = getattr(number, "value", None)
                if isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value):
                    return self._weighted(other, weight * value)
        if isinstance(node, ast.Name) or (isinstance(node, ast.Call) and isinstance(node.func, ast.Name)):
            return [(weight, node)]
        raise UserError(f"reward: {ast.unparse(node)[:80]!r} in {self.text[:120]!r} is no reward; {_SYNTAX}")

    def _bound(self, node: ast.expr) -> tuple[str, Callable[..., list[float]]]:
        """The name of a reward, and its function with what stands in its brackets."""
        call = node if isinstance(node, ast.Call) else None
        name = str(getattr(call.func if call else node, "id", ""))
        dashed = name.replace("_", "-")  # a registered name may have dashes, which are minus signs here
        function = REGISTRY.get(dashed if dashed in REGISTRY.names() else name)
        try:
            arguments = [ast.literal_eval(each) for each in (call.args if call else ())]
            options = {str(each.arg): ast.literal_eval(each.value) for each in (call.keywords if call else ())}
            inspect.signature(function).bind([], [], *arguments, **options)
        except (TypeError, ValueError) as error:
            taken = str(inspect.signature(function)).partition("examples")[2].partition(", ")[2].partition(") ->")[0]
            wanted = f"it takes ({taken})" if taken else "it takes nothing in brackets"
            raise UserError(f"reward: {ast.unparse(node)[:80]!r} cannot work ({error}); {wanted}") from error
        return name, functools.partial(_called, function, arguments, options)


def _called(
    function: Callable[..., Any], arguments: list[Any], options: dict[str, Any], texts: Any, examples: Any
) -> list[float]:
    found = numbers_of(function(texts, examples, *arguments, **options))
    return found * len(texts) if len(found) == 1 else found


def numbers_of(found: Any) -> list[float]:
    """What a reward gave, a number or several (list, numpy array, tensor), as floats.

    Raises:
        TypeError, ValueError: it is something else.
    """
    found = found.tolist() if hasattr(found, "tolist") else found
    if isinstance(found, (str, bytes)):
        raise TypeError(f"{found[:40]!r} is a text, not a number")
    return [float(found)] if isinstance(found, (int, float)) else [float(number) for number in found]
