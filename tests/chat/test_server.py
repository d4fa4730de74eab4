"""Requests to a server that misbehaves: what is sent again, what waits, what is refused; the key stands nowhere."""

from __future__ import annotations

import random
import sqlite3
import time
from pathlib import Path
from typing import Any

import pytest
from stub_server import last, reply, serving

from dfolora.chat import CallLimit, Message, Request, open_chat
from dfolora.errors import UserError

openai = pytest.importorskip("openai")
KEY = "sk-secret-of-the-test"


def ask(text: str, **more: Any) -> Request:
    return Request((Message("user", text),), **more)


@pytest.fixture(autouse=True)
def waits(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Pauses are noted, not made; and the key is set."""
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    noted: list[float] = []
    import openai._base_client as client

    class Clock:
        def __getattr__(self, name: str) -> Any:
            return noted.append if name == "sleep" else getattr(time, name)

    monkeypatch.setattr(client, "time", Clock())
    return noted


def test_an_answer_and_what_was_asked() -> None:
    with serving(lambda body, _: reply(last(body).upper())) as stub:
        chat = open_chat(base_url=stub.url)
        (found,) = chat([ask("hello", max_tokens=9, temperature=0.5, top_p=0.9, stop=("x",), seed=3)])
        assert (found.texts, found.finish, found.prompt_tokens, found.completion_tokens) == (
            ("HELLO",),
            ("stop",),
            7,
            3,
        )
        body = stub.bodies[0]
        assert body == {
            "model": "stub", "messages": [{"role": "user", "content": "hello"}], "max_tokens": 9, "temperature": 0.5,
            "top_p": 0.9, "stop": ["x"], "seed": 3,
        }  # fmt: skip
        assert stub.keys == [f"Bearer {KEY}"]
        assert (chat.calls, chat.prompt_tokens, chat.completion_tokens) == (1, 7, 3)


@pytest.mark.parametrize(
    ("faults", "expected"),
    [
        ([(429, {"error": {"message": "slow down"}}, {"Retry-After": "17"})], [17.0]),
        ([(500, {}, {}), (503, {}, {})], None),
        ([(408, {}, {})], None),
        (["cut"], None),
        (["not json at all"], []),
        ([reply()], []),
    ],
    ids=["429 with Retry-After", "500 twice", "408", "cut connection", "bad JSON", "no choices"],
)
def test_what_is_lost_is_asked_for_again(faults: list[Any], expected: list[float] | None, waits: list[float]) -> None:
    with serving(lambda _, before: faults[before] if before < len(faults) else reply("fine")) as stub:
        (found,) = open_chat(base_url=stub.url)([ask("hello")])
    assert found.texts == ("fine",)
    assert len(stub.bodies) == 1 + len(faults)
    if expected is not None:
        assert waits == expected
    else:
        assert len(waits) == len(faults)
        assert all(0.3 < wait <= 0.5 * 2**number for number, wait in enumerate(waits))


@pytest.mark.parametrize(
    ("answer", "line", "attempts"),
    [
        (
            (401, {"error": {"message": f"bad key {KEY}"}}, {}),
            r"refuses \(401\): the key in OPENAI_API_KEY is not acc",
            1,
        ),
        ((400, {"error": {"message": f"no, {KEY}"}}, {}), r"answers with an error \(400\): no, \*\*\*", 1),
        (
            (404, {"error": {"message": "no such model"}}, {}),
            r"\(404\): no such model; is 'stub' one of its models\?",
            1,
        ),
        ((500, {}, {}), r"answers with an error \(500\)", 3),
        ("hang", r"^timeout: .* has not answered within 0.3 s", 3),
        ("[1", "has sent 3 replies without an answer in them", 3),
    ],
    ids=["401", "400", "404", "500 for ever", "hang", "bad JSON for ever"],
)
def test_what_is_refused_is_one_line_without_the_key(answer: Any, line: str, attempts: int, tmp_path: Path) -> None:
    with serving(lambda *_: answer) as stub:
        chat = open_chat(base_url=stub.url, retries=2, timeout=0.3, cache=tmp_path / "cache.sqlite")
        with pytest.raises(UserError, match=line) as caught:
            chat([ask("hello")])
        assert len(stub.bodies) == attempts
    assert "\n" not in str(caught.value)
    assert KEY not in f"{caught.value!r}{vars(chat.chat)}{chat.chat!r}"
    assert caught.value.__cause__ is None


def test_the_key_is_in_no_file(tmp_path: Path) -> None:
    with serving(lambda *_: reply("fine")) as stub:
        open_chat(base_url=stub.url, cache=tmp_path / "cache.sqlite")([ask("hello")])
    assert KEY.encode() not in (tmp_path / "cache.sqlite").read_bytes()


def test_replies_of_every_shape() -> None:
    parts = [{"type": "text", "text": "in "}, {"type": "text", "text": "parts"}]
    shapes = {
        "null": reply(None, finish="length"),
        "parts": reply(parts),  # type: ignore[arg-type]
        "long": reply("cut of", finish="length"),
        "thought": reply("<think>4?\n5.</think>\n\n5"),
        "only thought": reply("<think>so, what"),
        "no usage": {name: value for name, value in reply("fine").items() if name != "usage"},
    }
    with serving(lambda body, _: shapes[last(body)]) as stub:
        found = open_chat(base_url=stub.url)([ask(name) for name in shapes])
    assert [each.texts[0] for each in found] == ["", "in parts", "cut of", "5", "", "fine"]
    assert [each.finish[0] for each in found] == ["length", "stop", "length", "stop", "stop", "stop"]
    assert found[-1].prompt_tokens is None


def test_order_and_how_many_at_once() -> None:
    draw = random.Random(3)

    def slow(body: dict[str, Any], _: int) -> Any:
        time.sleep(draw.random() / 20)
        return reply(last(body))

    with serving(slow) as stub:
        found = open_chat(base_url=stub.url, concurrency=3)([ask(str(number)) for number in range(20)])
    assert [each.texts[0] for each in found] == [str(number) for number in range(20)]
    assert 2 <= stub.most <= 3


def test_a_server_that_gives_one_answer_at_a_time() -> None:
    with serving(lambda body, _: reply(f"{body['seed']}")) as stub:
        chat = open_chat(base_url=stub.url)
        (found,) = chat([ask("hello", n=3, temperature=1.0, seed=5)])
    assert found.texts == ("5", "6", "7")
    assert found.calls == chat.calls == len(stub.bodies) == 3
    assert found.prompt_tokens == 21


def test_parameters_that_a_server_does_not_know() -> None:
    def picky(body: dict[str, Any], _: int) -> Any:
        if "max_tokens" in body:
            return 400, {"error": {"message": "Use 'max_completion_tokens' instead.", "param": "max_tokens"}}, {}
        if "temperature" in body:
            return 400, {"error": {"message": "Unsupported value: 'temperature'", "param": "temperature"}}, {}
        return reply("fine")

    with serving(picky) as stub:
        chat = open_chat(base_url=stub.url)
        with pytest.warns(UserWarning, match="does not take temperature: it is left out"):
            chat([ask("one")])
        chat([ask("two")])
    assert len(stub.bodies) == 4
    assert stub.bodies[-1] == {
        "model": "stub", "messages": [{"role": "user", "content": "two"}], "max_completion_tokens": 256,
    }  # fmt: skip


def test_a_run_that_stops_pays_for_nothing_twice(tmp_path: Path) -> None:
    """A cap, a fault in the middle, a larger cap, then everything again with the server gone."""
    cache, requests = tmp_path / "cache.sqlite", [ask(str(number)) for number in range(10)]
    broken = True

    def answer(body: dict[str, Any], _: int) -> Any:
        return (500, {}, {}) if broken and last(body) == "6" else reply(last(body))

    with serving(answer) as stub:
        with pytest.raises(CallLimit, match="max_calls: 4 calls are used up, and 6 more are needed"):
            open_chat(base_url=stub.url, cache=cache, max_calls=4)(requests)
        assert len(stub.bodies) == 4
        with pytest.raises(UserError, match="500"):
            open_chat(base_url=stub.url, cache=cache, retries=0, concurrency=2)(requests)
        broken = False
        chat = open_chat(base_url=stub.url, cache=cache, max_calls=10)
        assert [each.texts[0] for each in chat(requests)] == [str(number) for number in range(10)]
        assert chat.cached + chat.calls == 10
        asked = [last(body) for body in stub.bodies]
        assert sorted(asked) == sorted([*map(str, range(10)), "6"])
        url = stub.url
    again = open_chat(base_url=url, api_model="stub", cache=cache)
    assert [each.texts[0] for each in again(requests)] == [str(number) for number in range(10)]
    assert (again.calls, again.cached) == (0, 10)
    with pytest.raises(UserError, match="no server answers at"):
        again([ask("something new")])


def test_bad_input(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with serving(lambda *_: reply("fine")) as stub:
        for options, line in [
            ({"base_url": stub.url, "max_calls": 0}, "max_calls: 0 allows no call"),
            ({}, "model: give a model or a base_url"),
            ({"base_url": "localhost:8000"}, "base_url: 'localhost:8000' is no address"),
            ({"base_url": "http://me:pass@localhost/v1"}, "leave the password out of it"),
            ({"base_url": stub.url, "concurrency": 0}, "concurrency: 0 cannot work"),
            ({"base_url": stub.url, "timeout": 0}, "timeout: 0 cannot work"),
        ]:
            with pytest.raises(UserError, match=line) as caught:
                open_chat(**options)
            assert "pass@" not in str(caught.value)
        stub.models = {"object": "list", "data": []}
        with pytest.raises(UserError, match="api_model: name one of the server's models"):
            open_chat(base_url=stub.url)
        stub.models = (401, {"error": {"message": "who are you?"}}, {})
        monkeypatch.delenv("OPENAI_API_KEY")
        with pytest.raises(UserError, match=r"refuses \(401\): OPENAI_API_KEY is not set"):
            open_chat(base_url=stub.url)
        url = stub.url
    with pytest.raises(UserError, match="no server answers at"):
        open_chat(base_url=url)
    (tmp_path / "cache.sqlite").write_text("this is no database, though it is long enough to be taken for one" * 20)
    with pytest.raises(UserError, match="cache: .* cannot be used as a cache of replies"):
        open_chat(base_url=url, api_model="stub", cache=tmp_path / "cache.sqlite")


def test_without_the_package(monkeypatch: pytest.MonkeyPatch) -> None:
    import importlib.util

    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"pip install 'dfolora\[api\]'"):
        open_chat(base_url="http://localhost:1/v1")


def test_a_reply_is_in_the_file_before_the_next_is_asked_for(tmp_path: Path) -> None:
    cache = tmp_path / "cache.sqlite"
    seen: list[int] = []

    def count(body: dict[str, Any], before: int) -> Any:
        with sqlite3.connect(cache) as file:
            seen.append(file.execute("select count(*) from replies").fetchone()[0])
        return reply("fine")

    with serving(count) as stub:
        open_chat(base_url=stub.url, cache=cache, concurrency=1)([ask(str(number)) for number in range(4)])
    assert seen == [0, 1, 2, 3]
