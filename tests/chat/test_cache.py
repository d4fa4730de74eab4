"""The cache of replies: what is asked once, what is the same request, files that are no cache."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from dfolora.chat import Message, Reply, Request, ScriptedChat, open_chat
from dfolora.errors import UserError

ASKED = Request((Message("user", "one two"),), temperature=1.0, seed=3)


def test_a_run_that_is_killed_pays_for_nothing_twice(tmp_path: Path) -> None:
    paid = []

    def rule(request: Request) -> str:
        if len(paid) == 3:
            raise KeyboardInterrupt
        paid.append(request)
        return f"text {len(paid)}"

    requests = [replace(ASKED, seed=seed) for seed in (1, 2, 1, 3, 4, 5)]
    with pytest.raises(KeyboardInterrupt):
        open_chat(ScriptedChat(rule), cache=tmp_path / "new" / "replies.sqlite")(requests)
    chat = open_chat(ScriptedChat(lambda request: "later"), cache=tmp_path / "new" / "replies.sqlite")
    replies = chat(requests)
    assert [reply.texts[0] for reply in replies] == ["text 1", "text 2", "text 1", "text 3", "later", "later"]
    assert (chat.ledger.calls, chat.ledger.cached) == (2, 4)
    assert replies[0] == Reply(("text 1",), ("stop",), 2, 2, cached=True)


@pytest.mark.parametrize(
    "change",
    [{"seed": 4}, {"n": 2}, {"temperature": 0.5}, {"top_p": 0.5}, {"max_tokens": 9}, {"stop": ("x",)},
     {"messages": (Message("system", "one two"),)}, {"messages": (Message("user", "one  two"),)}],
)  # fmt: skip
def test_what_makes_another_request(change: dict[str, object]) -> None:
    chat = open_chat(ScriptedChat(lambda request: "so"))
    chat([ASKED, ASKED, replace(ASKED, **change)])  # type: ignore[arg-type]
    assert (chat.ledger.calls, chat.ledger.cached) == (2, 1)


def test_another_model_is_asked_anew(tmp_path: Path) -> None:
    for name in ("one", "two", "one"):
        chat = open_chat(ScriptedChat(lambda request, name=name: name, name=name), cache=tmp_path / "replies")  # type: ignore[misc]
        assert chat([ASKED])[0].texts == (name,)
    assert chat.ledger.calls == 0


def test_files_that_are_no_cache(tmp_path: Path) -> None:
    file = tmp_path / "notes.txt"
    file.write_text("dear diary, " * 100)
    with pytest.raises(UserError, match=r"^cache: '.*notes.txt' cannot be used \(file is not a database\)"):
        open_chat(ScriptedChat(lambda request: ""), cache=file)
    assert file.read_text().startswith("dear diary")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"messages": ()}, "^messages: there are none"),
        ({"messages": (Message("robot", "x"),)}, "^messages: 'robot' is no role; it may be system, user, assistant"),
        ({"n": 0}, "^n: 0 cannot work"),
        ({"max_tokens": 0}, "^max_tokens: 0 cannot work"),
        ({"temperature": float("nan")}, "^temperature: nan cannot work"),
        ({"top_p": 0.0}, "^top_p: 0.0 cannot work"),
        ({"stop": ("",)}, "^stop: an empty text"),
    ],
)
def test_requests_that_cannot_be(change: dict[str, object], message: str) -> None:
    with pytest.raises(UserError, match=message):
        replace(ASKED, **change)  # type: ignore[arg-type]
