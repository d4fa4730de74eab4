"""The model card of a saved adapter: what made it, what it scores, how to use it without this library."""

from __future__ import annotations

from typing import Any

import yaml

from dfolora.config import TuneConfig
from dfolora.task import Prompt

_CLASSES = {
    "masked": "AutoModelForMaskedLM",
    "causal": "AutoModelForCausalLM",
    "seq2seq": "AutoModelForSeq2SeqLM",
    "encoder": "AutoModel",
}


def model_card(config: TuneConfig, scores: dict[str, Any], kind: str, prompt: Prompt) -> str:
    """Markdown with the metadata block that model hubs read."""
    head = yaml.safe_dump(
        {"base_model": config.model, "library_name": "peft", "tags": ["dfolora", "lora"]}, sort_keys=True
    )
    counts = scores["examples"]
    names = list(scores["tuned"] or scores["dev_tuned"])
    rows = [
        f"| {name} | {_cell(scores['dev_zero_shot'], name)} | {_cell(scores['dev_tuned'], name)} "
        f"| {_cell(scores['zero_shot'], name)} | {_cell(scores['tuned'], name)} |"
        for name in names
    ]
    words = ", ".join(prompt.words) if prompt.words else "each example's own choices"
    return "\n".join(
        [
            "---",
            head.rstrip(),
            "---",
            f"# LoRA adapter for {config.model}",
            "",
            f"Found by dfolora without gradients: `{config.optimizer}` in the `{config.subspace}` subspace, rank "
            f"{config.rank}, seed {config.seed}, {scores['evaluations']} evaluations of {counts['train']} "
            f"examples ({scores['token_layers']} token-layers). Chosen on {counts['dev']} dev examples after "
            f"{scores['selected_at']} evaluations.",
            "",
            f"Task `{scores['task']}`, prompt `{prompt.template}`, answers: {words}.",
            "",
            f"| metric | dev, zero-shot | dev, tuned | {config.test_split}, zero-shot | {config.test_split}, tuned |",
            "|---|---|---|---|---|",
            *rows,
            "",
            "```python",
            f"from transformers import {_CLASSES[kind]}",
            "from peft import PeftModel",
            "",
            f"model = PeftModel.from_pretrained({_CLASSES[kind]}.from_pretrained({config.model!r}), 'this folder')",
            "```",
            "",
        ]
    )


def _cell(metrics: dict[str, float], name: str) -> str:
    return f"{metrics[name]:.2f}" if name in metrics else "-"
