"""A server of OpenAI's chat protocol that misbehaves as it is told, on this machine and at a free port."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@dataclass
class Answer:
    """What the server does with a call.

    Attributes:
        content: of the reply: JSON, or text as it is.
        status, headers: of the reply.
        delay: seconds before it.
        cut: whether the connection is closed after half of it.
    """

    content: Any
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    delay: float = 0.0
    cut: bool = False


def said(*texts: Any, finish: str = "stop", usage: Any = (5, 2), **message: Any) -> Answer:
    """A proper reply of some texts."""
    choices = [
        {"index": k, "message": {"role": "assistant", "content": text, **message}, "finish_reason": finish}
        for k, text in enumerate(texts)
    ]
    content: dict[str, Any] = {"id": "1", "object": "chat.completion", "model": "m", "choices": choices}
    if usage:
        content["usage"] = {"prompt_tokens": usage[0], "completion_tokens": usage[1]}
    return Answer(content)


def error(status: int, message: str, param: str | None = None, **headers: str) -> Answer:
    headers = {name.replace("_", "-"): value for name, value in headers.items()}
    return Answer({"error": {"message": message, "param": param, "code": None}}, status, headers)


class Stub:
    """What the server was asked, and what it answers.

    Attributes:
        url: its base url.
        asked: the bodies of all calls, in the order in which they came.
        keys: their Authorization headers.
        most: most calls that were in the server at once.
    """

    def __init__(self) -> None:
        self.rule: Callable[[int, dict[str, Any]], Answer] = lambda number, body: said("fine")
        self.asked: list[dict[str, Any]] = []
        self.keys: list[str] = []
        self.inside = self.most = 0
        self.url = ""
        self.lock = threading.Lock()

    def script(self, *answers: Answer) -> None:
        """Answer call by call; the last one over and over."""
        self.rule = lambda number, body: answers[min(number, len(answers) - 1)]


@contextmanager
def running() -> Iterator[Stub]:
    stub = Stub()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            self.send(Answer({"object": "list", "data": [{"id": "only-one", "object": "model"}]}))

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            with stub.lock:
                number = len(stub.asked)
                stub.asked.append(body)
                stub.keys.append(self.headers.get("Authorization", ""))
                stub.inside += 1
                stub.most = max(stub.most, stub.inside)
            answer = stub.rule(number, body)
            time.sleep(answer.delay)
            with stub.lock:
                stub.inside -= 1
            self.send(answer)

        def send(self, answer: Answer) -> None:
            content = answer.content if isinstance(answer.content, str) else json.dumps(answer.content)
            data = content.encode()
            try:
                self.send_response(answer.status)
                for name, value in {"Content-Type": "application/json", **answer.headers}.items():
                    self.send_header(name, value)
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data[: len(data) // 2] if answer.cut else data)
            except OSError:  # the caller has gone
                self.close_connection = True
            if answer.cut:
                self.close_connection = True

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    stub.url = f"http://127.0.0.1:{server.server_address[1]}/v1"
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield stub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
