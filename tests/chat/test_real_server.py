"""A real server on this machine, ``transformers serve``, asked as any other: it says what the model says here."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from tiny_models import model as folder_of

from dfolora.chat import Message, Request, open_chat
from dfolora.errors import UserError

pytest.importorskip("openai")
pytest.importorskip("fastapi")
pytest.importorskip("uvicorn")
TEMPLATE = "{% for m in messages %}{{ m.content }} {% endfor %}"


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, str]]:
    """Address of a server, and the folder of the model that it is asked for."""
    home = tmp_path_factory.mktemp("served")
    folder = home / "model"
    shutil.copytree(folder_of("causal"), folder)
    config = json.loads((folder / "tokenizer_config.json").read_text())
    (folder / "tokenizer_config.json").write_text(json.dumps({**config, "chat_template": TEMPLATE}))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    start = "from transformers.cli.transformers import main; main()"
    where = ["--host", "127.0.0.1", "--port", str(port), "--device", "cpu", "--dtype", "float32"]
    command = [sys.executable, "-c", start, "serve", *where]
    said = (home / "log.txt").open("w")
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    server = subprocess.Popen(command, stdout=said, stderr=subprocess.STDOUT, env=environment)
    try:
        for _ in range(600):
            if server.poll() is not None:
                pytest.fail("it ended: " + (home / "log.txt").read_text()[-1500:])
            with socket.socket() as knock:
                if knock.connect_ex(("127.0.0.1", port)) == 0:
                    break
            time.sleep(0.1)
        yield f"http://127.0.0.1:{port}/v1", str(folder)
    finally:
        server.kill()
        server.wait()
        said.close()


def test_it_says_what_the_model_says_here(served: tuple[str, str], tmp_path: Path) -> None:
    url, folder = served
    asked = [Request((Message("user", text),), max_tokens=6) for text in ("a good film", "the plot was dull", "bad")]
    chat = open_chat(base_url=url, api_model=folder, cache=tmp_path / "cache.sqlite")
    theirs = chat(asked)
    ours = open_chat(folder, template=True, dtype="float32")(asked)
    assert [reply.texts[0].strip() for reply in theirs] == [reply.texts[0] for reply in ours]
    assert chat.calls == 3
    assert [reply.texts for reply in chat(asked)] == [reply.texts for reply in theirs]
    assert (chat.calls, chat.cached) == (3, 3)


def test_a_model_that_it_does_not_have(served: tuple[str, str]) -> None:
    url, _ = served
    with pytest.raises(UserError, match="^base_url: .* answers with an error") as caught:
        open_chat(base_url=url, api_model="/no/such/model", retries=0)([Request((Message("user", "a"),))])
    assert "\n" not in str(caught.value)
