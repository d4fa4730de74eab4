"""Questions about a passage of two dozen words, and random causal models that know these words and the line's end."""

from __future__ import annotations

import json
import tempfile
from functools import cache
from pathlib import Path
from typing import Any

import torch
import transformers
from tokenizers import Regex, Tokenizer, models, pre_tokenizers

SPECIAL = ("<s>", "</s>", "<unk>", "\n")
WORDS = """
Title: Context: Passage: Question: Answer: the old boat by river was red and slow Tom Mary saw it in town what where who
how did see a green big two three hall read song
"""
PLACES = ("the hall", "the river", "town")
SMALL = ["--budget", "8", "--population", "4", "--subspace-dim", "16", "--rank", "2", "--sigma", "1"]


def tokenizer() -> transformers.PreTrainedTokenizerFast:
    """One token a word, and one for the end of a line."""
    vocabulary = {word: index for index, word in enumerate([*SPECIAL, *dict.fromkeys(WORDS.split())])}
    backend = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    backend.pre_tokenizer = pre_tokenizers.Split(Regex(r"\n|[^\s]+"), "removed", invert=True)
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=backend, bos_token="<s>", eos_token="</s>", unk_token="<unk>", model_max_length=10**6
    )


@cache
def model(architecture: str) -> str:
    """Folder of a tiny random ``llama`` or ``gpt2``."""
    words, built = tokenizer(), None
    torch.manual_seed(3)
    own: dict[str, Any] = {"vocab_size": len(words), "initializer_range": 0.4, "bos_token_id": 0, "eos_token_id": 1}
    if architecture == "gpt2":
        built = transformers.GPT2LMHeadModel(
            transformers.GPT2Config(n_embd=32, n_layer=2, n_head=4, n_positions=128, **own)
        )
    else:
        built = transformers.LlamaForCausalLM(
            transformers.LlamaConfig(
                hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2,
                max_position_embeddings=128, tie_word_embeddings=True, **own,
            )
        )  # fmt: skip
    folder = Path(tempfile.mkdtemp(prefix="tiny-questions-"))
    transformers.utils.logging.disable_progress_bar()
    built.save_pretrained(folder)
    words.save_pretrained(folder)
    return str(folder)


def record(i: int) -> dict[str, Any]:
    """A row as the Hub has it."""
    place, name = PLACES[i % 3], ("Tom", "Mary")[i % 2]
    return {
        "title": "the boat",
        "context": f"{name} saw the old boat in {place} and it was red" + " and slow" * (i % 4),
        "question": f"where did {name} see it",
        "answers": {"text": [place, f"in {place}", place], "answer_start": [0, 0, 0]},
    }


def squad_folder(folder: Path, train: int = 6, dev: int = 3, test: int = 5) -> Path:
    """A folder that ``--data`` finds SQuAD in."""
    home = folder / "SQuAD"
    home.mkdir(parents=True)
    for name, count in (("train", train), ("dev32", dev), ("val", test)):
        lines = "".join(json.dumps(record(i)) + "\n" for i in range(count))
        (home / f"{name}.jsonl").write_text(lines, encoding="utf-8")
    return folder
