"""Small tokenizers of the three common makes, trained in memory on a few sentences."""

from __future__ import annotations

import functools
from typing import Any

from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast

COMMON = """
the a film was is it great good bad terrible awful fine yes no maybe true false story acting very really not and or
question answer because so place food staff room nice dull of in on with long short today past
"""
WORDS = COMMON.split()
TEXTS = [" ".join(WORDS[i:] + WORDS[:i]) + " . , ? ! :" for i in range(len(WORDS))] * 4
TEXTS += [f"{word.capitalize()} {word}." for word in WORDS] * 4


def _wrap(tokenizer: Tokenizer, limit: int, **special: Any) -> Any:
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, model_max_length=limit, **special)


def roberta_like(limit: int = 60) -> Any:
    """Byte-level BPE with <s> ... </s>; the mask swallows the space before it."""
    return _byte_level(limit, masked=True)


def gpt2_like(limit: int = 60) -> Any:
    """Byte-level BPE without special tokens around a text and without a pad token."""
    return _byte_level(limit, masked=False)


def _byte_level(limit: int, masked: bool) -> Any:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    special = ["<s>", "<pad>", "</s>", "<unk>"] if masked else ["<|endoftext|>"]
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=700, special_tokens=special, initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator(TEXTS, trainer)
    if not masked:
        return _wrap(tokenizer, limit, eos_token="<|endoftext|>", bos_token="<|endoftext|>", unk_token="<|endoftext|>")
    tokenizer.post_processor = processors.RobertaProcessing(("</s>", 2), ("<s>", 0), add_prefix_space=False)
    return _wrap(
        tokenizer, limit, bos_token="<s>", eos_token="</s>", unk_token="<unk>", pad_token="<pad>", cls_token="<s>",
        sep_token="</s>", mask_token=AddedToken("<mask>", lstrip=True, special=True),
    )  # fmt: skip


def bert_like(limit: int = 60) -> Any:
    """WordPiece, lower case, [CLS] ... [SEP]."""
    tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    tokenizer.train_from_iterator(
        TEXTS, trainers.WordPieceTrainer(vocab_size=400, special_tokens=special, show_progress=False)
    )
    tokenizer.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    return _wrap(
        tokenizer, limit, unk_token="[UNK]", pad_token="[PAD]", cls_token="[CLS]", sep_token="[SEP]",
        mask_token="[MASK]",
    )  # fmt: skip


def t5_like(limit: int = 60, sentinels: bool = True) -> Any:
    """Unigram over ▁ pieces as SentencePiece gives them, </s> at the end, sentinels unless told otherwise."""
    tokenizer = Tokenizer(models.Unigram())
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.decoder = decoders.Metaspace()
    special = ["<pad>", "</s>", "<unk>"]
    trainer = trainers.UnigramTrainer(vocab_size=150, special_tokens=special, unk_token="<unk>", show_progress=False)
    tokenizer.train_from_iterator(TEXTS, trainer)
    tokenizer.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])
    extra = {"additional_special_tokens": ["<extra_id_0>", "<extra_id_1>"]} if sentinels else {}
    return _wrap(tokenizer, limit, unk_token="<unk>", pad_token="<pad>", eos_token="</s>", **extra)


def words_only(limit: int = 60) -> Any:
    """Whole words or <unk>: a tokenizer for which some words are simply unknown."""
    vocabulary = {word: i for i, word in enumerate(["<pad>", "<unk>", "<mask>", *WORDS])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    return _wrap(tokenizer, limit, unk_token="<unk>", pad_token="<pad>", mask_token="<mask>")


@functools.cache
def toy(make: Any) -> Any:
    """One of the above, made once; do not change it."""
    return make()
