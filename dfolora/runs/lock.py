"""The lock of a folder that one process at a time may write."""

from __future__ import annotations

from pathlib import Path

from filelock import FileLock, Timeout

from dfolora.errors import UserError


def locked(folder: Path, busy: str = "another process is writing") -> FileLock:
    """Take the lock of a folder that is there.

    Args:
        folder: gets a file ``lock``.
        busy: what another process does that has it.

    Raises:
        UserError: another process has it, or the folder cannot be written.
    """
    lock = FileLock(folder / "lock")
    try:
        lock.acquire(blocking=False)
    except Timeout as error:
        raise UserError(f"output: {busy} {str(folder)!r}; wait for it or stop it") from error
    except OSError as error:
        raise UserError(f"output: cannot write {str(folder)!r} ({error.strerror})") from error
    return lock
