"""Pushing to a stand-in for the Hub that runs on this machine: what arrives, and what never does."""

from __future__ import annotations

import base64
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from tiny_models import Command, csv_files, model

from dfolora.runs.hub import push

TOKEN = "hf_secretsecretsecret"


class Hub:
    """Takes commits, as the Hub does with small files.

    Attributes:
        files: path -> content that was committed.
        asked: method and path of every request.
        tokens: what stood in the requests' Authorization.
    """

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}
        self.asked: list[str] = []
        self.tokens: set[str | None] = set()
        self.status = 200
        hub = self

        class Handler(BaseHTTPRequestHandler):
            def answer(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                hub.asked.append(f"{self.command} {self.path}")
                hub.tokens.add(self.headers.get("Authorization"))
                status, values = hub.reply(self.path, body)
                text = json.dumps(values).encode()
                self.send_response(status)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(text)))
                self.end_headers()
                self.wfile.write(text)

            do_GET = do_POST = do_HEAD = answer

            def log_message(self, *_: Any) -> None: ...

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        self.address = f"http://127.0.0.1:{self.server.server_port}"

    def reply(self, path: str, body: bytes) -> tuple[int, dict[str, Any]]:
        if self.status != 200:
            return self.status, {"error": f"no write access for {TOKEN}"}
        if "/preupload/" in path:
            files = json.loads(body)["files"]
            return 200, {"files": [{"path": f["path"], "uploadMode": "regular", "shouldIgnore": False} for f in files]}
        if "/commit/" in path:
            for line in body.splitlines():
                said = json.loads(line)
                if said["key"] == "file":
                    self.files[said["value"]["path"]] = base64.b64decode(said["value"]["content"])
            return 200, {"commitUrl": f"{self.address}/me/reviews/commit/1", "commitOid": "1", "success": True}
        return 200, {"url": f"{self.address}/me/reviews", "name": "me/reviews", "id": "me/reviews"}


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """The stand-in, and an environment that leads to it."""
    made = Hub()
    monkeypatch.setenv("HF_ENDPOINT", made.address)
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    yield made
    made.server.shutdown()
    made.server.server_close()


def flags(folder: Path) -> list[object]:
    small = ["--method", "first-order", "--budget", "2", "--rank", "1", "--test-split", "none"]
    return ["tune", "--model", model("masked"), *csv_files(folder), *small, "--output", folder / "run"]


def test_a_run_is_pushed_with_its_card(command: Command, tmp_path: Path, hub: Hub) -> None:
    command.json(*flags(tmp_path), "--push-to-hub", "me/reviews")
    adapter = tmp_path / "run" / "adapter"
    assert set(hub.files) == {path.name for path in adapter.iterdir()} - {"dfolora.json"}
    for name, content in hub.files.items():
        assert content == (adapter / name).read_bytes()
    assert hub.files["README.md"].startswith(b"---\nbase_model:")
    assert hub.tokens == {f"Bearer {TOKEN}"}
    everything = [path.read_bytes() for path in (tmp_path / "run").rglob("*") if path.is_file()]
    assert not any(TOKEN.encode() in text for text in [*everything, command.out.encode(), command.err.encode()])
    assert push(tmp_path / "run", "me/reviews").startswith(hub.address)


def test_a_push_that_fails_keeps_the_run(command: Command, tmp_path: Path, hub: Hub) -> None:
    hub.status = 403
    assert command(*flags(tmp_path), "--push-to-hub", "me/reviews") == 2
    assert "--push-to-hub: 'me/reviews' was not pushed" in command.said[-1]
    assert f"try again with: dfolora push {tmp_path / 'run' / 'adapter'} me/reviews" in command.said[-1]
    assert TOKEN not in command.err
    assert (tmp_path / "run" / "scores.json").is_file()
    hub.status = 200
    assert command("push", tmp_path / "run" / "adapter", "me/reviews") == 0
    assert "adapter_model.safetensors" in hub.files


def test_what_a_push_needs_is_checked_before_the_search(
    command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("HF_TOKEN", raising=False)
    assert command(*flags(tmp_path), "--push-to-hub", "me/reviews") == 2
    assert "the environment has no HF_TOKEN" in command.err
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    assert command(*flags(tmp_path), "--push-to-hub", "my reviews") == 2
    assert "give OWNER/NAME" in command.err
    assert not (tmp_path / "run").exists()
    assert command("push", tmp_path, "me/reviews") == 2
    assert "holds no adapter" in command.err
