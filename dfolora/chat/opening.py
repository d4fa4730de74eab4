"""Open a chat: a loaded model or a server, behind a cache and a cap."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from dfolora.chat.base import Chat
from dfolora.chat.booked import Booked
from dfolora.errors import UserError


def open_chat(
    model: Any = None,
    base_url: str | None = None,
    *,
    api_model: str | None = None,
    cache: str | Path | None = None,
    max_calls: int | None = None,
    template: bool | None = None,
    adapter: str | None = None,
    key_variable: str = "OPENAI_API_KEY",
    concurrency: int = 8,
    timeout: float = 120.0,
    retries: int = 5,
    **loading: Any,
) -> Booked:
    """Open what answers messages.

    Args:
        model: hub id or folder of a causal model, one that ``dfolora.load_model`` gave, or a ``Chat``.
        base_url: of a server that speaks as OpenAI's does, such as http://localhost:8000/v1, in place of a model.
        api_model: the server's name for the model; None: the only one that it has.
        cache, max_calls: as for ``Booked``.
        template: whether messages are put by the tokenizer's chat template; None: where it has one. Of a model here.
        adapter: folder of a LoRA adapter for the model.
        key_variable: of the environment, that holds the server's key; a local server needs none.
        concurrency: most requests at once to a server.
        timeout: seconds until a server's answer counts as lost.
        retries: how often a request is sent again that was lost or refused for now.
        loading: further arguments of ``dfolora.load_model``.

    Raises:
        UserError: neither or both of model and base_url, or a model that cannot be loaded or cannot answer.
    """
    if (model is None or model == "") == (not base_url):
        raise UserError("model: give a model or a base_url, one of the two")
    if isinstance(model, Chat):
        return Booked(model, cache, max_calls)
    if base_url:
        from dfolora.chat.server import ServerChat

        chat: Chat = ServerChat(base_url, api_model, key_variable, concurrency, timeout, retries)
        return Booked(chat, cache, max_calls)
    from dfolora.chat.local import LocalChat
    from dfolora.models import adapter as adapters
    from dfolora.models import load as models
    from dfolora.models.load import LanguageModel

    language_model = model if isinstance(model, LanguageModel) else models.load(model, **loading)
    if adapter:
        adapters.load(language_model, adapter)
    return Booked(LocalChat(language_model, template), cache, max_calls)
