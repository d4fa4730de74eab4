"""A model's files on disk or on the Hub: where they are, whether they are safe and whole, and how errors say it."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import transformers

from dfolora.errors import UserError
from dfolora.models.probe import needed
from dfolora.task import Kind


def path_of(name: str) -> str:
    """A folder's path, or the Hub's name where there is no such folder and it can be one."""
    try:
        folder = Path(name).expanduser()
        if name and folder.is_dir():
            return str(folder)
    except (OSError, RuntimeError, ValueError):  # too long, of an unknown user, with a zero byte
        pass
    else:
        if name and not name.startswith((".", "/", "~")) and len(name) < 200:
            return name
    raise UserError(f"model: there is no folder {name[:200]!r}; give one with config.json and model.safetensors")


@contextmanager
def refusing(name: str, kind: str) -> Iterator[None]:
    """Whatever the libraries raise while they load, as one line."""
    try:
        yield
    except UserError:
        raise
    except Exception as error:  # they raise whatever they like here; tokenizers and safetensors bare ones
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise UserError(
            f"model: cannot load {name!r}{' as ' + with_article(kind) + ' model' if kind else ''} ({reason:.300}); "
            "give a Hugging Face id or a folder with config.json, tokenizer files and safetensors weights"
        ) from error


def check_complete(model: Any, missing: Iterable[str], name: str, kind: Kind) -> None:
    """Refuse a checkpoint that lacks weights which answers depend on; a pooler that nobody reads may be missing."""
    lacking = needed(model, sorted(missing))
    if lacking is not None:
        made_as = ", ".join(getattr(model.config, "architectures", None) or ["nothing in particular"])
        raise UserError(
            f"model: the checkpoint of {name!r} lacks weights that {with_article(kind)} model answers with, such as "
            f"{lacking}; it was saved as {made_as}; choose another kind or another checkpoint"
        )


def check_index(path: str, name: str) -> None:
    """Refuse an index of weight files that names others than safetensors beside it: a pickle can run code."""
    try:
        file = transformers.utils.cached_file(
            path, "model.safetensors.index.json", _raise_exceptions_for_missing_entries=False
        )
    except Exception:  # no network to ask, or nothing there: loading will say it
        return
    if file is None:
        return
    try:
        files = set(json.loads(Path(str(file)).read_text(encoding="utf-8"))["weight_map"].values())
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise UserError(f"model: the model.safetensors.index.json of {name!r} cannot be read") from error
    wrong = [
        entry for entry in files if not isinstance(entry, str) or not entry.endswith(".safetensors") or "/" in entry
    ]
    if wrong:
        raise UserError(f"model: only safetensors are read, but the index of {name!r} names {wrong[0]!s:.100}")


def pooling_of(path: str, name: str) -> str:
    """A sentence-transformers folder says in 1_Pooling/config.json how it pools; everything else gets the mean."""
    try:
        file = transformers.utils.cached_file(path, "1_Pooling/config.json")
    except OSError:  # not there, or no network to ask
        return "mean"
    try:
        says = json.loads(Path(str(file)).read_text(encoding="utf-8"))
        modes = [
            key.removeprefix("pooling_mode_") for key, value in says.items() if key[:13] == "pooling_mode_" and value
        ]
    except (OSError, ValueError, AttributeError, RecursionError) as error:
        raise UserError(f"model: the 1_Pooling/config.json of {name!r} is not a JSON object") from error
    pooling = {(): "mean", ("mean_tokens",): "mean", ("cls_token",): "cls"}.get(tuple(modes))
    if pooling is None:
        raise UserError(f"model: {name!r} pools by {', '.join(modes)}; only mean_tokens or cls_token alone are known")
    return pooling


def with_article(kind: str) -> str:
    """``a masked``, ``an encoder``."""
    return ("an " if kind[:1] in "aeiou" else "a ") + kind
