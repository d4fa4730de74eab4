"""Write tasks for lm-evaluation-harness that ask what this library asks: same prompts, answers and examples.

A task is a YAML file and a JSON line per example; nothing is downloaded, and the folder may be moved. Prompts are cut
here as far as the model's longest prompt asks for, since the harness would cut them from the left.
"""

from __future__ import annotations

import dataclasses
import json
import keyword
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from dfolora.errors import UserError
from dfolora.models.checkpoint import with_article
from dfolora.opening import open_model, open_prompt, open_task, task_names
from dfolora.problems.answer_tokens import gap
from dfolora.problems.encode import PromptEncoder
from dfolora.runs import description
from dfolora.runs.folder import new_folder
from dfolora.settings.build import settings as settings_of
from dfolora.settings.tools import ExportSettings
from dfolora.task import Example
from dfolora.template import before, fill, pieces

RESULTS = "dfolora_results"
_OURS = {"label", "choices", "classes", "right", "tokens", "gold"}  # what a line holds besides the template's fields
_JINJA = {"true", "false", "none", "self", "loop", "caller", "varargs", "kwargs"}


class _Function(str):
    """``module.function``, which the harness looks up beside the YAML file."""


class _Writer(yaml.SafeDumper):
    pass


_Writer.add_representer(_Function, lambda writer, name: writer.represent_scalar("!function", str(name)))


def export(run: str | Path | Any = "", *, lm_eval: str | Path, **options: Any) -> dict[str, Any]:
    """Write tasks for lm-evaluation-harness, with the prompts that this library asks a causal model.

    Args:
        run: a ``Run``, its folder, or that of an adapter: model, task and prompt are its; '': name them by options.
        lm_eval: folder that is made, for ``lm_eval --include_path``; whole or not at all.
        options: those of ``dfolora export``: ``tasks`` (names, or ``all``), ``model``, ``data``, ``split``, ...

    Returns:
        ``folder``; ``tasks``: the harness's name of each task -> its number of examples; ``left_out``: of ``all``, name
        -> why; ``command``: one that scores them.

    Raises:
        UserError: a model that is not causal, a task without a prompt for one or without data, a folder in use.
    """
    given = {**options, "lm_eval": str(lm_eval), **({"adapter": str(getattr(run, "folder", run))} if run else {})}
    wanted = given.get("tasks") or ""
    names = [name.strip() for name in (wanted.split(",") if isinstance(wanted, str) else wanted)]
    every = names == ["all"]
    first = settings_of(ExportSettings, **description.complete(given))
    if not first.lm_eval:
        raise UserError("lm_eval: where to? name the folder for the harness's task files")
    folder = Path(first.lm_eval).expanduser()
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UserError(f"lm_eval: {str(folder)!r} is not empty; choose another folder")
    if not first.model:
        raise UserError("model: which one? give a run, a Hugging Face id or a folder; prompts are cut by its tokenizer")
    language_model = open_model(first)
    if language_model.kind != "causal":
        raise UserError(
            f"model: {language_model.name!r} is {with_article(language_model.kind)} model; lm-evaluation-harness asks "
            "causal ones as this library does"
        )
    files: dict[str, str] = {}
    counts: dict[str, int] = {}
    left_out: dict[str, str] = {}
    for name in task_names() if every else [name for name in names if name] or [""]:
        asked = {**given, **({"task": name} if name else {})}
        try:
            settings = settings_of(ExportSettings, **description.complete(asked))
            encoder, examples = _open(dataclasses.replace(settings, model=language_model))
            made = task_files(encoder, examples)
        except UserError as error:
            if not every:
                raise
            left_out[name] = str(error)
            continue
        files |= made
        counts[harness_name(encoder.task.name)] = len(examples)
    if not counts:
        raise UserError(f"tasks: none of {len(left_out)} could be read, such as {next(iter(left_out.items()))}")
    files[f"{RESULTS}.py"] = (Path(__file__).parent / "lm_eval_results.py").read_text(encoding="utf-8")
    with new_folder(folder) as (partial, lock):
        for name, text in files.items():
            (partial / name).write_text(text, encoding="utf-8")
        lock.release()
        (partial / "lock").unlink(missing_ok=True)
    return {
        "folder": str(folder),
        "tasks": counts,
        "left_out": left_out,
        "command": _command(language_model.name, first.adapter, folder, counts),
    }


def harness_name(task: str) -> str:
    """A task's name in the harness, which goes by letters, figures and underscores."""
    return "dfolora_" + re.sub(r"\W+", "_", task)


