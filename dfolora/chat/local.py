"""A chat with a model that is loaded here, as it is or as it was tuned."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from dfolora.chat.chat import Chat, Keep, Reply, Request
from dfolora.chat.conversation import NEXT_QUESTION, prompt, template_of
from dfolora.chat.ledger import CallLimit, Ledger
from dfolora.chat.sampling import BrokenLogits, Row, continue_rows, text_of
from dfolora.chat.wire import until_stop
from dfolora.engine import memory
from dfolora.engine.rows import buckets
from dfolora.errors import UserError
from dfolora.models.checksum import checksum
from dfolora.models.load import LanguageModel
from dfolora.seeds import seed_of

_OVERHEAD = 256  # what one more batch costs, in tokens


class LocalChat(Chat):
    """Asks a causal model, many requests in a batch.

    A call is a request, whatever its n. Texts lose the blanks around them. Equal requests get equal replies, in
    whatever company they come, up to the rounding of batched sums: without a temperature by nature, else by the seed
    (0 where there is none).
    """

    def __init__(
        self, language_model: LanguageModel, *, template: str = "auto", batch_tokens: int | None = None,
        ledger: Ledger | None = None,
    ) -> None:  # fmt: skip
        """Get ready.

        Args:
            language_model: a causal one, with its weights; with whatever adapter is on it.
            template: ``chat``: the tokenizer's chat template; ``plain``: Q and A; ``auto``: the first where there is
                one.
            batch_tokens: most tokens of a batch, prompts, padding and answers together; None: what memory holds.
            ledger: counts calls and tokens; None: a new one.

        Raises:
            UserError: a model of another kind, or a chat template that is not there.
        """
        name = language_model.name or "the model"
        if language_model.kind != "causal":
            raise UserError(f"model: {name!r} is {language_model.kind}; what answers messages is causal")
        self.language_model = language_model
        self.model: Any = language_model.model
        self.tokenizer: Any = language_model.tokenizer
        self.chat = template_of(self.tokenizer, template, name)
        self.ends = _ends(language_model)
        config = self.model.config.get_text_config()
        fitting = memory.generated_tokens(self.model, language_model.device, config.num_hidden_layers)
        self.batch_tokens = batch_tokens or fitting
        # Weights and template say what it would answer; a folder's name does not.
        look = hashlib.blake2b(str(self.tokenizer.chat_template if self.chat else "").encode(), digest_size=4)
        super().__init__(f"{name}@{checksum(self.model)}-{look.hexdigest()}", ledger)

    def answer(self, requests: Sequence[Request], keep: Keep) -> None:
        prompts = [prompt(self.tokenizer, request.messages, self.chat) for request in requests]
        rooms = [self._room(ids, request) for ids, request in zip(prompts, requests, strict=True)]
        limit, allowed = None, 0
        try:
            while allowed < len(requests):
                self.ledger.take()
                allowed += 1
        except CallLimit as error:
            limit, prompts = error, prompts[:allowed]
        lengths = [len(ids) + rooms[number] for number, ids in enumerate(prompts)]
        for batch in buckets(lengths, self.batch_tokens, _OVERHEAD) if prompts else []:
            self._batch(batch, requests, prompts, rooms, keep)
        if limit is not None:
            raise limit

    def _batch(
        self, batch: list[int], requests: Sequence[Request], prompts: list[list[int]], rooms: list[int], keep: Keep
    ) -> None:
        rows: list[Row] = []
        owners: list[int] = []  # of each row, the request
        for number in batch:
            request = requests[number]
            for text in range(request.n if request.temperature else 1):
                seed = seed_of(request.seed or 0, f"text {text}")
                row = Row(
                    prompts[number], rooms[number], request.temperature, request.top_p, seed, self._stop(request)
                )  # fmt: skip
                rows.append(row)
                owners.append(number)
        started = time.monotonic()
        answers: list[list[int]] = []
        longest = max(len(row.prompt) + row.max_tokens for row in rows)
        step = max(1, self.batch_tokens // longest)
        try:
            for start in range(0, len(rows), step):
                answers += continue_rows(self.model, self.tokenizer, rows[start : start + step], self.ends)
        except BrokenLogits:
            dtype = str(self.model.dtype).removeprefix("torch.")
            raise UserError(f"dtype: what this model says in {dtype} is not numbers; try float32") from None
        seconds = (time.monotonic() - started) / len(batch)
        texts = text_of(self.tokenizer, answers)
        for number in batch:
            mine = [place for place, owner in enumerate(owners) if owner == number]
            reply = self._reply(requests[number], [answers[k] for k in mine], [texts[k] for k in mine])
            reply = replace(reply, prompt_tokens=len(prompts[number]), seconds=seconds)
            self.ledger.book(reply.prompt_tokens, reply.completion_tokens)
            keep(number, reply)

    def _reply(self, request: Request, answers: list[list[int]], texts: list[str]) -> Reply:
        cut = [until_stop(text, self._stop(request)) for text in texts]
        said = tuple(text.strip() for text, _ in cut)
        finish = tuple(
            "stop" if stopped or (ids and ids[-1] in self.ends) else "length"
            for ids, (_, stopped) in zip(answers, cut, strict=True)
        )
        copies = request.n // len(said)  # without a temperature all texts are the same one
        return Reply(said * copies, finish * copies, None, sum(map(len, answers)))

    def _stop(self, request: Request) -> tuple[str, ...]:
        return request.stop if self.chat else (*request.stop, NEXT_QUESTION)

    def _room(self, ids: list[int], request: Request) -> int:
        """How many tokens may follow a prompt.

        Raises:
            UserError: none.
        """
        room = self.language_model.max_length - len(ids)
        if room < 1:
            raise UserError(
                f"messages: {len(ids)} tokens are too many for {self.language_model.name!r}, which has room for "
                f"{self.language_model.max_length} with the answer; shorten them"
            )
        return min(room, request.max_tokens)


def _ends(language_model: LanguageModel) -> frozenset[int]:
    """Tokens that end a text."""
    ends: set[int] = set()
    for end in (language_model.tokenizer.eos_token_id, language_model.model.generation_config.eos_token_id):
        ends |= set(end) if isinstance(end, list) else set() if end is None else {end}
    return frozenset(ends)
