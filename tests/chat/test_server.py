"""Chats behind a server that misbehaves on purpose: attempts and waits, odd replies, order, cap, cache, the key."""

from __future__ import annotations

import logging
import random
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import stub_server
from stub_server import Answer, Stub, error, said

from dfolora.chat import CallLimit, Chat, Message, Request, open_chat
from dfolora.chat.patience import Patience
from dfolora.errors import UserError

openai = pytest.importorskip("openai")
KEY = "sk-most-secret-4711"


@pytest.fixture
def stub(monkeypatch: pytest.MonkeyPatch) -> Iterator[Stub]:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    with stub_server.running() as stub:
        yield stub


class Waits(list[float]):
    """The seconds that were to be waited, none of which were."""

    def opened(self, stub: Stub, **options: Any) -> Chat:
        patience = Patience(attempts=4, draw=lambda: 1.0, now=lambda: 1_000_000_000.0, sleep=self.append)
        return open_chat("m", stub.url, patience=patience, **options)


@pytest.fixture
def waits() -> Waits:
    return Waits()


def ask(text: str = "hello", **settings: Any) -> Request:
    return Request((Message("user", text),), **settings)


@pytest.mark.parametrize(
    ("failures", "waited"),
    [
        ([error(429, "slow down", retry_after="7")], [8.0]),
        ([error(429, "slow down", Retry_After="Sun, 09 Sep 2001 01:47:10 GMT")], [31.0]),
        ([error(500, "oops"), error(503, "oops")], [1.0, 2.0]),
        ([error(408, "late")], [1.0]),
        ([Answer('{"choices": [')], [1.0]),
        ([Answer({"choices": []}), Answer({"error": {"message": "overloaded"}})], [1.0, 2.0]),
        ([Answer("a" * 100, cut=True)], [1.0]),
    ],
)
def test_what_may_pass_is_tried_again(stub: Stub, waits: Waits, failures: list[Answer], waited: list[float]) -> None:
    stub.script(*failures, said("at last"))
    chat = waits.opened(stub)
    (reply,) = chat([ask()])
    assert (reply.texts, reply.prompt_tokens, reply.completion_tokens) == (("at last",), 5, 2)
    assert len(stub.asked) == len(failures) + 1
    assert waits == waited
    assert (chat.ledger.calls, chat.ledger.prompt_tokens, chat.ledger.completion_tokens) == (1, 5, 2)


def test_a_server_that_hangs(stub: Stub, waits: Waits) -> None:
    stub.rule = lambda number, body: Answer(said("late").content, delay=0.6 if number == 0 else 0.0)
    assert waits.opened(stub, timeout=0.3)([ask()])[0].texts == ("late",)
    assert (len(stub.asked), waits) == (2, [1.0])


def test_it_gives_up_in_the_end(stub: Stub, waits: Waits) -> None:
    stub.script(error(500, "oops"))
    chat = waits.opened(stub)
    with pytest.raises(UserError, match=r"^base_url: the server at '.*' failed 4 times in a row \(status 500\);"):
        chat([ask()])
    assert (len(stub.asked), waits, chat.ledger.calls) == (4, [1.0, 2.0, 4.0], 0)
    stub.script(error(429, "come tomorrow", retry_after="86400"))
    with pytest.raises(UserError, match="asks to wait 86400 s"):
        chat([ask()])
    assert len(stub.asked) == 5


@pytest.mark.parametrize(
    ("failure", "message"),
    [
        (
            error(401, f"Incorrect API key provided: {KEY}."),
            r"^key_variable: .* refuses the key in OPENAI_API_KEY \(401",
        ),
        (error(403, "no"), r"^key_variable: .* \(403: no\)$"),
        (error(404, "no such model"), r"^model: .* knows no 'm' \(404: no such model\)"),
        (
            error(400, "context\nlength exceeded"),
            r"^base_url: .* refuses the request \(400: context length exceeded\)$",
        ),
        (Answer("<html>", 404), r"^model: .*404: <html>"),
    ],
)
def test_what_will_not_pass_is_not_tried_again(stub: Stub, waits: Waits, failure: Answer, message: str) -> None:
    stub.script(failure)
    with pytest.raises(UserError, match=message) as caught:
        waits.opened(stub)([ask()])
    assert (len(stub.asked), waits) == (1, [])
    assert KEY not in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("answer", "text", "finish", "tokens"),
    [
        (said(None, reasoning_content="hm, thinking"), "", "stop", 2),
        (said(None, refusal="I will not."), "I will not.", "stop", 2),
        (said([{"type": "reasoning", "text": "hm"}, {"type": "text", "text": "a"}, {"type": "text", "text": "b"}]),
         "ab", "stop", 2),
        (said("cut o", finish="length"), "cut o", "length", 2),
        (said("<think>\nhm, END\n</think>\n\n7"), "7", "stop", 2),
        (said("<think>and so on", finish="length"), "", "length", 2),
        (said("plain", usage=None), "plain", "stop", None),
        (said("one END two", finish="length"), "one ", "stop", 2),
    ],
)  # fmt: skip
def test_odd_replies(stub: Stub, waits: Waits, answer: Answer, text: str, finish: str, tokens: int | None) -> None:
    stub.script(answer)
    (reply,) = waits.opened(stub)([ask(stop=("END",))])
    assert (reply.texts, reply.finish, reply.completion_tokens) == ((text,), (finish,), tokens)
    assert len(stub.asked) == 1


