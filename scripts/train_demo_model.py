"""Train the embedded demo model from a seed: a tiny masked language model of the synthetic language in ``tasks``.

    python -m scripts.train_demo_model --seed 0 --output tasks/demo_model

The corpus is drawn as it is needed and never stored. The word that sums a text up (the verdict, the yes or no) is
masked more often than the others: it is what the demo tasks ask for, and a model this small has no time for the rest.
"""

from __future__ import annotations

import argparse
import math
import time
from collections.abc import Callable
from pathlib import Path
from random import Random

import torch
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
from torch import Tensor
from torch.nn import functional as F
from transformers import PreTrainedTokenizerFast, RobertaConfig, RobertaForMaskedLM

from dfolora.tasks import demo_language as language

LENGTH = 40  # the longest text and its two special tokens fit, with room for a template
IGNORED = -100
SPECIAL = {"pad_token": "<pad>", "unk_token": "<unk>", "cls_token": "<s>", "sep_token": "</s>", "mask_token": "<mask>"}


def make_tokenizer() -> PreTrainedTokenizerFast:
    """One token per word of the language, whatever its case; anything else is unknown."""
    words = [*SPECIAL.values(), *language.vocabulary()]
    core = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, unk_token="<unk>"))
    core.normalizer = normalizers.Lowercase()
    core.pre_tokenizer = pre_tokenizers.Whitespace()
    core.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>",
        pair="<s> $A </s> $B </s>",
        special_tokens=[(word, words.index(word)) for word in ("<s>", "</s>")],
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=core,
        bos_token="<s>",
        eos_token="</s>",
        model_max_length=LENGTH,
        model_input_names=["input_ids", "attention_mask"],
        clean_up_tokenization_spaces=False,
        **SPECIAL,
    )


def make_model(tokenizer: PreTrainedTokenizerFast, layers: int = 4, width: int = 96) -> RobertaForMaskedLM:
    """An untrained model: small enough to ship, deep enough that layers in alternation mean something."""
    pad = tokenizer.convert_tokens_to_ids("<pad>")
    assert isinstance(pad, int)
    return RobertaForMaskedLM(
        RobertaConfig(
            vocab_size=len(tokenizer),
            hidden_size=width,
            num_hidden_layers=layers,
            num_attention_heads=4,
            intermediate_size=4 * width,
            max_position_embeddings=LENGTH + pad + 1,  # RoBERTa counts positions from the padding token's number on
            type_vocab_size=1,
            initializer_range=width**-0.5,  # the customary 0.02 is made for a width of 768: at this one it never starts
            hidden_dropout_prob=0.0,  # the corpus never repeats, so there is nothing to regularise
            attention_probs_dropout_prob=0.0,
            pad_token_id=pad,
            bos_token_id=tokenizer.convert_tokens_to_ids("<s>"),
            eos_token_id=tokenizer.convert_tokens_to_ids("</s>"),
        )
    )


def draw_batch(
    tokenizer: PreTrainedTokenizerFast,
    rng: Random,
    size: int,
    others: float = 1 / 40,
) -> tuple[dict[str, Tensor], Tensor]:
    """Texts with words masked, and the words behind the masks (``IGNORED`` elsewhere).

    Every text has its summing-up word masked, and one other word in forty.
    """
    drawn = [language.corpus_text(rng) for _ in range(size)]
    batch = dict(tokenizer([text for text, _ in drawn], padding=True, return_tensors="pt"))
    ids = batch["input_ids"]
    chance = torch.tensor([[rng.random() for _ in range(ids.shape[1])] for _ in range(size)])
    masked = (chance < others) & (ids >= len(SPECIAL))
    for row, (_, word) in enumerate(drawn):
        masked[row, (ids[row] == tokenizer.convert_tokens_to_ids(word)).nonzero()[-1]] = True
    labels = ids.masked_fill(~masked, IGNORED)
    mask = tokenizer.convert_tokens_to_ids("<mask>")
    assert isinstance(mask, int)
    batch["input_ids"] = ids.masked_fill(masked, mask)
    return batch, labels


def masked_loss(model: RobertaForMaskedLM, batch: dict[str, Tensor], labels: Tensor) -> Tensor:
    """Mean cross-entropy of the masked words; only their positions go through the head."""
    hidden = model.roberta(**batch).last_hidden_state
    chosen = labels != IGNORED
    return F.cross_entropy(model.lm_head(hidden[chosen]), labels[chosen])


def train(
    seed: int,
    steps: int,
    size: int = 64,
    rate: float = 1e-3,
    report: Callable[[int, float], None] = lambda step, loss: None,
) -> tuple[RobertaForMaskedLM, PreTrainedTokenizerFast, list[float]]:
    """The trained model, its tokenizer and the loss of every step: AdamW, linear warm-up, cosine decay."""
    torch.manual_seed(seed)
    rng = Random(f"corpus {seed}")
    tokenizer = make_tokenizer()
    model = make_model(tokenizer).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=rate, betas=(0.9, 0.98), weight_decay=0.01)
    warmup = max(1, steps // 20)
    losses: list[float] = []
    for step in range(steps):
        scale = min((step + 1) / warmup, 0.5 + 0.5 * math.cos(math.pi * step / steps))
        for group in optimizer.param_groups:
            group["lr"] = rate * scale
        loss = masked_loss(model, *draw_batch(tokenizer, rng, size))
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        losses.append(loss.item())
        report(step, losses[-1])
    return model.eval(), tokenizer, losses


def main() -> None:
    parser = argparse.ArgumentParser(description="Train the embedded demo model from a seed.")
    parser.add_argument("--seed", type=int, default=0, help="of the weights and of the corpus")
    parser.add_argument("--output", type=Path, required=True, help="folder to write the model and its tokenizer to")
    parser.add_argument("--steps", type=int, default=3000, help="updates of 64 texts")
    parser.add_argument("--threads", type=int, default=1, help="of torch; the shipped model was trained on one")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    start = time.monotonic()
    smooth = 0.0

    def report(step: int, loss: float) -> None:
        nonlocal smooth
        smooth = loss if step == 0 else 0.98 * smooth + 0.02 * loss
        if (step + 1) % 100 == 0:
            elapsed = time.monotonic() - start
            print(f"step {step + 1}/{arguments.steps}  loss {smooth:.3f}  {elapsed:.0f} s", flush=True)

    model, tokenizer, _ = train(arguments.seed, arguments.steps, report=report)
    model.save_pretrained(arguments.output)
    tokenizer.save_pretrained(arguments.output)
    size = sum(path.stat().st_size for path in arguments.output.iterdir())
    print(f"{arguments.output}: {size / 2**20:.2f} MiB")


if __name__ == "__main__":
    main()
