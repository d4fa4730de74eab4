"""Open a chat by what the user names."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from dfolora.chat.cache import CachedChat
from dfolora.chat.chat import Chat
from dfolora.chat.ledger import Ledger
from dfolora.errors import UserError


def open_chat(
    model: Any = None, base_url: str | None = None, cache: str | Path | None = None, max_calls: int | None = None
) -> Chat:
    """Open what answers messages, behind a cache of its replies."""
    if not isinstance(model, Chat):
        raise UserError("model: not there yet")
    model.ledger = Ledger(max_calls)
    return CachedChat(model, cache)
