"""A causal language model that is loaded here, asked in batches."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor
from transformers import (
    GenerationConfig,
    LogitsProcessor,
    LogitsProcessorList,
    StoppingCriteria,
    StoppingCriteriaList,
    TemperatureLogitsWarper,
    TopPLogitsWarper,
)

from dfolora.chat.base import Chat, Message, Reply, Request
from dfolora.engine import memory
from dfolora.engine.generate import left_padded, without_own_settings
from dfolora.errors import UserError
from dfolora.models.load import LanguageModel


class LocalChat(Chat):
    """Answers by a loaded model, tuned or not. What is drawn depends on a request alone, not on its batch.

    Attributes:
        language_model: what answers.
        name: of the model, with its number format, and a checksum of the adapter that it carries.
    """

    def __init__(self, language_model: LanguageModel, template: bool | None = None) -> None:
        """Read the weights if they are not there yet.

        Args:
            language_model: of a causal model.
            template: whether messages are put by the tokenizer's chat template; None: where it has one. Without one a
                message stands behind ``Q:``, an answer behind ``A:``.

        Raises:
            UserError: a model of another kind, or one without a template where one is asked for.
        """
        if language_model.kind != "causal":
            raise UserError(
                f"model: {language_model.name!r} is no causal model ({language_model.kind}); it cannot answer"
            )
        tokenizer: Any = language_model.tokenizer
        has = bool(getattr(tokenizer, "chat_template", None))
        if template and not has:
            raise UserError(f"template: the tokenizer of {language_model.name!r} has no chat template; leave it out")
        self.language_model = language_model.read_weights()
        self.template = has if template is None else template
        model: Any = language_model.model
        dtype = str(next(model.parameters()).dtype).removeprefix("torch.")
        self.name = f"{language_model.name} {dtype}{_adapter_of(model)}{'' if self.template else ' Q:'}"
        self._ends = _ends(tokenizer, model)

    def replies(self, requests: Sequence[Request]) -> Iterator[tuple[int, Reply]]:
        prompts = [self._prompt(request) for request in requests]
        kinds: dict[tuple[Any, ...], list[int]] = {}
        for place in sorted(range(len(requests)), key=lambda place: len(prompts[place])):
            request = requests[place]
            kinds.setdefault(
                (request.max_tokens, request.temperature, request.top_p, request.stop, request.n), []
            ).append(place)
        for places in kinds.values():
            for batch in self._batches(places, prompts, requests[places[0]]):
                found = self._generate([prompts[place] for place in batch], [requests[place] for place in batch])
                yield from zip(batch, found, strict=True)

    def _batches(self, places: list[int], prompts: list[list[int]], request: Request) -> Iterator[list[int]]:
        model, device = self.language_model.model, self.language_model.device
        blocks = int(getattr(model.config.get_text_config(), "num_hidden_layers", 1))
        most = min(memory.chunk_tokens(model, device), memory.generated_tokens(model, device, blocks))
        while places:
            rows = 1
            while (
                rows < len(places)
                and (rows + 1) * request.n * (len(prompts[places[rows]]) + request.max_tokens) <= most
            ):
                rows += 1
            yield places[:rows]
            places = places[rows:]

    def _prompt(self, request: Request) -> list[int]:
        """Token ids of the talk, up to where the answer begins."""
        tokenizer: Any = self.language_model.tokenizer
        if self.template:
            talk = [message._asdict() for message in request.messages]
            try:
                text = tokenizer.apply_chat_template(talk, tokenize=False, add_generation_prompt=True)
            except Exception as error:  # the template is somebody's program
                raise UserError(
                    f"template: it does not take these messages ({type(error).__name__}: {error})"
                ) from error
            ids = tokenizer(text, add_special_tokens=False)["input_ids"]
        else:
            ids = tokenizer(_plain(request.messages))["input_ids"]
            if ids and ids[-1] == tokenizer.eos_token_id:  # which some tokenizers put behind every text
                ids = ids[:-1]
        longest = self.language_model.max_length
        if len(ids) + request.max_tokens > longest:
            raise UserError(
                f"max_tokens: a prompt of {len(ids)} tokens leaves {max(0, longest - len(ids))} of the "
                f"model's {longest}, not {request.max_tokens}"
            )
        return list(ids)

    @torch.inference_mode()
    def _generate(self, prompts: list[list[int]], requests: list[Request]) -> list[Reply]:
        started, request = time.monotonic(), requests[0]
        model, tokenizer = self.language_model.model, self.language_model.tokenizer
        inputs = left_padded(
            [ids for ids in prompts for _ in range(request.n)], tokenizer.pad_token_id, self.language_model.device
        )
        stop = request.stop if self.template else (*request.stop, "\nQ:")
        settings = GenerationConfig(
            max_new_tokens=request.max_tokens, do_sample=False, num_beams=1, use_cache=True,
            pad_token_id=tokenizer.pad_token_id, eos_token_id=sorted(self._ends) or None,
        )  # fmt: skip
        drawing: list[LogitsProcessor] = []
        if request.temperature:
            keys = [_key(each.seed, number) for each in requests for number in range(request.n)]
            drawing = [TemperatureLogitsWarper(request.temperature), TopPLogitsWarper(request.top_p), _Noise(keys)]
        with without_own_settings(model):
            output = model.generate(
                **inputs, generation_config=settings, logits_processor=LogitsProcessorList(drawing),
                stopping_criteria=StoppingCriteriaList([_Stops(tokenizer, stop, inputs["input_ids"].shape[1])]),
            )  # fmt: skip
        rows = [self._read(ids, stop) for ids in output[:, inputs["input_ids"].shape[1] :].tolist()]
        seconds = (time.monotonic() - started) / len(requests)
        replies = []
        for number, ids in enumerate(prompts):
            own = rows[number * request.n : (number + 1) * request.n]
            texts, finish, tokens = zip(*own, strict=True)
            replies.append(Reply(texts, finish, len(ids) * request.n, sum(tokens), seconds))
        return replies

    def _read(self, ids: list[int], stop: Sequence[str]) -> tuple[str, str, int]:
        """A row's text, why it ends, and how many tokens it has."""
        end = next((place for place, token in enumerate(ids) if token in self._ends), None)
        tokens = len(ids) if end is None else end + 1
        text = self.language_model.tokenizer.decode(ids[:end], skip_special_tokens=True)
        cut = min((place for each in stop if (place := text.find(each)) >= 0), default=None)
        finish = "length" if end is None and cut is None else "stop"
        return text[:cut].strip(), finish, tokens