def test_options_that_a_server_refuses(stub: Stub, waits: Waits) -> None:
    def rule(number: int, body: dict[str, Any]) -> Answer:
        if "max_tokens" in body:
            return error(400, "Unsupported parameter: 'max_tokens'. Use 'max_completion_tokens'.", "max_tokens")
        if "temperature" in body:
            return error(400, "Unsupported value: 'temperature' does not support 0.5.", "temperature")
        if "n" in body:
            return error(422, "extra fields not permitted: 'n'")
        return said(f"text {number}")

    stub.rule = rule
    chat = waits.opened(stub)
    with pytest.warns(UserWarning, match="^temperature: the server at .* does not take it"):
        (reply,) = chat([ask(max_tokens=9, temperature=0.5, n=2, seed=4)])
    assert reply.texts == ("text 3", "text 4")
    assert (reply.prompt_tokens, reply.completion_tokens, chat.ledger.calls) == (10, 4, 2)
    last = {name: value for name, value in stub.asked[-1].items() if name != "messages"}
    assert last == {"model": "m", "max_completion_tokens": 9, "seed": 5}
    chat([ask("another")])
    assert len(stub.asked) == 6  # it is not asked with them again


def test_texts_come_one_by_one_and_go_on_where_they_stopped(stub: Stub, waits: Waits, tmp_path: Path) -> None:
    stub.rule = lambda number, body: said(f"text {number}") if number != 2 else error(401, "key expired")
    cache, request = tmp_path / "replies.sqlite", ask(n=4, temperature=1.0, seed=10)
    with pytest.raises(UserError, match="key expired"):
        waits.opened(stub, cache=cache)([request])
    (reply,) = waits.opened(stub, cache=cache)([request])
    assert reply.texts == ("text 0", "text 1", "text 3", "text 4")
    assert not reply.cached
    assert [body.get("seed") for body in stub.asked] == [10, 11, 12, 12, 13]
    assert waits.opened(stub, cache=cache)([request])[0].cached


def test_order_and_how_many_at_once(stub: Stub, waits: Waits) -> None:
    draw = random.Random(1)
    stub.rule = lambda number, body: Answer(
        said("re: " + body["messages"][0]["content"]).content, delay=draw.uniform(0.0, 0.04)
    )
    replies = waits.opened(stub, concurrency=3)([ask(str(number)) for number in range(12)])
    assert [reply.texts for reply in replies] == [(f"re: {number}",) for number in range(12)]
    assert stub.most == 3


def test_a_cap_keeps_what_was_paid_for_and_a_replay_needs_no_server(stub: Stub, waits: Waits, tmp_path: Path) -> None:
    cache, requests = tmp_path / "replies.sqlite", [ask(str(number)) for number in range(7)]
    stub.rule = lambda number, body: said("re: " + body["messages"][0]["content"])
    chat = waits.opened(stub, cache=cache, max_calls=4, concurrency=2)
    with pytest.raises(CallLimit, match="^max_calls: all 4 calls are used up"):
        chat(requests)
    assert (len(stub.asked), chat.ledger.calls) == (4, 4)
    chat = waits.opened(stub, cache=cache, max_calls=3)
    replies = chat(requests)
    assert [reply.texts for reply in replies] == [(f"re: {number}",) for number in range(7)]
    assert [reply.cached for reply in replies] == [True] * 4 + [False] * 3
    assert (len(stub.asked), chat.ledger.calls, chat.ledger.cached) == (7, 3, 4)
    gone = open_chat("m", "http://127.0.0.1:9/v1", cache=cache)
    assert [reply.texts for reply in gone(requests)] == [reply.texts for reply in replies]
    assert len(stub.asked) == 7
    with pytest.raises(CallLimit):  # another seed, number or model is another request
        waits.opened(stub, cache=cache, max_calls=2)([ask("0", seed=1), ask("0", n=2), ask("0", temperature=1.0)])


