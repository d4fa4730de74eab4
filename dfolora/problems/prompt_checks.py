"""Whether a prompt can serve a kind of model, and how many tokens it leaves for a text."""

from __future__ import annotations

from dataclasses import replace

from dfolora.errors import UserError
from dfolora.models.load import LanguageModel
from dfolora.models.soft_tokens import SoftTokens
from dfolora.task import Kind, Prompt
from dfolora.template import names, shown, without


def positions_left(language_model: LanguageModel, soft: SoftTokens | None) -> int:
    """How many tokens a text may have beside the soft ones.

    Raises:
        UserError: none at all.
    """
    limit = language_model.max_length
    if soft is not None and soft.count >= limit:
        raise UserError(
            f"prompt_tokens: {soft.count} leave no room for a text: {language_model.name!r} has {limit} positions; "
            "take far fewer"
        )
    return limit - (0 if soft is None else soft.count)


def beside(soft: SoftTokens | None) -> str:
    """Words for an error: what takes positions beside a text; '' where nothing does."""
    return f" beside {soft.count} soft ones" if soft is not None and soft.count else ""


def checked_prompt(prompt: Prompt, kind: Kind) -> Prompt:
    """A prompt whose template can serve a kind of model; a sentence encoder's has no ``{mask}``."""
    template = prompt.template
    fields = names(template)
    masks = fields.count("mask")
    names(prompt.answer)
    if kind == "encoder":
        return replace(prompt, template=without(template, "mask"))
    if masks != 1:
        raise UserError(
            f"template: {shown(template)} has {masks} {{mask}} and needs exactly one, where the answer stands"
        )
    if kind == "causal" and fields[-1] != "mask":
        raise UserError(
            f"template: {shown(template)} has a field after {{mask}}; a causal model answers before it reads that, "
            "so put {mask} last"
        )
    return prompt
