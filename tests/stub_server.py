"""A server on this machine that speaks as OpenAI's does, and misbehaves as it is told."""

from __future__ import annotations

import contextlib
import json
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Answer = Callable[[dict[str, Any], int], Any]
"""(request's body, how many came before) -> a reply's body; (status, body, headers); 'cut', 'hang' or raw text."""


def reply(*texts: str | None, finish: str = "stop", **more: Any) -> dict[str, Any]:
    choices = [
        {"index": place, "finish_reason": finish, "message": {"role": "assistant", "content": text}}
        for place, text in enumerate(texts)
    ]
    usage = {"prompt_tokens": 7, "completion_tokens": 3, "total_tokens": 10}
    return {"id": "r", "object": "chat.completion", "created": 0, "model": "stub", "choices": choices, "usage": usage,
            **more}  # fmt: skip


def last(body: dict[str, Any]) -> str:
    return str(body["messages"][-1]["content"])


class Stub:
    """What has been asked, with which headers, and how many at once at most."""

    def __init__(self, answer: Answer) -> None:
        self.answer = answer
        self.bodies: list[dict[str, Any]] = []
        self.keys: list[str] = []
        self.models: Any = {
            "object": "list",
            "data": [{"id": "stub", "object": "model", "created": 0, "owned_by": "us"}],
        }
        self.now = self.most = 0
        self.lock = threading.Lock()
        self.url = ""

    def talk(self, handler: BaseHTTPRequestHandler) -> None:
        body = json.loads(handler.rfile.read(int(handler.headers["Content-Length"])))
        with self.lock:
            before = len(self.bodies)
            self.bodies.append(body)
            self.keys.append(str(handler.headers["Authorization"]))
            self.now += 1
            self.most = max(self.most, self.now)
        try:
            self.send(handler, self.answer(body, before))
        finally:
            with self.lock:
                self.now -= 1

    def send(self, handler: BaseHTTPRequestHandler, answer: Any) -> None:
        status, headers = 200, {}
        if isinstance(answer, tuple):
            status, answer, headers = answer
        if answer == "hang":
            time.sleep(1.0)
            return
        text = answer if isinstance(answer, str) else json.dumps(answer)
        cut = text == "cut"
        data = (json.dumps(reply("never whole")) if cut else text).encode()
        handler.send_response(status)
        handler.send_header("Content-Type", "application/json")
        handler.send_header("Content-Length", str(len(data)))
        for name, value in headers.items():
            handler.send_header(name, value)
        handler.end_headers()
        handler.wfile.write(data[:10] if cut else data)
        if cut:
            handler.close_connection = True


@contextlib.contextmanager
def serving(answer: Answer) -> Iterator[Stub]:
    stub = Stub(answer)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            stub.send(self, stub.models)

        def do_POST(self) -> None:
            stub.talk(self)

        def log_message(self, *_: Any) -> None: ...

        def handle(self) -> None:
            with contextlib.suppress(BrokenPipeError, ConnectionResetError):  # the client has given up
                super().handle()

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    stub.url = f"http://127.0.0.1:{server.server_address[1]}/v1"
    try:
        yield stub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
