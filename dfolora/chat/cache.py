"""Replies on disk: what was asked once is never asked again, in this run or in the next."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import sqlite3
import threading
import weakref
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from dfolora.chat.chat import Chat, Keep, Reply, Request, joined
from dfolora.errors import UserError

_TABLE = """create table if not exists replies (
    key text, place integer, model text, request text, reply text, primary key (key, place)
) without rowid"""


class CachedChat(Chat):
    """Asks another chat only what it was not asked before; each reply is committed as soon as it is there.

    A request is known by the model's name, what is said, and how it is decoded, n and seed included. Of a request for n
    texts, those that are there count: only the others are asked for.
    """

    def __init__(self, chat: Chat, path: str | Path | None = None) -> None:
        """Open the cache.

        Args:
            chat: answers what is not there.
            path: an SQLite file, made where there is none; None: keep replies in memory.

        Raises:
            UserError: it cannot be opened, or is something else.
        """
        super().__init__(chat.name, chat.ledger)
        self.chat = chat
        self.path = None if path is None else Path(path).expanduser()
        self._lock = threading.Lock()
        try:
            if self.path is not None:
                self.path.parent.mkdir(parents=True, exist_ok=True)
            # Several processes may share the file: each waits for the others.
            self._table = sqlite3.connect(self.path or ":memory:", timeout=60, check_same_thread=False)
            weakref.finalize(self, self._table.close)
            with self._table:
                self._table.execute(_TABLE)
                self._table.execute("select key, place, model, request, reply from replies limit 1")
        except (OSError, sqlite3.Error) as error:
            raise UserError(
                f"cache: {str(self.path)!r} cannot be used ({error}); name a file that can be written, or none yet"
            ) from error

    def answer(self, requests: Sequence[Request], keep: Keep) -> None:
        wanted: dict[str, list[int]] = {}
        for number, request in enumerate(requests):
            wanted.setdefault(self.key(request), []).append(number)
        keys: list[str] = []
        missing: list[Request] = []
        for key, numbers in wanted.items():
            request = requests[numbers[0]]
            known = self._read(key)
            texts = len(known.texts) if known else 0
            if known:
                for number in numbers:
                    keep(number, known)
            if texts >= request.n:
                for _ in numbers:
                    self.ledger.replay()
                continue
            seed = None if request.seed is None else request.seed + texts
            keys.append(key)
            missing.append(replace(request, n=request.n - texts, seed=seed))
        if missing:
            places = [requests[wanted[key][0]].n - rest.n for key, rest in zip(keys, missing, strict=True)]

            def keep_part(index: int, reply: Reply) -> None:
                key = keys[index]
                first, *others = wanted[key]
                with self._lock:
                    self._write(key, places[index], requests[first], reply)
                    places[index] += len(reply.texts)
                keep(first, reply)
                for number in others:  # the same request once more
                    keep(number, replace(reply, cached=True))

            self.chat.answer(missing, keep_part)
            for key in keys:
                for _ in wanted[key][1:]:
                    self.ledger.replay()

    def key(self, request: Request) -> str:
        """What a request is known by: a hash of the model's name and all that the request says."""
        return hashlib.sha256(json.dumps([self.name, dataclasses.asdict(request)]).encode()).hexdigest()

    def _read(self, key: str) -> Reply | None:
        try:
            rows = self._table.execute("select reply from replies where key = ? order by place", (key,)).fetchall()
            parts = [json.loads(row[0]) for row in rows]
            replies = [
                Reply(**{**part, "texts": tuple(part["texts"]), "finish": tuple(part["finish"])}, cached=True)
                for part in parts
            ]
        except (sqlite3.Error, ValueError, TypeError, KeyError, RecursionError) as error:
            raise UserError(f"cache: {str(self.path)!r} is damaged ({error!s:.100}); name another file") from error
        return joined(replies) if replies else None

    def _write(self, key: str, place: int, request: Request, reply: Reply) -> None:
        content = {name: value for name, value in dataclasses.asdict(reply).items() if name != "cached"}
        row = (key, place, self.name, json.dumps(dataclasses.asdict(request)), json.dumps(content))
        try:
            with self._table:
                self._table.execute("insert or ignore into replies values (?, ?, ?, ?, ?)", row)
        except sqlite3.Error as error:  # no room on the disk, a file that was taken away
            raise UserError(f"cache: a reply cannot be written to {str(self.path)!r} ({error})") from error
