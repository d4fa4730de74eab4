"""Build what stands before a text or depends on it: soft tokens, prompts, gates, as the option ``tune`` says."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from dfolora.models import adapter as adapters
from dfolora.models import prompt_folder
from dfolora.models.deep_prompted import DeepPrompted
from dfolora.models.gated_adapter import GatedAdapter
from dfolora.models.instances import Instances
from dfolora.models.load import LanguageModel
from dfolora.models.prompted import Prompted
from dfolora.models.soft_tokens import SoftTokens
from dfolora.problems.encode import PromptEncoder
from dfolora.problems.gated import GatedProblem
from dfolora.problems.parted import PartedProblem
from dfolora.problems.prefixes import PrefixProblem
from dfolora.problems.problem import MakeEngine
from dfolora.problems.prompts import PromptProblem
from dfolora.settings.methods import FirstOrderSettings
from dfolora.settings.model import EvaluateSettings, ModelSettings
from dfolora.settings.search import GATED, SubspaceSettings
from dfolora.subspaces import subspace_class
from dfolora.task import Example


def soft_tokens(settings: ModelSettings, language_model: LanguageModel) -> tuple[SoftTokens | None, Instances | None]:
    """The soft tokens of what is tuned, or of the adapter that is evaluated, and the texts' features for a gate.

    Raises:
        UserError: an adapter that cannot be read.
    """
    tune, count, features = "lora", 0, 0
    if isinstance(settings, SubspaceSettings):
        tune, count, features = settings.tune, settings.soft_tokens, settings.gate_features
    elif isinstance(settings, EvaluateSettings) and settings.adapter:
        tune = prompt_folder.kind_of_folder(settings.adapter)
        count = (
            prompt_folder.count_of_folder(settings.adapter) if tune in ("prompt_tuning", "prefix_tuning", "ipl") else 0
        )
    gated = tune in GATED
    if not count and not gated:
        return None, None
    table = lambda: language_model.model.get_input_embeddings().weight  # noqa: E731  # not there yet
    instances = Instances(features, table) if gated else None
    return SoftTokens(language_model.vocabulary, count, everywhere=tune == "ipl-lora"), instances


def open_soft_problem(
    settings: SubspaceSettings,
    language_model: LanguageModel,
    encoder: PromptEncoder,
    train: Sequence[Example],
    dev: Sequence[Example],
    measured: dict[str, Tensor] | None,
    make_engine: MakeEngine,
) -> tuple[PartedProblem[Any], dict[str, Tensor]]:
    """Build the problem of a search of anything but LoRA; as ``opening_methods.open_problem``."""
    if settings.tune == "ipl-lora":
        assert encoder.soft is not None, "the encoder was made for gates"
        assert encoder.instances is not None, "the encoder was made for gates"
        lora = GatedAdapter(attach(settings, language_model), encoder.soft, encoder.instances, language_model)
        gated = GatedProblem(
            lora, encoder, train, dev, settings.objective, settings.batch, settings.seed, settings.selection,
            settings.chunk_tokens, make_engine,
        )  # fmt: skip
        return gated, gated.prepare(
            subspace_class(settings.subspace), settings.rank, settings.subspace_dim, settings.scale, settings.mode,
            measured, settings.subspace_options,
        )  # fmt: skip
    if settings.tune == "deep-prompt":
        assert encoder.soft is not None, "the encoder was made for prompts"
        deep = PrefixProblem(
            DeepPrompted(language_model, encoder.soft), encoder, train, dev, settings.objective, settings.batch,
            settings.seed, settings.selection, settings.chunk_tokens, make_engine,
        )  # fmt: skip
        return deep, deep.prepare(
            settings.subspace, settings.subspace_dim, settings.scale, settings.prompt_text, settings.mode, measured
        )
    soft = PromptProblem(
        _prompted(encoder), encoder, train, dev, settings.objective, settings.batch, settings.seed,
        settings.selection, settings.chunk_tokens, make_engine,
    )  # fmt: skip
    return soft, soft.prepare(settings.subspace, settings.subspace_dim, settings.scale, settings.prompt_text, measured)


def _prompted(encoder: PromptEncoder) -> Prompted:
    """The model behind soft tokens that hold nothing yet."""
    assert encoder.soft is not None, "the encoder was made for prompts"
    table = encoder.language_model.model.get_input_embeddings().weight
    return Prompted(
        encoder.language_model, encoder.soft, table.new_zeros(encoder.soft.count, table.shape[1]), encoder.instances
    )


def attach(settings: SubspaceSettings | FirstOrderSettings, language_model: LanguageModel) -> adapters.Adapter:
    """Put empty LoRA on a model, as the settings say."""
    chosen = targets(settings.target)
    if not chosen and isinstance(settings, SubspaceSettings):
        chosen = [subspace_class(settings.subspace).target]
    return adapters.attach(language_model, settings.rank, chosen)


def targets(target: Any) -> list[str]:
    """Roles and names of modules, from a list or from text with commas."""
    names = target.split(",") if isinstance(target, str) else target
    return [str(name).strip() for name in names if str(name).strip()]
