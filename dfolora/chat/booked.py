"""Books what a chat costs: replies are kept in a file, so that none is paid for twice; calls are counted and capped."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import sqlite3
from collections.abc import Iterator, Sequence
from pathlib import Path

from dfolora.chat.base import CallLimit, Chat, Reply, Request
from dfolora.errors import UserError


class Booked(Chat):
    """A chat with a cache of its replies, a count, and a cap on calls.

    Every reply is in the file as soon as it has come: a process that is killed at any moment pays for none twice, and
    with all replies there it runs without the model or server.

    Attributes:
        calls, prompt_tokens, completion_tokens: paid for through this object.
        cached: replies that were there already.
    """

    def __init__(self, chat: Chat, cache: str | Path | None = None, max_calls: int | None = None) -> None:
        """Open the cache.

        Args:
            chat: what answers.
            cache: file of the cache, SQLite; None: in memory, for the life of this object.
            max_calls: most calls that may be in the cache, those of earlier runs included; None: no limit.

        Raises:
            UserError: a cap below 1, or a file that is no such cache.
        """
        if max_calls is not None and max_calls < 1:
            raise UserError(f"max_calls: {max_calls} allows no call; give 1 or more, or leave it out")
        self.chat, self.name, self.max_calls = chat, chat.name, max_calls
        self.calls = self.prompt_tokens = self.completion_tokens = self.cached = 0
        where = ":memory:" if cache is None else str(Path(cache).expanduser())
        try:
            self._file = sqlite3.connect(where, timeout=60)
            self._file.execute("create table if not exists replies (key text primary key, reply text, calls integer)")
            self._file.commit()
        except sqlite3.Error as error:
            raise UserError(f"cache: {where!r} cannot be used as a cache of replies ({error})") from error

    def replies(self, requests: Sequence[Request]) -> Iterator[tuple[int, Reply]]:
        """As ``Chat.replies``; requests that are equal are asked once.

        Raises:
            CallLimit: the cap is reached; all that may still be paid for has been.
        """
        places: dict[str, list[int]] = {}
        for place, request in enumerate(requests):
            places.setdefault(self.key(request), []).append(place)
        missing = []
        for key, equal in places.items():
            reply = self._look_up(key)
            if reply is None:
                missing.append(key)
                continue
            self.cached += len(equal)
            yield from ((place, reply) for place in equal)
        allowed = len(missing) if self.max_calls is None else max(0, self.max_calls - self.paid)
        asked = missing[:allowed]
        for number, reply in self.chat.replies([requests[places[key][0]] for key in asked]) if asked else ():
            key = asked[number]
            self._keep(key, reply)
            yield from ((place, reply) for place in places[key])
        if len(asked) < len(missing):
            raise CallLimit(
                f"max_calls: {self.max_calls} calls are used up, and {len(missing) - allowed} more are needed"
            )

    @property
    def paid(self) -> int:
        """Calls whose replies are in the cache, whoever has made them."""
        return int(self._file.execute("select coalesce(sum(calls), 0) from replies").fetchone()[0])

    def key(self, request: Request) -> str:
        """What tells a request from others: the model, the talk and how it is decoded. A greedy answer has no seed."""
        asked = dataclasses.asdict(request)
        if not request.temperature:
            asked["seed"] = None
        text = json.dumps({"model": self.name, **asked}, sort_keys=True, ensure_ascii=False)
        return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()

    def close(self) -> None:
        self._file.close()

    def _look_up(self, key: str) -> Reply | None:
        row = self._file.execute("select reply from replies where key = ?", (key,)).fetchone()
        if row is None:
            return None
        values = json.loads(row[0])
        values |= {"texts": tuple(values["texts"]), "finish": tuple(values["finish"]), "cached": True}
        return Reply(**values)

    def _keep(self, key: str, reply: Reply) -> None:
        self.calls += reply.calls
        self.prompt_tokens += reply.prompt_tokens or 0
        self.completion_tokens += reply.completion_tokens or 0
        values = json.dumps(dataclasses.asdict(reply), ensure_ascii=True)
        try:
            self._file.execute("insert or replace into replies values (?, ?, ?)", (key, values, reply.calls))
            self._file.commit()
        except sqlite3.Error as error:
            raise UserError(f"cache: a reply could not be written ({error})") from error
