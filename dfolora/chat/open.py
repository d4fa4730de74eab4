"""Open a chat by what the user names: a model, a server, or a chat that is there."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from dfolora.chat.cache import CachedChat
from dfolora.chat.chat import Chat
from dfolora.chat.ledger import Ledger
from dfolora.chat.patience import Patience
from dfolora.chat.secret import USUAL
from dfolora.errors import UserError


def open_chat(
    model: Any = None, base_url: str | None = None, cache: str | Path | None = None, max_calls: int | None = None, *,
    adapter: str | Path = "", device: str = "auto", dtype: str = "auto", trust_remote_code: bool = False,
    template: str = "auto", key_variable: str = USUAL, concurrency: int = 8, timeout: float = 120.0,
    patience: Patience | None = None,
) -> Chat:  # fmt: skip
    """Open what answers messages, behind a cache of its replies.

    Args:
        model: hub id or folder of a causal model, a ``LanguageModel``, or a ``Chat``; with ``base_url`` what the server
            calls its model, None where it has only one.
        base_url: of an OpenAI-compatible server, such as ``http://localhost:8000/v1``; None: the model is local.
        cache: SQLite file of the replies, made where there is none; None: they are remembered as long as the chat is.
        max_calls: most calls of this chat; None: no limit. What the cache answers is no call.
        adapter: of a local model, the folder of a tuned LoRA adapter; empty: none.
        device, dtype, trust_remote_code: of a local model, see ``dfolora.load_model``.
        template: of a local model, ``chat``, ``plain`` or ``auto``, see ``LocalChat``.
        key_variable: the environment variable with the server's key.
        concurrency: most calls at once of a server.
        timeout: seconds that a server may say nothing.
        patience: when a server is asked again; None: six times within half a minute, or as it advises.

    Raises:
        UserError: no such model or server, a cap that allows nothing, a cache that cannot be used.
    """
    ledger = Ledger(max_calls)
    if not model and not base_url:
        raise UserError("model: which one? give a folder, a hub id, or the base_url of a server")
    if isinstance(model, Chat):
        if base_url:
            raise UserError("base_url: a Chat as model has what it asks already; leave one out")
        model.ledger = ledger
        return CachedChat(model, cache)
    if base_url:
        from dfolora.chat.server import ServerChat

        if adapter:
            raise UserError("adapter: a server loads its adapters itself; name the model that has it, without adapter")
        return CachedChat(
            ServerChat(
                None if model is None else str(model), base_url, key_variable=key_variable, concurrency=concurrency,
                timeout=timeout, patience=patience, ledger=ledger,
            ),
            cache,
        )  # fmt: skip
    from dfolora.chat.local import LocalChat
    from dfolora.models import adapter as adapters
    from dfolora.models import load as models
    from dfolora.models.load import LanguageModel

    if not isinstance(model, LanguageModel):
        model = models.load(model, device=device, dtype=dtype, trust_remote_code=trust_remote_code)
    model.read_weights()
    if adapter:
        adapters.detach(model)
        adapters.load(model, str(adapter))
    return CachedChat(LocalChat(model, template=template, ledger=ledger), cache)
