"""The model card of a saved adapter: what made it, what it scores, how to use it without this library."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import yaml

from dfolora.settings.methods import SearchSettings, TangentSettings, TuneSettings
from dfolora.settings.options import as_text
from dfolora.task import AUTO_CLASSES

if TYPE_CHECKING:
    from dfolora.problems.encode import PromptEncoder


def how_it_works(settings: TuneSettings) -> str:
    """What the method does, in a few words: ``cma in pca``."""
    if isinstance(settings, SearchSettings):
        return f"{settings.search} in {as_text(settings.subspace)}"
    if settings.method == "full-parameter":
        return f"{settings.search.removeprefix('full-')} on all weights"
    return f"{settings.method} LoRA, {settings.search}"


def _choice(settings: TuneSettings, scores: dict[str, Any]) -> str:
    """How the adapter was chosen among those of the run, in a sentence or two."""
    dev, at = scores["examples"]["dev"], scores["selected_at"]
    if not isinstance(settings, TangentSettings) or not settings.halves or scores["ended"]:
        return f"Chosen on {dev} dev examples after {at} evaluations."
    if not at:
        return (
            f"It changes nothing: neither a fit to these examples nor one to the {dev} dev examples helped the others."
        )
    return (
        f"It is the mean of two fits, to these and to the {dev} dev examples, each judged by the examples of the "
        "other; on dev the fit to these alone was scored."
    )


def model_card(settings: TuneSettings, scores: dict[str, Any], encoder: PromptEncoder) -> str:
    """Markdown with the metadata block that model hubs read."""
    whole = settings.method == "full-parameter"
    model = scores["model"]
    head = yaml.safe_dump(
        {
            "base_model": model,
            "library_name": "transformers" if whole else "peft",
            "tags": ["dfolora"] if whole else ["dfolora", "lora"],
        },
        sort_keys=True,
    )
    counts = scores["examples"]
    looks = [("dev", scores["dev_zero_shot"], scores["dev_tuned"])]
    if settings.test_split != "none":
        looks.append((settings.test_split, scores["zero_shot"], scores["tuned"]))
    rows = [
        f"| {split} | {counts[split]} | {name} | {before[name]:.2f} | {after[name]:.2f} |"
        for split, before, after in looks
        for name in after
        if name in before
    ]
    prompt, new_tokens = encoder.prompt, encoder.task.new_tokens
    words = ", ".join(prompt.words) if prompt.words else "each example's own choices"
    if new_tokens:
        words = f"generated greedily, up to the end of the line, {new_tokens} tokens at most"
    return "\n".join(
        [
            "---",
            head.rstrip(),
            "---",
            f"# {model}, tuned" if whole else f"# LoRA adapter for {model}",
            "",
            f"Found by dfolora: {how_it_works(settings)}, seed {settings.seed}, {scores['evaluations']} evaluations of "
            f"{counts['train']} examples ({scores['token_layers']} token-layers). {_choice(settings, scores)}",
            "",
            f"Task `{scores['task']}`, asked with this prompt:",
            "",
            # Indented, so that nothing in a text of somebody's is taken for markup.
            *("    " + line for line in prompt.template.splitlines()),
            "",
            *("    " + line for line in f"answers: {words}.".splitlines()),
            "",
            "| split | examples | metric | zero-shot | tuned |",
            "|---|---|---|---|---|",
            *rows,
            "",
            "```python",
            *_use(model, encoder.kind, whole),
            "```",
            "",
        ]
    )


def _use(model: str, kind: str, whole: bool) -> list[str]:
    """The lines that load what was saved, without this library."""
    name = AUTO_CLASSES[kind]
    if whole:
        return [f"from transformers import {name}", "", f"model = {name}.from_pretrained('this folder')"]
    return [
        f"from transformers import {name}",
        "from peft import PeftModel",
        "",
        f"model = PeftModel.from_pretrained({name}.from_pretrained({model!r}), 'this folder')",
    ]
