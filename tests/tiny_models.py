"""Models of a few thousand random weights in folders, a small csv data set, and the command run inside the process.

They know every label word of every registered task and a few hundred other words; all else is unknown to them.
"""

from __future__ import annotations

import atexit
import json
import re
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from tokenizers import Tokenizer, models, pre_tokenizers, processors

from dfolora import cli
from dfolora.log import Line
from dfolora.runs.listener import Listener
from dfolora.tasks import get_task, task_names

SPECIAL = ("<s>", "<pad>", "</s>", "<unk>", "<mask>")
TEXT = """
a about after all also an and answer as at bad bank because before big bird black blue boat book boring box boy bright
broke brown but by called came can car cat child city clear clever closed cold could dark day did dish does dog dull
effect eat ended every fact fast fell felt film final fine fire first fish food for found friend from full fun funny
game gave girl glad go good grass great green grew hall had hand happy has he heard heavy her here hill him his home
horse hot house how if in is it just kind king knew lamp land late leaf left less light like little long lost loud love
lunch made man many mary me meal meat milk moon more morning most mother music my near never new next nice night no not
now of old on one only open or other our out over own paid paper park part people place plan play plot poor post quick
quiet rain ran read red rest rich right river road room round sad said sail same sat saw sea seat she ship shop short
sing slow small snow so soft some song soon sound star still stone story strong sun sweet table taste tea terrible than
that the their them then there they thin think this tom too town train tree true trip two under up very wall war warm
was water way we week well went were wet what when where which white who why wide wild will wind with woman word work
worst would wrong year yellow you young your Question Answer Does Tom Mary Anna Paris Rome mean both sentences previous
sentence pronoun refers correct . , ? ! : ' " * -
"""
TEMPLATE = "{text} It was {mask}."
SHOTS = 6  # training examples
GOOD = "a funny story|very warm music|the fine old film|bright clever play|a sweet little song|kind and happy people"
BAD = "a dull story|very cold music|the poor old film|boring dark play|a sad little song|slow and wet people"


def _words() -> list[str]:
    words = set(TEXT.split())
    # Another word is another random model. MeZO's label words are known from the other tasks, and generation tasks
    # have models of their own.
    for task in (get_task(name) for name in task_names() if not name.startswith("mezo/")):
        for prompt in () if task.new_tokens else task.prompts.values():
            words.update(re.findall(r"\w+|[^\w\s]+", " ".join(prompt.words or ()) + " " + prompt.template))
    return sorted(words)


def tokenizer(kind: str) -> transformers.PreTrainedTokenizerFast:
    """One token a word; sentences of masked models and encoders stand between <s> and </s>."""
    vocabulary = {word: index for index, word in enumerate([*SPECIAL, *_words()])}
    backend = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    backend.pre_tokenizer = pre_tokenizers.Whitespace()
    ends = [(token, vocabulary[token]) for token in ("<s>", "</s>")]
    template = "<s> $A" if kind == "causal" else "<s> $A </s>"
    backend.post_processor = processors.TemplateProcessing(single=template, special_tokens=ends)
    names = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}
    if kind != "causal":  # a causal model without a pad token is the usual case
        names |= {"pad_token": "<pad>", "mask_token": "<mask>"}
    return transformers.PreTrainedTokenizerFast(tokenizer_object=backend, model_max_length=10**6, **names)


@cache
def model(kind: str, seed: int = 0, hidden: int = 32) -> str:
    """Folder of a tiny random ``masked`` (RoBERTa), ``causal`` (Llama), ``seq2seq`` (BART) or ``encoder`` (BERT)."""
    words = tokenizer(kind)
    shape: dict[str, Any] = {
        "vocab_size": len(words), "hidden_size": hidden, "intermediate_size": 2 * hidden, "num_hidden_layers": 2,
        "num_attention_heads": 4, "max_position_embeddings": 264, "initializer_range": 0.3, "pad_token_id": 1,
    }  # fmt: skip
    torch.manual_seed(seed)
    built: Any
    if kind == "masked":
        built = transformers.RobertaForMaskedLM(transformers.RobertaConfig(**shape, type_vocab_size=1))
    elif kind == "causal":
        shape |= {"num_key_value_heads": 2, "pad_token_id": None, "bos_token_id": 0, "eos_token_id": 2}
        built = transformers.LlamaForCausalLM(transformers.LlamaConfig(**shape))
    elif kind == "seq2seq":
        halves = {
            f"{half}_{name}": size
            for half in ("encoder", "decoder")
            for name, size in (("layers", 2), ("attention_heads", 4), ("ffn_dim", 2 * hidden))
        }
        own = {"d_model": hidden, "init_std": 0.3, "max_position_embeddings": 264, "vocab_size": len(words)}
        ends = {"pad_token_id": 1, "bos_token_id": 0, "eos_token_id": 2, "decoder_start_token_id": 2}
        built = transformers.BartForConditionalGeneration(transformers.BartConfig(**own, **halves, **ends))
    else:
        built = transformers.BertModel(transformers.BertConfig(**shape), add_pooling_layer=False)
    folder = _scratch() / f"{kind}-{seed}-{hidden}"
    transformers.utils.logging.disable_progress_bar()
    built.save_pretrained(folder)
    words.save_pretrained(folder)
    return str(folder)


