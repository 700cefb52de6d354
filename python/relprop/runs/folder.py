"""The folder of a run: whose it is, what it holds, and that one run at a time writes there."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from shutil import rmtree

from filelock import FileLock, Timeout

from relprop.atomic import remove_parts
from relprop.runs.checkpoint import Checkpoint
from relprop.runs.fingerprint import Fingerprint, differences

CHECKPOINT = "checkpoint"
LOCK = ".lock"

FOLDERS = ".zarr"
"""What the names of those results end in that are folders; all others are files."""

Found = Callable[[Path], list[Path]]
"""Lists the files of a run that are in a folder, first the one that is written last."""

RESULTS = {"aggregate": "relprop.aggregation.results", "evaluate": "relprop.evaluation.results"}
"""By the command that a fingerprint names, the module whose ``results_in`` knows its files.

A run imports another command's only where it overwrites its results.
"""


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Make a folder, and keep other runs out of it; where the process ends, the lock does.

    Raises
    ------
    BlockingIOError
        If another run is writing there.
    """
    folder.mkdir(parents=True, exist_ok=True)
    lock = FileLock(folder / LOCK, timeout=0)
    try:
        lock.acquire()
    except Timeout:
        raise BlockingIOError(f"{folder}: another run is writing there: take another.") from None
    try:
        yield
    finally:
        lock.release()


def begin(
    folder: Path,
    found: Found,
    fingerprint: Fingerprint,
    *,
    resume: bool = True,
    force: bool = False,
) -> Checkpoint | None:
    """Make a folder ready for a run, and return the checkpoint from which the run goes on.

    With ``force``, files of an earlier run are removed, whichever command's that was.

    Raises
    ------
    FileExistsError
        If the folder holds results of another run; the message says what differs. If a folder is
        where a file would be, nothing is removed, whatever ``force`` says.
    """
    known = found(folder)
    if force:
        known += _of_another_command(folder, fingerprint)
    for path in known:
        if path.is_dir() and path.suffix != FOLDERS:
            raise FileExistsError(f"{path}: a folder, where a run has a file: take another folder.")
    for place in (folder, *(one for one in folder.iterdir() if one.is_dir())):
        remove_parts(place)  # that a killed run left behind
    if force:
        _remove(folder, known)
    there = found(folder)
    if not there:
        return None
    advice = "take another folder, or overwrite it (force, --force)."
    if not (folder / CHECKPOINT).exists() or not resume:
        raise FileExistsError(f"{there[0]} exists already: {advice}")
    checkpoint = Checkpoint.read(folder / CHECKPOINT)
    differing = differences(checkpoint.fingerprint, fingerprint)
    if differing:
        raise FileExistsError(f"{folder} holds another run ({'; '.join(differing)}): {advice}")
    return checkpoint


def _of_another_command(folder: Path, fingerprint: Fingerprint) -> list[Path]:
    """List the files of another command's run, if the checkpoint is one's.

    Names alone would not tell: where no such run was, a file of that name is the user's.
    """
    try:
        command = Checkpoint.read(folder / CHECKPOINT).fingerprint.get("command")
    except (OSError, ValueError):
        return []
    if command not in RESULTS or command == fingerprint.get("command"):
        return []
    found: Found = import_module(RESULTS[command]).results_in
    return found(folder)


def _remove(folder: Path, paths: list[Path]) -> None:
    """Remove a run's files, and folders in the run's own that are empty then.

    The checkpoint, which says whose they are, goes last: who is stopped here can begin again.
    """
    for path in sorted(set(paths), key=lambda path: path.name == CHECKPOINT):
        rmtree(path) if path.is_dir() else path.unlink()
    for place in {path.parent for path in paths} - {folder}:
        if not any(place.iterdir()):
            place.rmdir()
