"""What the engine needs of a model that is tuned, whether through an adapter or in all its weights."""

from __future__ import annotations

import os
import secrets
import shutil
from abc import ABC, abstractmethod
from collections.abc import Hashable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dfolora.errors import UserError

if TYPE_CHECKING:
    from dfolora.models.adapter import Factors, Layer


class TunedModel(ABC):
    """A model and its layers.

    Attributes:
        layers: the transformer blocks that are tuned, in the order of their names in the model.
        versions: per layer, how often its weights were changed; caches of hidden states compare it.
        active: per layer, whether it holds an adapter that adds something.
        learned: what the engine has found out about the model, by what it depends on.
    """

    layers: list[Layer]
    versions: list[int]
    active: list[bool]
    learned: dict[Hashable, Any]

    @property
    @abstractmethod
    def model(self) -> Any:
        """The unwrapped model, whose forward takes the model's own arguments."""

    def moved(self, layer: int) -> None:
        """To be called once a layer's weights have been changed in place."""
        self.versions[layer] += 1

    @abstractmethod
    def state(self) -> list[Factors]:
        """A copy of what is tuned, by layer, for ``restore``; empty where it is not kept in memory."""

    @abstractmethod
    def restore(self, state: Sequence[Factors]) -> None:
        """Write what ``state`` gave."""

    @abstractmethod
    def clear(self) -> None:
        """Make it the base model again, as far as that is a matter of weights."""

    def save(self, folder: Path, texts: Mapping[str, str], tokenizer: Any = None) -> None:
        """Write a folder that can be loaded again, whole or not at all.

        Args:
            folder: replaced where it is there.
            texts: file name -> content of what else goes into it, such as the model card ``README.md``.
            tokenizer: is saved into it as well; None: none.
        """
        for left in folder.parent.glob(folder.name + ".partial-*"):  # by a process that was killed
            shutil.rmtree(left, ignore_errors=True)
        partial = folder.with_name(f"{folder.name}.partial-{os.getpid()}-{secrets.token_hex(4)}")
        try:
            partial.mkdir()
            self._fill(partial, texts, tokenizer)
        except BaseException as error:  # a full disk, or Ctrl-C: nothing half written stays
            shutil.rmtree(partial, ignore_errors=True)
            if isinstance(error, OSError) or "os error" in str(error):  # safetensors and tokenizers have their own
                raise UserError(f"output: cannot write {str(folder)!r} ({error!s:.100})") from error
            raise
        if folder.is_symlink():
            folder.unlink()
        shutil.rmtree(folder, ignore_errors=True)
        partial.rename(folder)

    def _fill(self, partial: Path, texts: Mapping[str, str], tokenizer: Any) -> None:
        self._write_folder(partial)
        if tokenizer is not None:
            tokenizer.save_pretrained(str(partial))
        for name, text in texts.items():
            (partial / name).write_text(text, encoding="utf-8")
        (partial / ".mode").touch()
        mode = (partial / ".mode").stat().st_mode  # what the umask allows; safetensors allows the owner alone
        (partial / ".mode").unlink()
        for file in partial.rglob("*"):
            if file.is_file():
                file.chmod(mode)

    @abstractmethod
    def _write_folder(self, folder: Path) -> None:
        """Write what is tuned, without the card, into a folder that is there."""
