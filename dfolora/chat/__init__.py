"""Whatever answers messages: a model that is loaded here, a server with OpenAI's interface, a script of one's own."""

from __future__ import annotations

from dfolora.chat.base import CallLimit, Chat, Message, Reply, Request
from dfolora.chat.booked import Booked
from dfolora.chat.opening import open_chat
from dfolora.chat.scripted import ScriptedChat

__all__ = ["Booked", "CallLimit", "Chat", "Message", "Reply", "Request", "ScriptedChat", "open_chat"]