def test_the_key_is_nowhere(
    stub: Stub, waits: Waits, tmp_path: Path, caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    caplog.set_level(logging.DEBUG)
    stub.script(error(500, KEY), said("fine"), error(401, f"bad key {KEY}"))
    chat = waits.opened(stub, cache=tmp_path / "replies.sqlite")
    chat([ask()])
    with pytest.raises(UserError) as caught:
        chat([ask("more")])
    assert stub.keys == [f"Bearer {KEY}"] * 3
    server: Any = vars(chat)["chat"]
    shown = [repr(chat), str(vars(chat)), str(vars(server)), repr(server.secret), str(caught.value), chat.name]
    printed = capsys.readouterr()
    assert not [text for text in [*shown, caplog.text, printed.out, printed.err] if KEY in text]
    assert caught.value.__cause__ is None
    assert not [file for file in tmp_path.iterdir() if KEY.encode() in file.read_bytes()]


def test_keys_of_other_names(stub: Stub, waits: Waits, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MY_KEY", "abc")
    waits.opened(stub, key_variable="MY_KEY")([ask()])
    monkeypatch.delenv("OPENAI_API_KEY")
    waits.opened(stub)([ask()])
    assert stub.keys == ["Bearer abc", "Bearer none"]
    stub.script(error(401, "who are you"))
    with pytest.raises(UserError, match=r"wants a key \(401: who are you\); set OPENAI_API_KEY$"):
        waits.opened(stub)([ask()])
    with pytest.raises(UserError, match="^key_variable: NO_SUCH_KEY is not set in the environment$"):
        waits.opened(stub, key_variable="NO_SUCH_KEY")
    with pytest.raises(UserError, match="^key_variable: that is no name") as caught:
        waits.opened(stub, key_variable=KEY)
    assert KEY not in str(caught.value)


def test_an_interrupted_batch_keeps_what_is_on_its_way(stub: Stub, waits: Waits, tmp_path: Path) -> None:
    def rule(number: int, body: dict[str, Any]) -> Answer:
        first = body["messages"][0]["content"] == "0"
        return error(403, "no") if first else Answer(said("paid").content, delay=0.1)

    stub.rule = rule
    cache = tmp_path / "replies.sqlite"
    with pytest.raises(UserError, match="403"):
        waits.opened(stub, cache=cache, concurrency=2)([ask(str(number)) for number in range(9)])
    asked = [body["messages"][0]["content"] for body in stub.asked if body["messages"][0]["content"] != "0"]
    assert 1 <= len(asked) <= 3
    assert all(reply.cached for reply in waits.opened(stub, cache=cache)([ask(number) for number in asked]))


def test_which_model_the_server_has(stub: Stub) -> None:
    assert open_chat(base_url=stub.url).name == "only-one"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"base_url": "localhost:8000"}, "^base_url: 'localhost:8000' is no address; say for example http://"),
        ({"base_url": f"http://me:{KEY}@host/v1"}, "^base_url: has a name, password or query in it"),
        ({"base_url": "http://127.0.0.1:9/v1", "max_calls": 0}, "^max_calls: 0 allows no call; it takes at least 1"),
        ({"base_url": "http://127.0.0.1:9/v1", "concurrency": 0}, "^concurrency: 0 cannot work"),
        ({"base_url": "http://127.0.0.1:9/v1", "timeout": 0}, "^timeout: 0 cannot work"),
        ({"base_url": "http://127.0.0.1:9/v1"}, "^base_url: no server answers at 'http://127.0.0.1:9/v1'"),
        ({}, "^model: which one"),
        ({"base_url": "http://127.0.0.1:9/v1", "model": "m", "cache": "."}, "^cache: '.' cannot be used"),
    ],
)
def test_bad_input(options: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message) as caught:
        open_chat(**options)
    assert KEY not in str(caught.value)


def test_a_server_that_is_not_there_is_told_soon() -> None:
    waits = Waits()
    chat = open_chat("m", "http://127.0.0.1:9/v1", patience=Patience(sleep=waits.append))
    started = time.monotonic()
    with pytest.raises(UserError, match=r"no server answers at .*; start it, or correct the address$"):
        chat([ask()])
    assert len(waits) == 1
    assert time.monotonic() - started < 20