def task_files(encoder: PromptEncoder, examples: Sequence[Example]) -> dict[str, str]:
    """The files of one task: name -> content.

    Args:
        encoder: of a causal model.
        examples: N of them.

    Raises:
        UserError: an example that cannot be asked.
    """
    task, prompt, name = encoder.task, encoder.prompt, harness_name(encoder.task.name)
    left = before(prompt.template, "mask").rstrip(" ")
    keys = _keys([text for text, is_name in pieces(left) if is_name])
    rows, plain = [], True
    for example in examples:
        rows.append(_row(encoder, example, keys))
        plain &= fill(left, rows[-1][0]) == encoder.texts([dataclasses.replace(example, fields=rows[-1][0])])[0]
    values: dict[str, Any] = {
        "task": name,
        "tag": ["dfolora"],
        "custom_dataset": _Function(f"{RESULTS}.rows"),
        "dataset_kwargs": {"file": f"{name}.jsonl"},
        "test_split": "test",
        "num_fewshot": 0,
        "doc_to_text": jinja(left, keys, plain),
    }
    if task.new_tokens:
        values |= {
            "output_type": "generate_until",
            "doc_to_target": "{{gold[0]}}",
            "generation_kwargs": {"until": ["\n"], "do_sample": False, "max_gen_toks": task.new_tokens},
            "process_results": _Function(f"{RESULTS}.text"),
            "metric_list": [_mean("f1"), _mean("em")],
        }
    elif prompt.words is not None:
        values |= {
            "output_type": "multiple_choice",
            "doc_to_choice": list(prompt.words),
            "doc_to_target": "label",
            "target_delimiter": gap(before(prompt.template, "mask")),
            "metric_list": [_mean("acc")],
        }
    else:
        values |= {
            "output_type": "multiple_choice",
            "doc_to_choice": "choices",
            "doc_to_target": "label",
            "target_delimiter": "",
            "process_results": _Function(f"{RESULTS}.choice"),
            "metric_list": [_mean("acc")],
        }
    values["metadata"] = {"version": 1.0}
    lines = (
        json.dumps({**{keys[key]: text for key, text in fields.items() if key in keys}, **more}, ensure_ascii=False)
        for fields, more in rows
    )
    text = yaml.dump(values, Dumper=_Writer, sort_keys=False, allow_unicode=True, width=1000)
    about = (
        f"# {task.name}, as dfolora asks it: {task.about or 'data of your own'}\n".replace("\n", " ").rstrip() + "\n"
    )
    return {f"{name}.yaml": about + text, f"{name}.jsonl": "".join(line + "\n" for line in lines)}


def jinja(template: str, keys: Mapping[str, str], plain: bool = True) -> str:
    """A template of ours as one of Jinja's.

    Args:
        template: ``{name}`` for a field.
        keys: field -> its name there.
        plain: False: spaces around the filled text are to be taken off.
    """
    body = template.rstrip("\n")
    text = "".join(
        "{{" + keys[part] + "}}" if is_name
        else "{{ " + json.dumps(part, ensure_ascii=False) + " }}" if "{" in part or "}" in part
        else part
        for part, is_name in pieces(body)
    )  # fmt: skip
    return (text if plain else "{% filter trim %}" + text + "{% endfilter %}") + template[len(body) :]


def _open(settings: ExportSettings) -> tuple[PromptEncoder, list[Example]]:
    task, load = open_task(settings)
    if "causal" not in task.prompts:
        raise UserError(f"task: {task.name!r} has no prompt for a causal model")
    examples = load(settings.split)
    encoder = open_prompt(settings, task, examples[0])
    encoder.check(examples)
    return encoder, examples


def _row(encoder: PromptEncoder, example: Example, keys: Mapping[str, str]) -> tuple[Mapping[str, str], dict[str, Any]]:
    """An example's fields, cut to fit, and what else its line holds."""
    prompt = encoder.prompt
    if encoder.task.new_tokens:
        return encoder.shortened(example).fields, {"gold": list(example.gold)}
    if prompt.words is not None:
        return encoder.shortened(example).fields, {"label": example.label}
    assert example.choices is not None, "the encoder has checked it"
    ahead = fill(before(prompt.template, "mask"), example.fields)
    texts = [fill(prompt.answer, {**example.fields, "choice": choice}) for choice in example.choices]
    tokens = [len(encoder.words.tokens(text, ahead)) for text in texts]
    classes = list(example.choice_class or range(len(texts)))
    right = [i for i, choice in enumerate(example.choices) if choice in example.gold] or [example.label]
    more = {
        "choices": [gap(ahead) + text for text in texts],
        "classes": classes,
        "right": right,
        "tokens": tokens,
        "label": next(index for index, c in enumerate(classes) if c in right),
    }
    return encoder.shortened(example, max(tokens)).fields, more


def _keys(fields: Sequence[str]) -> dict[str, str]:
    """Field -> a name that Jinja can say and that is none of ours."""
    good = {
        field for field in fields
        if field.isidentifier() and field.isascii() and not keyword.iskeyword(field) and field not in _OURS | _JINJA
    }  # fmt: skip
    return {field: field if field in good else f"field_{index}" for index, field in enumerate(dict.fromkeys(fields))}


def _mean(metric: str) -> dict[str, Any]:
    return {"metric": metric, "aggregation": "mean", "higher_is_better": True}


def _command(model: str, adapter: str, folder: Path, tasks: Mapping[str, int]) -> str:
    arguments = f"pretrained={model}" + (f",peft={adapter}" if adapter else "")
    return f"lm_eval --model hf --model_args {arguments} --tasks {','.join(tasks)} --include_path {folder}"