@cache
def _scratch() -> Path:
    folder = Path(tempfile.mkdtemp(prefix="tiny-models-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder


def rows() -> Iterator[tuple[str, str]]:
    """(text, label), both classes in turn."""
    for good, bad in zip(GOOD.split("|"), BAD.split("|"), strict=True):
        yield good, "1"
        yield bad, "0"


def csv_files(folder: Path) -> list[str]:
    """Write train, dev and test files; the flags that name them, with template and label words."""
    flags = ["--template", TEMPLATE, "--label-words", "0=bad,1=great"]
    table = list(rows())
    for name, part in (("train", table[:SHOTS]), ("dev", table[4:10]), ("test", table)):
        file = folder / f"{name}.csv"
        file.write_text("text,label\n" + "".join(f'"{text}",{label}\n' for text, label in part), encoding="utf-8")
        flags += [f"--{name}-file", str(file)]
    return flags


SMALL = ["--budget", "24", "--population", "4", "--subspace-dim", "20", "--rank", "2", "--sigma", "0.5"]
FIRST_ORDER = ["--method", "first-order", "--budget", "30", "--rank", "2", "--lr", "0.01", "--dev-every", "4"]


class Command:
    """Runs ``dfolora`` in this process and keeps what it printed.

    Attributes:
        out, err: what the last call wrote to standard output and standard error.
    """

    def __init__(self, capsys: pytest.CaptureFixture[str]) -> None:
        self.capsys = capsys
        self.out = self.err = ""

    def __call__(self, *arguments: object) -> int:
        self.capsys.readouterr()
        code = cli.main([str(argument) for argument in arguments])
        self.out, self.err = self.capsys.readouterr()
        return code

    @property
    def said(self) -> list[str]:
        """The lines of standard error but for those that tell how a run gets on."""
        getting_on = ("forecast: ", "loading ", "measuring ", "scoring ", "resuming ", "tuning ", "sweep ")
        return [line for line in self.err.splitlines() if not line.startswith(getting_on)]

    def json(self, *arguments: object) -> dict[str, Any]:
        """The object that a successful call with ``--json`` prints, and nothing else."""
        assert self(*arguments, "--json") == 0, self.err
        assert self.out.count("\n") == 1
        found: dict[str, Any] = json.loads(self.out)
        return found


def given(flags: Sequence[object]) -> dict[str, Any]:
    """Flags, each with a value, as keyword arguments of ``dfolora.tune``."""
    pairs = [str(flag) for flag in flags]
    return {name[2:].replace("-", "_"): value for name, value in zip(pairs[::2], pairs[1::2], strict=True)}


class StopAt(Listener):
    """Interrupts a run once a generation is in its log, as Ctrl-C would."""

    def __init__(self, generation: int) -> None:
        self.generation = generation

    def progress(self, line: Line, best: Line) -> None:
        if line.generation == self.generation:
            raise KeyboardInterrupt


class Tune:
    """Tunes a tiny model on the small files, over and over; ``base`` and ``changes`` are flags."""

    def __init__(self, command: Command, folder: Path, base: Sequence[object] = SMALL) -> None:
        self.command, self.folder, self.base, self.files = command, folder, base, csv_files(folder)
        self.count = 0

    def flags(self, *changes: object, kind: str = "masked") -> list[object]:
        return ["--model", model(kind), *self.files, *self.base, *changes]

    def __call__(self, *changes: object, kind: str = "masked") -> tuple[dict[str, Any], list[dict[str, Any]]]:
        """The scores and the log."""
        self.count += 1
        output = self.folder / f"run{self.count}"
        scores = self.command.json("tune", *self.flags(*changes, kind=kind), "--output", output)
        return scores, log(output)


def log(run: object) -> list[dict[str, Any]]:
    """The lines of a run's log without what a clock decides."""
    lines = [json.loads(line) for line in (Path(str(run)) / "log.jsonl").read_text(encoding="utf-8").splitlines()]
    return [{name: value for name, value in line.items() if name not in ("seconds", "chain")} for line in lines]
