"""Writing files that appear whole or not at all, whenever the program or the machine stops."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


def write_atomically(target: Path, content: bytes) -> None:
    """Write a file in one step; an older one of that name stays until then.

    Raises
    ------
    OSError
        If it cannot be written; the message names the file.
    """
    with atomic_file(target) as part:
        part.write_bytes(content)


@contextmanager
def atomic_file(target: Path) -> Iterator[Path]:
    """Give a path to write to, and rename what is there to ``target`` at the end.

    Where the block raises, nothing is left behind and ``target`` is as it was.
    """
    part = target.with_name(f".{target.name}.{secrets.token_hex(4)}.part")
    try:
        with naming(target):
            yield part
            _to_disk(part, os.O_RDWR)
            part.replace(target)
            if os.name == "posix":  # elsewhere a folder cannot be opened
                _to_disk(target.parent, os.O_RDONLY)
    finally:
        part.unlink(missing_ok=True)


@contextmanager
def naming(target: Path) -> Iterator[None]:
    """Have an error of the disk name the file that is being written."""
    try:
        yield
    except OSError as error:
        if error.errno is None:  # a library's own
            raise OSError(f"{target}: {error}") from None
        raise OSError(error.errno, error.strerror, str(target)) from None


def remove_parts(folder: Path) -> None:
    """Remove the beginnings of files in a folder that a killed program left behind."""
    for part in folder.glob(f".*.{'[0-9a-f]' * 8}.part"):
        part.unlink()


def _to_disk(path: Path, flags: int) -> None:
    """Wait until a file's content, or a folder's list of names, is on the disk."""
    descriptor = os.open(path, flags)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
