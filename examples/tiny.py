"""A causal language model of a few thousand random weights, so that examples about generated text need no download."""

import torch
import transformers
from tokenizers import Tokenizer, models, pre_tokenizers

import dfolora

WORDS = "<unk> </s> the sun moon sea is was bright dark warm cold today here and".split()


def tiny_model():
    """The model with its tokenizer, one token a word; as for any model that your program holds already."""
    words = Tokenizer(models.WordLevel({word: i for i, word in enumerate(WORDS)}, unk_token="<unk>"))
    words.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer = transformers.PreTrainedTokenizerFast(tokenizer_object=words, unk_token="<unk>", eos_token="</s>")
    torch.manual_seed(0)
    shape = {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 64, "initializer_range": 0.3}
    config = transformers.GPT2Config(vocab_size=len(WORDS), eos_token_id=1, bos_token_id=1, **shape)
    return dfolora.load_model(transformers.GPT2LMHeadModel(config), tokenizer)
