"""The key of a server: read from the environment, and nowhere to be seen."""

from __future__ import annotations

import os
import re

from dfolora.errors import UserError

_NAME = re.compile(r"[A-Z_][A-Z0-9_]*")
USUAL = "OPENAI_API_KEY"


class Secret:
    """A key that no text shows.

    Attributes:
        variable: the environment variable that holds it.
    """

    def __init__(self, variable: str = USUAL) -> None:
        """Read the key.

        Args:
            variable: name of the environment variable. The usual one may be absent, as servers at home want no key.

        Raises:
            UserError: another variable that is not there, or a key that no header can hold. The key is not in it.
        """
        if not _NAME.fullmatch(variable):
            raise UserError(
                "key_variable: that is no name of an environment variable (capitals, digits, _); it is not shown in "
                f"case it is the key itself; say for example {USUAL}"
            )
        key = os.environ.get(variable, "").strip()
        if not key and variable != USUAL:
            raise UserError(f"key_variable: {variable} is not set in the environment")
        if not (key.isascii() and key.isprintable()) or " " in key:
            raise UserError(f"key_variable: what {variable} holds is no key (one word of plain letters and signs)")
        self.variable = variable
        self._key = key

    def __repr__(self) -> str:
        return f"Secret({self.variable})"

    def __bool__(self) -> bool:
        return bool(self._key)

    def reveal(self) -> str:
        """The key, for the header that carries it; a word that is none where there is no key."""
        return self._key or "none"

    def hide(self, text: str) -> str:
        """The text without the key in it."""
        return text.replace(self._key, "***") if self._key else text
