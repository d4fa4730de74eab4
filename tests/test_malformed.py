"""Input that is spoiled or hostile: one line that says where, quickly, without much memory, and no traceback."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from models_zoo import attached, language_model, word_rows
from plain_reading import farthest, plain_scores

from dfolora.errors import UserError
from dfolora.models import adapter as adapters
from dfolora.tasks import drop, get_task, multirc, record, squad, wsc
from dfolora.tasks.common import Source
from dfolora.tasks.files import file_task

DIGITS = 10**300
DEEP = '{"text": ' * 3000


def refused(run: Callable[[], object], match: str | None = None) -> str:
    """The one line of a refusal, which takes no time."""
    start = time.process_time()
    with pytest.raises(UserError, match=match) as caught:
        run()
    message = str(caught.value)
    assert time.process_time() - start < 3
    assert "\n" not in message
    assert len(message) < 1000
    return message


# -- data ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("line", "said"),
    [
        (json.dumps({"text": "a", "label": DIGITS}), "own.jsonl:2: label '1000"),
        ('{"text": "a", "label": ' + "9" * 5000 + "}", "own.jsonl:2: a number has too many digits"),
        ('{"text": "a", "label": "' + "9" * 5000 + '"}', "own.jsonl:2: label '9999"),
        ('{"text": "a", "label": 1e999}', "own.jsonl:2: label 'inf'"),
        ('{"text": "a", "label": [0]}', "own.jsonl:2: label '[0]'"),
        ('{"text": "a \\ud800 b", "label": 0}', "own.jsonl:2: a text holds half of a surrogate pair"),
        (DEEP, "own.jsonl:2: "),
        ("[" * 100_000, "own.jsonl:2: "),
        ("NaN", "own.jsonl:2: a JSON object is expected"),
        ('{"text": 5, "label": 0}', "own.jsonl:2: field 'text' has to be text"),
        ('{"text": null, "label": 0}', "own.jsonl:2: field 'text' has to be text"),
        ('{"label": 0}', "text_columns: no column 'text' in "),
    ],
)
def test_a_line_of_ones_own_file(line: str, said: str, tmp_path: Path) -> None:
    file = tmp_path / "own.jsonl"
    file.write_text('{"text": "fine", "label": 0}\n' + line + "\n", encoding="utf-8")
    task = file_task(file, file, template="{text} {mask}")
    assert said in refused(lambda: task.load("train", Source()))


@pytest.mark.parametrize("path", ["x" * 5000, "~nosuchuser/x.csv", "a\0b.csv"])
def test_what_is_no_path(path: str) -> None:
    refused(lambda: file_task(path, template="{text} {mask}"), "train_file: ")
    refused(lambda: get_task("agnews").load("train", Source(Path(path))), "data: ")


RECORD = {"passage": {"text": "Anna met.", "entities": [{"start": 0, "end": 3}]},
          "qas": [{"query": "@placeholder met", "answers": [{"text": "Anna"}]}]}  # fmt: skip
WSC = {"text": "Ann saw her dog.", "label": True,
       "target": {"span1_text": "Ann", "span2_text": "her", "span2_index": 2}}  # fmt: skip
DROP = {"p": {"passage": "He ran.", "qa_pairs": [
    {"question": "Who?", "answer": {"number": "1"}, "validated_answers": [{"spans": ["he"]}]}]}}  # fmt: skip
SQUAD = {
    "data": [{"title": "t", "paragraphs": [{"context": "c", "qas": [{"question": "q", "answers": [{"text": "a"}]}]}]}]
}
ODD: list[Any] = [None, True, 5, DIGITS, 1.5, "x", [], {}, {"a": 1}, [None], [{"text": 5}], [1.5]]


def variants(value: Any, odd: Any) -> list[Any]:
    """The value with every one of its parts replaced, or left out."""
    found: list[Any] = [odd]
    if isinstance(value, dict):
        found += [{**value, key: other} for key, part in value.items() for other in variants(part, odd)]
        found += [{k: v for k, v in value.items() if k != key} for key in value]
    if isinstance(value, list):
        found += [[*value[:i], other, *value[i + 1 :]] for i, part in enumerate(value) for other in variants(part, odd)]
    return found


@pytest.mark.parametrize("name", ["superglue/record", "mezo/record", "superglue/wsc", "mezo/wsc", "drop", "squad"])
def test_records_of_the_wrong_types(name: str, tmp_path: Path) -> None:
    """Each part of a record in turn is something else: it is read, or refused with its place."""
    module, whole = {"record": (record, RECORD), "wsc": (wsc, WSC), "drop": (drop, DROP), "squad": (squad, SQUAD)}[
        name.split("/")[-1]
    ]
    home = tmp_path / module.DATA.folders[0]
    home.mkdir()
    file = home / {"drop": "drop_dataset_dev.json", "squad": "dev-v1.1.json"}.get(name, "val.jsonl")
    task = get_task(name)
    read = 0
    file.write_text(json.dumps(whole), encoding="utf-8")
    assert len(task.load("test", Source(tmp_path))) == 1
    changed = [variant for odd in ODD for variant in variants(whole, odd)]
    for variant in changed:
        file.write_text(json.dumps(variant), encoding="utf-8")
        try:
            found = task.load("test", Source(tmp_path))
        except UserError as error:
            said = str(error)
        else:
            read, said = read + 1, file.name
            for example in found:
                assert all(isinstance(text, str) for text in (*example.fields.values(), *example.gold))
        assert "\n" not in said
        assert name in said or file.name in said
    assert 0 < read < len(changed)


@pytest.mark.parametrize("name", ["squad", "drop"])
@pytest.mark.parametrize("content", ["[" * 100_000, '{"data": ' + "[" * 100_000, '{"data": ' + "9" * 5000 + "}", ""])
def test_published_files_that_are_spoiled(name: str, content: str, tmp_path: Path) -> None:
    file = tmp_path / {"squad": "SQuAD/dev-v1.1.json", "drop": "DROP/drop_dataset_dev.json"}[name]
    file.parent.mkdir()
    file.write_text(content, encoding="utf-8")
    assert str(file) in refused(lambda: get_task(name).load("test", Source(tmp_path)))


def test_a_label_of_many_digits_in_a_published_file() -> None:
    questions = [{"question": "q", "idx": 0, "answers": [{"text": "a", "label": "9" * 5000}]}]
    refused(lambda: multirc.examples({"idx": 0, "passage": {"text": "p", "questions": questions}}), "label '9999")


# -- adapter folders -------------------------------------------------------------------------------------------------


def folder(tmp_path: Path, **changes: Any) -> Path:
    """A good adapter with other entries in its configuration."""
    home = tmp_path / "adapter"
    attached("bert").save(home, {"README.md": ""})
    file = home / "adapter_config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **changes}))
    return home


def retensored(tmp_path: Path, change: Callable[[str, torch.Tensor], torch.Tensor | None]) -> Path:
    home = folder(tmp_path)
    file = home / "adapter_model.safetensors"
    tensors = {key: change(key, value) for key, value in safetensors.torch.load_file(file).items()}
    file.unlink()
    safetensors.torch.save_file({key: value for key, value in tensors.items() if value is not None}, file)
    return home


@pytest.mark.parametrize(
    "changes",
    [
        {"r": 1_000_000}, {"r": 0}, {"r": -1}, {"r": "4"}, {"r": 8}, {"r": None},
        {"lora_alpha": float("nan")}, {"lora_alpha": float("inf")}, {"lora_alpha": "x"}, {"lora_alpha": None},
        {"lora_alpha": DIGITS * 10**200}, {"lora_alpha": True}, {"rank_pattern": 5},
        {"alpha_pattern": {"(.+)+!": 2}}, {"alpha_pattern": {"query": float("nan")}}, {"alpha_pattern": [1]},
        {"init_lora_weights": "pissa_niter_1000000"}, {"init_lora_weights": "olora"}, {"init_lora_weights": [1]},
        {"layer_replication": [[0, 10**7]]}, {"use_dora": True}, {"modules_to_save": ["x"]}, {"peft_type": "IA3"},
        {"peft_type": ["LORA"]}, {"peft_type": None}, {"arrow_config": {"a": 1}}, {"target_modules": ["key", "value"]},
    ],
    ids=str,
)  # fmt: skip
def test_adapter_configurations_that_are_refused(changes: dict[str, Any], tmp_path: Path) -> None:
    home = folder(tmp_path, **changes)
    model = language_model("bert")
    message = refused(lambda: adapters.load(model, str(home)), "^adapter: ")
    assert str(home) in message
    assert not any("lora" in name for name, _ in model.model.named_modules())  # PEFT was not asked


@pytest.mark.parametrize(
    "changes",
    [
        {"target_modules": "([a-z0-9_.]+)+[!]"}, {"target_modules": "("}, {"target_modules": None},
        {"exclude_modules": "("}, {"exclude_modules": "(.*)*x"}, {"rank_pattern": {"(.+)+!": 2}},
        {"layers_to_transform": [0], "layers_pattern": "(a+)+$"}, {"megatron_config": {"a": 1}},
        {"alpha_pattern": {"zzz": 2}}, {"unknown_key": 1}, {"task_type": "SEQ_CLS"}, {"lora_dropout": 0.5},
        {"auto_mapping": {"base_model_class": "x", "parent_library": "os"}}, {"peft_version": 5},
    ],
    ids=str,
)  # fmt: skip
def test_what_peft_would_choke_on_is_not_needed(changes: dict[str, Any], tmp_path: Path) -> None:
    """Modules and ranks follow from the tensors; a regular expression that never ends is not run."""
    start = time.process_time()
    loaded = adapters.load(language_model("bert"), str(folder(tmp_path, **changes)))
    assert time.process_time() - start < 3
    rows = word_rows("masked")
    assert farthest(plain_scores(loaded, rows), plain_scores(attached("bert"), rows)) < 1e-6


CHANGES: dict[str, Callable[[str, torch.Tensor], torch.Tensor | None]] = {
    "nan": lambda key, value: value * float("nan"),
    "inf": lambda key, value: value.clone().fill_(float("inf")),
    "one missing": lambda key, value: None if "layer.0.attention.self.query.lora_A" in key else value,
    "all missing": lambda key, value: None,
    "flat": lambda key, value: value.flatten(),
    "transposed": lambda key, value: value.T.contiguous(),
    "empty": lambda key, value: value[:0],
    "no dimensions": lambda key, value: value.sum(),
    "wider": lambda key, value: torch.cat([value, value], 1),
}


@pytest.mark.parametrize("change", CHANGES)
def test_adapter_tensors_that_are_refused(change: str, tmp_path: Path) -> None:
    home = retensored(tmp_path, CHANGES[change])
    refused(lambda: adapters.load(language_model("bert"), str(home)), "^adapter: ")


@pytest.mark.parametrize("content", [b"", b"{", b"null", b"\xff", b"[" * 100_000, b'{"r": ' + b"9" * 5000 + b"}"])
def test_adapter_configurations_that_are_no_json(content: bytes, tmp_path: Path) -> None:
    home = folder(tmp_path)
    (home / "adapter_config.json").write_bytes(content)
    refused(lambda: adapters.load(language_model("bert"), str(home)), "^adapter: .* holds no adapter_config.json that")


@pytest.mark.parametrize("name", ["adapter_config.json", "adapter_model.safetensors"])
def test_links_out_of_an_adapter_folder(name: str, tmp_path: Path) -> None:
    home = folder(tmp_path)
    outside = tmp_path / "outside"
    (home / name).rename(outside)
    (home / name).symlink_to(outside)
    refused(lambda: adapters.load(language_model("bert"), str(home)), f"holds a link out of the folder, {name}")
    (home / name).unlink()
    outside.rename(home / "within")
    (home / name).symlink_to(home / "within")
    assert adapters.load(language_model("bert"), str(home)).layers


def test_links_within_the_hubs_cache(tmp_path: Path) -> None:
    """There a folder of links into ``blobs`` is the rule."""
    home = folder(tmp_path)
    (tmp_path / "blobs").mkdir()
    (tmp_path / "snapshots").mkdir()
    home = home.rename(tmp_path / "snapshots" / "revision")
    for name in ("adapter_config.json", "adapter_model.safetensors"):
        (home / name).rename(tmp_path / "blobs" / name)
        (home / name).symlink_to(f"../../blobs/{name}")
    assert adapters.load(language_model("bert"), str(home)).layers


def test_a_link_in_the_place_of_an_adapter_is_replaced(tmp_path: Path) -> None:
    (tmp_path / "precious").mkdir()
    (tmp_path / "precious" / "file").write_text("mine")
    (tmp_path / "adapter").symlink_to(tmp_path / "precious")
    attached("bert").save(tmp_path / "adapter", {"README.md": "card"})
    assert not (tmp_path / "adapter").is_symlink()
    assert (tmp_path / "adapter" / "README.md").read_text() == "card"
    assert [path.name for path in (tmp_path / "precious").iterdir()] == ["file"]