class _Noise(LogitsProcessor):
    """Adds Gumbel noise, so that the likeliest token is then one drawn from the softmax; by the rows' keys."""

    def __init__(self, keys: Sequence[int]) -> None:
        self._generators = [torch.Generator().manual_seed(key) for key in keys]

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        uniform = torch.stack([torch.rand(scores.shape[1], generator=each) for each in self._generators])
        return scores - (-uniform.clamp(min=1e-12).log()).log().to(scores)


class _Stops(StoppingCriteria):
    """Ends the rows that have said a stop text. Transformers' own criterion does not take every tokenizer."""

    def __init__(self, tokenizer: Any, stop: Sequence[str], start: int) -> None:
        self._tokenizer, self._stop, self._start = tokenizer, stop, start
        self._window = max(map(len, stop), default=0) + 8  # tokens; each has a character, but for a few

    def __call__(self, input_ids: Tensor, scores: Any, **_: Any) -> Tensor:
        said: list[str] = []
        if self._stop:
            said = self._tokenizer.batch_decode(input_ids[:, max(self._start, input_ids.shape[1] - self._window) :])
        ended = [any(stop in text for stop in self._stop) for text in said] or [False] * len(input_ids)
        return torch.tensor(ended, device=input_ids.device)


def _key(seed: int | None, number: int) -> int:
    digest = hashlib.blake2b(f"{seed}/{number}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1


def _plain(messages: Sequence[Message]) -> str:
    """A talk as text, for a model without a chat template; it ends where the answer begins."""
    marks = {"user": "Q: ", "assistant": "A: ", "system": ""}
    return "\n".join(marks.get(message.role, "") + message.content for message in messages) + "\nA:"


def _ends(tokenizer: Any, model: Any) -> set[int]:
    """Tokens that end an answer."""
    ends: set[int] = set()
    for end in (tokenizer.eos_token_id, getattr(model.generation_config, "eos_token_id", None)):
        ends |= set(end) if isinstance(end, list) else set() if end is None else {end}
    return ends


def _adapter_of(model: Any) -> str:
    """A checksum of the LoRA weights that a model carries; '' where it carries none."""
    parts = [weight for name, weight in model.named_parameters() if "lora_" in name]
    if not parts:
        return ""
    total = hashlib.blake2b(digest_size=8)
    for weight in parts:
        total.update(weight.detach().float().cpu().numpy().tobytes())
    return f" adapter {total.hexdigest()}"
