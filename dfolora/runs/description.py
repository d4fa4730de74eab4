"""The file dfolora.json beside a saved adapter: model, task and prompt, so that ``evaluate`` needs nothing else."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dfolora.errors import UserError
from dfolora.problems.reward_source import is_code
from dfolora.runs.folder import Run
from dfolora.settings.build import saved
from dfolora.settings.model import ModelSettings
from dfolora.settings.options import as_text

if TYPE_CHECKING:
    from dfolora.problems.encode import PromptEncoder

FILE = "dfolora.json"
# Not what an adapter was made for, but how a machine ran it.
_LEFT_OUT = ("device", "chunk_tokens", "trust_remote_code", "quantize", "reward")


def name_of(thing: Any) -> str:
    """A name or an object, as text."""
    return str(as_text(thing))


def text(settings: ModelSettings, encoder: PromptEncoder) -> str:
    """The content of the file: the settings that matter for asking the model, and the prompt as it was used."""
    fields = {field.name for field in dataclasses.fields(ModelSettings)} - set(_LEFT_OUT)
    values = {name: value for name, value in saved(settings).items() if name in fields and value != ""}
    if settings.reward is not None:
        values["new_tokens"] = encoder.task.new_tokens  # generated without that reward, too
        if isinstance(settings.reward, str) and not is_code(settings.reward):
            values["reward"] = settings.reward
    for name in ("model", "data", "train_file", "dev_file", "test_file"):
        path = Path(str(values.get(name, ""))).expanduser()
        if values.get(name) and path.exists():  # from wherever it is evaluated
            values[name] = str(path.resolve())
    prompt = encoder.prompt
    if getattr(settings, "demonstrations", None):  # which stand in the template now
        values["template"] = prompt.template
    about = {
        "settings": {**values, "kind": encoder.kind, "max_length": encoder.max_length},
        "prompt": {
            "template": prompt.template,
            "words": None if prompt.words is None else list(prompt.words),
            "answer": prompt.answer,
            "shorten": encoder.task.shorten,
            "new_tokens": encoder.task.new_tokens,
        },
    }
    return json.dumps(about, indent=2, ensure_ascii=False) + "\n"


def base_settings(run: Path) -> dict[str, Any]:
    """Settings that evaluate the untuned model of a finished run on the run's task."""
    return _read(run / "model" if (run / "model").is_dir() else run / "adapter")


def complete(values: Mapping[str, Any]) -> dict[str, Any]:
    """Complete the arguments of ``evaluate`` by what the named run or adapter says of itself.

    Args:
        values: ``model`` may be a ``Run`` or the folder of one; ``adapter`` the folder of an adapter or of a run.

    Returns:
        The same as settings; what was given wins.

    Raises:
        UserError: a run without an adapter, or a file that cannot be read.
    """
    values = dict(values)
    model = values.get("model")
    if isinstance(model, Run):
        values["adapter"] = str(model.folder)
        del values["model"]
    elif isinstance(model, (str, Path)) and _is_run(Path(model).expanduser()):
        values["adapter"] = str(values.pop("model"))
    if not values.get("adapter"):
        return values
    folder = Path(values["adapter"]).expanduser()
    if not _is_run(folder) and not (folder / FILE).is_file() and (folder / "adapter" / FILE).is_file():
        folder = folder / "adapter"  # of an alternation
    if _is_run(folder):
        whole, adapter = folder / "model", folder / "adapter"
        if whole.is_dir():
            known = _read(whole)
            own_task = ("task", "train_file", "dev_file", "test_file")
            del values["adapter"]
            return {**_without(known, own_task if values.get("task") else ()), **values, "model": str(whole)}
        if not adapter.is_dir():
            if (folder / "scores.json").is_file():
                raise UserError(f"adapter: {str(folder)!r} holds a baseline, which has none; its scores are there")
            raise UserError(f"adapter: the run {str(folder)!r} has no adapter yet; go on with it by --resume")
        folder = adapter
    known = _read(folder)
    if values.get("task") or any(values.get(name) for name in ("train_file", "dev_file", "test_file")):
        # Another task: what was said of the run's own no longer holds.
        names = ("task", "data", "train_file", "dev_file", "test_file", "test_limit", "template", "label_words",
                 "text_columns", "label_column", "shorten", "new_tokens", "reward")  # fmt: skip
        if values.get("task") != known.get("task"):
            known = _without(known, names)
    if values.get("model") and not _same(values["model"], known.get("model")):
        known = _without(known, ("kind", "max_length"))  # which are the other model's
    return {**known, **values, "adapter": str(folder)}


def _same(model: Any, other: Any) -> bool:
    """Whether two names of models are one, be it that one of them is a folder's whole path."""
    return len({str(Path(name).expanduser().resolve()) for name in (name_of(model), str(other))}) == 1


def _without(values: Mapping[str, Any], names: tuple[str, ...]) -> dict[str, Any]:
    return {name: value for name, value in values.items() if name not in names}


def _is_run(folder: Path) -> bool:
    return (folder / "config.yaml").is_file() and (folder / "environment.json").is_file()


def _read(folder: Path) -> dict[str, Any]:
    """The settings of a saved adapter; without a file of ours, the model that PEFT's says."""
    ours, theirs = folder / FILE, folder / "adapter_config.json"
    try:
        if ours.is_file():
            known = json.loads(ours.read_text(encoding="utf-8"))["settings"]
            fields = {field.name for field in dataclasses.fields(ModelSettings)} - set(_LEFT_OUT)
            if isinstance(known.get("reward"), str) and not is_code(known["reward"]):  # code is run if a user names it
                fields.add("reward")
            return {str(name): value for name, value in known.items() if name in fields}
        name = json.loads(theirs.read_text(encoding="utf-8")).get("base_model_name_or_path")
        return {"model": str(name)} if name else {}
    except (OSError, ValueError, AttributeError, KeyError, TypeError, RecursionError) as error:
        raise UserError(f"adapter: {str(folder)!r} holds no adapter_config.json that can be read") from error
