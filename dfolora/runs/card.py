"""The model card of a saved adapter: what made it, what it scores, how to use it without this library."""

from __future__ import annotations

from typing import Any

import yaml

from dfolora.settings.config import TuneConfig
from dfolora.task import Prompt

_CLASSES = {
    "masked": "AutoModelForMaskedLM",
    "causal": "AutoModelForCausalLM",
    "seq2seq": "AutoModelForSeq2SeqLM",
    "encoder": "AutoModel",
}


def model_card(config: TuneConfig, scores: dict[str, Any], kind: str, prompt: Prompt, new_tokens: int = 0) -> str:
    """Markdown with the metadata block that model hubs read."""
    full = config.method == "full-parameter"
    head = yaml.safe_dump(
        {
            "base_model": config.model,
            "library_name": "transformers" if full else "peft",
            "tags": ["dfolora"] if full else ["dfolora", "lora"],
        },
        sort_keys=True,
    )
    counts = scores["examples"]
    looks = [("dev", scores["dev_zero_shot"], scores["dev_tuned"])]
    if config.test_split != "none":
        looks.append((config.test_split, scores["zero_shot"], scores["tuned"]))
    rows = [
        f"| {split} | {counts[split]} | {name} | {before[name]:.2f} | {after[name]:.2f} |"
        for split, before, after in looks
        for name in after
    ]
    how = f"without gradients: `{config.optimizer}` in the `{config.subspace}` subspace, rank {config.rank}"
    if full:
        how = f"without gradients: `{config.optimizer}` on all weights, in place"
    elif config.method != "gradient-free":
        how = f"by back-propagation ({config.method}: `{config.search}` on A and B), rank {config.rank}"
    words = ", ".join(prompt.words) if prompt.words else "each example's own choices"
    template = prompt.template.replace("\n", "\\n")
    if new_tokens:
        words = f"generated greedily, up to the end of the line, {new_tokens} tokens at most"
    return "\n".join(
        [
            "---",
            head.rstrip(),
            "---",
            f"# {config.model}, tuned" if full else f"# LoRA adapter for {config.model}",
            "",
            f"Found by dfolora {how}, seed {config.seed}, {scores['evaluations']} evaluations of "
            f"{counts['train']} examples ({scores['token_layers']} token-layers). Chosen on {counts['dev']} dev "
            f"examples after {scores['selected_at']} evaluations.",
            "",
            f"Task `{scores['task']}`, prompt `{template}`, answers: {words}.",
            "",
            "| split | examples | metric | zero-shot | tuned |",
            "|---|---|---|---|---|",
            *rows,
            "",
            "```python",
            *_use(config.model, kind, full),
            "```",
            "",
        ]
    )


def _use(model: str, kind: str, full: bool) -> list[str]:
    """The lines that load what was saved, without this library."""
    name = _CLASSES[kind]
    if full:
        return [f"from transformers import {name}", "", f"model = {name}.from_pretrained('this folder')"]
    return [
        f"from transformers import {name}",
        "from peft import PeftModel",
        "",
        f"model = PeftModel.from_pretrained({name}.from_pretrained({model!r}), 'this folder')",
    ]
