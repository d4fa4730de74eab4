"""The model card of a saved adapter: what made it, what it scores, how to use it without this library."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import yaml

from dfolora.settings.methods import TangentSettings
from dfolora.settings.options import as_text
from dfolora.settings.search import SearchSettings
from dfolora.settings.tune import TuneSettings
from dfolora.task import AUTO_CLASSES

if TYPE_CHECKING:
    from dfolora.problems.encode import PromptEncoder


WHAT = {
    "lora": "LoRA adapter",
    "prompt": "soft prompt",
    "deep-prompt": "deep prompt",
    "ipl": "soft prompt gated by the text",
    "ipl-lora": "LoRA gated by the text",
}
"""What was tuned -> what its folder holds."""


def how_it_works(settings: TuneSettings) -> str:
    """What the method does, in a few words: ``cma in pca``."""
    if isinstance(settings, SearchSettings) and settings.tune != "lora":
        return f"{settings.search} in {as_text(settings.subspace)}, {WHAT[settings.tune]}"
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
    tune = settings.tune if isinstance(settings, SearchSettings) else "lora"
    head = yaml.safe_dump(
        {
            "base_model": model,
            "library_name": "transformers" if whole else "peft",
            "tags": ["dfolora"] if whole else ["dfolora", tune],
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
        words = f"generated {_decoding(encoder)}, {new_tokens} tokens at most"
    return "\n".join(
        [
            "---",
            head.rstrip(),
            "---",
            f"# {model}, tuned" if whole else f"# {WHAT[tune][0].upper()}{WHAT[tune][1:]} for {model}",
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
            *_use(model, encoder.kind, whole, tune),
            "```",
            "",
        ]
    )


def _decoding(encoder: PromptEncoder) -> str:
    """How answers are generated and where they end, in a few words."""
    how, prompt = encoder.task.decoding, encoder.prompt
    drawn = f"at temperature {how.temperature:g}, top-p {how.top_p:g}" if how.temperature else "greedily"
    ends = {("\n",): "up to the end of the line", (): "up to the end token"}
    end = ends.get(how.stop, f"up to {' or '.join(map(repr, how.stop))}")
    system = f" behind the system message {prompt.system!r}" if prompt.system else ""
    return f"{drawn}, {end}" + (f", in the model's chat template{system}" if prompt.chat else "")


def _use(model: str, kind: str, whole: bool, tune: str) -> list[str]:
    """The lines that load what was saved, without this library but where nothing else can."""
    name = AUTO_CLASSES[kind]
    if tune == "ipl-lora":
        return ["import dfolora", "", "dfolora.evaluate(adapter='this folder')"]
    if tune == "ipl":
        return [
            f"from transformers import {name}",
            "from dfolora.models.gated_model import load_gated",
            "",
            f"model = load_gated({name}.from_pretrained({model!r}), 'this folder')",
        ]
    if whole:
        return [f"from transformers import {name}", "", f"model = {name}.from_pretrained('this folder')"]
    return [
        f"from transformers import {name}",
        "from peft import PeftModel",
        "",
        f"model = PeftModel.from_pretrained({name}.from_pretrained({model!r}), 'this folder')",
    ]
