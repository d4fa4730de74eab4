"""What answers messages: a local model, a server that speaks OpenAI's protocol, or a rule; behind a cache on disk."""

from dfolora.chat.chat import Chat, Message, Reply, Request
from dfolora.chat.ledger import CallLimit, Ledger
from dfolora.chat.open import open_chat
from dfolora.chat.scripted import ScriptedChat

__all__ = ["CallLimit", "Chat", "Ledger", "Message", "Reply", "Request", "ScriptedChat", "open_chat"]
