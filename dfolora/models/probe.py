"""What a forward of one or two tokens shows about a model, so that names and layouts need not be believed."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import ExitStack
from dataclasses import dataclass
from math import gcd
from typing import Any

import torch
from torch import Tensor, nn


def blocks_run(model: Any) -> set[str] | None:
    """Paths of the transformer blocks that reading text runs; None where the model does not read two tokens plainly.

    A model of pictures and text has blocks that text never reaches.
    """
    run: set[str] = set()
    with ExitStack() as hooks:
        for name, module in model.named_modules():
            for index, child in enumerate(module if isinstance(module, nn.ModuleList) else ()):
                handle = child.register_forward_hook(lambda *_, path=f"{name}.{index}": run.add(path))
                hooks.callback(handle.remove)
        try:
            _forward(model, _tokens(model)[None])
        except Exception:  # whatever a model raises on a text without what else it may want
            return None
    return run


def needed(model: Any, names: Iterable[str]) -> str | None:
    """The first of the named parameters that the model's output depends on: it is another when they are.

    Args:
        model: in evaluation mode; it is left as it was.
        names: of parameters; what is none, such as a buffer, is left out.

    Returns:
        its name; None: the output depends on none of them.
    """
    parameters = dict(model.named_parameters())
    chosen = {name: parameters[name] for name in names if name in parameters}
    if not chosen:
        return None
    ids = _tokens(model)[None]
    try:
        before = _forward(model, ids)
        return next((name for name, parameter in chosen.items() if _changes(model, ids, before, parameter)), None)
    except Exception:  # it does not read two tokens plainly: be careful, but a pooler is never read here
        return next((name for name in chosen if "pooler" not in name.split(".")), None)


def _changes(model: Any, ids: Tensor, before: Tensor, parameter: nn.Parameter) -> bool:
    saved = parameter.detach().clone()
    noise = torch.randn(parameter.shape, generator=torch.Generator().manual_seed(0)).to(parameter)
    try:
        with torch.no_grad():
            parameter.add_(noise * (1 + saved.abs().max()))
        after = _forward(model, ids)
    finally:
        with torch.no_grad():
            parameter.copy_(saved)
    return not torch.allclose(before, after, rtol=1e-5, atol=1e-6, equal_nan=True)


def fused_parts(model: Any, name: str, block: str) -> dict[str, Tensor] | None:
    """Which output rows of a fused projection make queries, keys and values.

    A token that is alone attends to itself whatever its query and key are, so what changes the output are values. Of
    two tokens, the second one's output depends on the first one's key and value, not on its query. Many copies run as
    one batch up to the end of the block, each with other rows changed. The projection's output is replaced by random
    numbers, so that what the weights are does not matter.

    Args:
        model: in evaluation mode.
        name: path of the projection.
        block: path of the transformer block that it lies in.

    Returns:
        ``{"q": rows, "k": rows, "v": rows}``, each int64 and ascending, together all rows; None where the answers do
        not make sense (linear attention, a block of another shape), so that nothing is known.
    """
    config = model.config.get_text_config()
    projection = model.get_submodule(name)
    rows = features(getattr(projection, "base_layer", projection))[1]
    heads = int(getattr(config, "num_attention_heads", 0) or 1)
    size = gcd(rows, int(getattr(config, "head_dim", None) or config.hidden_size // heads))
    trial = _Fused(model, projection, model.get_submodule(block), rows // size, size)
    try:
        alone = trial.effects(_tokens(model)[:1], torch.ones(rows))
        value = alone > 0.02 * alone.max()
        second = trial.effects(_tokens(model), 1 + 29 * value.repeat_interleave(size)).masked_fill(value, 0)
    except Exception:  # a model of another shape
        return None
    key = second > 0.02 * second.max()
    groups = {"q": ~value & ~key, "k": key, "v": value}
    if not all(bool(chosen.any()) for chosen in groups.values()):
        return None
    return {part: chosen.repeat_interleave(size).nonzero().flatten() for part, chosen in groups.items()}


class _Done(Exception):
    """Carries a block's output out of a forward that need not go on."""

    def __init__(self, output: Tensor) -> None:
        self.output = output


@dataclass
class _Fused:
    """A fused projection in its block, whose ``groups`` of ``size`` rows each are changed one at a time."""

    model: Any
    projection: Any
    block: Any
    groups: int
    size: int

    def effects(self, tokens: Tensor, scale: Tensor) -> Tensor:
        """(groups,) how far each group, changed at the first token, moves the block's output at the last one.

        Args:
            tokens: (T,).
            scale: (rows,) how large the random numbers are that the projection gives.
        """
        draws = [self._effects(tokens, scale, seed) for seed in range(4)]
        return torch.stack(draws).amax(0)

    def _effects(self, tokens: Tensor, scale: Tensor, seed: int) -> Tensor:
        generator = torch.Generator().manual_seed(seed)
        output = (torch.randn(len(tokens), len(scale), generator=generator) * scale).repeat(self.groups + 1, 1, 1)
        noise = 3 * torch.randn(len(scale), generator=generator) * scale
        for group in range(self.groups):
            part = slice(group * self.size, (group + 1) * self.size)
            output[group + 1, 0, part] += noise[part]

        def replace(_module: Any, _inputs: Any, plain: Tensor) -> Tensor:
            if plain.shape != output.shape:
                raise ValueError("a projection's output has another shape")
            return output.to(plain)

        def stop(_module: Any, _inputs: Any, states: Any) -> None:
            raise _Done(states[0] if isinstance(states, tuple) else states)

        handles = [self.projection.register_forward_hook(replace), self.block.register_forward_hook(stop)]
        try:
            _forward(self.model, tokens.expand(self.groups + 1, -1))
        except _Done as done:
            if done.output.shape[:2] != output.shape[:2]:
                raise ValueError("a block's output has another shape") from None
            last = done.output[:, -1].float()
            return (last[1:] - last[0]).abs().amax(-1).cpu()
        finally:
            for handle in handles:
                handle.remove()
        raise ValueError("the block did not run")


def features(module: nn.Module) -> tuple[int, int]:
    """Inputs and outputs of a linear map."""
    if isinstance(module, nn.Linear):
        return module.in_features, module.out_features
    weight: Any = module.weight  # Conv1D keeps (in, out)
    return int(weight.shape[0]), int(weight.shape[1])


def _tokens(model: Any) -> Tensor:
    """Two different tokens, neither of them padding, (2,)."""
    count = int(model.get_input_embeddings().weight.shape[0])
    padding = getattr(model.config.get_text_config(), "pad_token_id", None)
    usual = [token for token in (count // 2, count // 3, count // 4, count - 1) if token != padding]
    return torch.tensor(list(dict.fromkeys(usual))[:2])


def _forward(model: Any, ids: Tensor) -> Tensor:
    """Logits, or a bare encoder's last hidden states, of (B, T) tokens."""
    ids = ids.to(next(model.parameters()).device)
    inputs = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
    if getattr(model.config, "is_encoder_decoder", False):
        inputs["decoder_input_ids"] = ids
    with torch.no_grad():
        output = model(**inputs)
    result: Tensor = output.logits if getattr(output, "logits", None) is not None else output[0]
    return result
