"""A server that we did not write, ``transformers serve``, with a tiny model: it says what the model says here."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import tiny_models

from dfolora import load_model
from dfolora.chat import Message, Request, open_chat
from dfolora.chat.local import LocalChat

for package in ("openai", "fastapi", "uvicorn"):
    pytest.importorskip(package)

TEMPLATE = "{% for m in messages %}Question : {{ m.content }} {% endfor %}Answer :"
SERVE = "from transformers.cli.transformers import main; main()"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    shutil.copytree(tiny_models.model("causal"), tmp_path / "model")
    (tmp_path / "model" / "chat_template.jinja").write_text(TEMPLATE, encoding="utf-8")
    return tmp_path / "model"


@pytest.fixture
def server(folder: Path, tmp_path: Path) -> Iterator[str]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    command = [sys.executable, "-c", SERVE, "serve", str(folder), "--host", "127.0.0.1", "--port", port]
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    with (tmp_path / "server.log").open("wb") as log:
        process = subprocess.Popen(
            [*command, "--device", "cpu", "--dtype", "float32"], env=environment, stdout=log, stderr=log
        )
        try:
            direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
            for _ in range(600):
                assert process.poll() is None, (tmp_path / "server.log").read_text()
                try:
                    with direct.open(f"http://127.0.0.1:{port}/health", timeout=5):
                        break
                except OSError:
                    time.sleep(0.3)
            yield f"http://127.0.0.1:{port}/v1"
        finally:
            process.kill()
            process.wait()


def test_it_says_what_the_model_says_here(server: str, folder: Path, tmp_path: Path) -> None:
    texts = ("the old film", "a very long way to the sea", "warm music")
    requests = [Request((Message("user", text),), max_tokens=6) for text in texts]
    drawn = replace(requests[0], temperature=1.0, n=2, seed=1)  # this server gives one text a call
    chat = open_chat(str(folder), server, cache=tmp_path / "replies.sqlite", timeout=60)
    replies = chat([*requests, drawn])
    here = LocalChat(load_model(str(folder)))(requests)
    assert [reply.texts[0].strip() for reply in replies[:3]] == [reply.texts[0] for reply in here]
    assert [reply.finish for reply in replies[:3]] == [reply.finish for reply in here]
    assert [reply.prompt_tokens for reply in replies[:3]] == [reply.prompt_tokens for reply in here]
    assert len(replies[3].texts) == 2
    assert chat.ledger.calls == 5
    assert all(reply.cached for reply in open_chat(str(folder), server, cache=tmp_path / "replies.sqlite")(requests))
