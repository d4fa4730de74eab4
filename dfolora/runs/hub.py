"""Push an adapter and its card to the Hugging Face Hub. The token comes from HF_TOKEN and is written nowhere."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from dfolora.errors import UserError
from dfolora.settings.build import settings
from dfolora.settings.tools import PushSettings

TOKEN = "HF_TOKEN"
LOCAL = ("dfolora.json", "lock")  # the first names files of this machine


def check_push(repository: str) -> str:
    """The token for a push, before anything has been done for it.

    Raises:
        UserError: there is none in the environment, or the repository's name cannot be one.
    """
    from huggingface_hub.utils import HFValidationError, validate_repo_id

    try:
        validate_repo_id(repository)
        if repository.count("/") != 1:
            raise HFValidationError
    except HFValidationError:
        raise UserError(f"push_to_hub: {repository!r} is no repository; give OWNER/NAME") from None
    token = os.environ.get(TOKEN, "").strip()
    if not token:
        raise UserError(f"push_to_hub: the environment has no {TOKEN}; make a token with write access and export it")
    return token


def push(run: str | Path | Any, repository: str, **options: Any) -> str:
    """Push the adapter of a run (or the model, where a run tuned all weights) and its card.

    Args:
        run: a ``Run``, its folder, or the folder of an adapter or model.
        repository: ``owner/name``; it is made where it is not there.
        options: those of ``dfolora push``: ``private``.

    Returns:
        The address of what was pushed.

    Raises:
        UserError: no token in HF_TOKEN, nothing to push, or the Hub refused; the folder stays as it is.
    """
    chosen = settings(PushSettings, **options)
    token = check_push(repository)
    folder = _folder(Path(getattr(run, "folder", run)).expanduser())
    from huggingface_hub import HfApi

    try:
        api = HfApi(endpoint=os.environ.get("HF_ENDPOINT") or None, token=token)
        api.create_repo(repository, private=chosen.private or None, exist_ok=True)
        found = api.upload_folder(
            repo_id=repository,
            folder_path=str(folder),
            commit_message="dfolora: an adapter and its card",
            ignore_patterns=list(LOCAL),
        )
        return str(getattr(found, "commit_url", repository))
    except Exception as error:  # the network, the Hub, or the library between
        reason = " ".join((str(error).strip() or type(error).__name__).split()).replace(token, "...")
        raise UserError(
            f"push_to_hub: {repository!r} was not pushed ({reason:.300}); everything is kept in {str(folder)!r}, "
            f"try again with: dfolora push {folder} {repository}"
        ) from None


def _folder(folder: Path) -> Path:
    """What is pushed of a folder."""
    for each in (folder / "adapter", folder / "model", folder):
        if (each / "adapter_config.json").is_file() or (each / "config.json").is_file():
            return each
    raise UserError(f"push: {str(folder)!r} holds no adapter and no model")
