"""The folder of a run: its lock, and whose results it holds."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from relprop.atomic import remove_parts
from relprop.runs.checkpoint import Checkpoint
from relprop.runs.folder import CHECKPOINT, begin, locked

HOLD = """
import sys, time
from pathlib import Path
from relprop.runs.folder import locked
with locked(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(60)
"""


def found(folder: Path) -> list[Path]:
    return [folder / name for name in ("result", CHECKPOINT) if (folder / name).exists()]


def test_one_run_at_a_time_writes_to_a_folder(tmp_path: Path) -> None:
    folder = tmp_path / "new" / "folder"
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, str(folder)], stdout=subprocess.PIPE
    ) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == b"held\n"
        with pytest.raises(BlockingIOError, match="another run is writing there"), locked(folder):
            pass
        other.kill()  # the lock goes with the process
    with locked(folder), pytest.raises(BlockingIOError), locked(folder):
        pass
    with locked(folder):
        pass


def test_a_new_run_begins_and_a_checkpoint_goes_on(tmp_path: Path) -> None:
    assert begin(tmp_path, found, {"model": "m"}) is None
    written = Checkpoint({"model": "m"}, b"state", 3)
    written.write(tmp_path / CHECKPOINT)
    assert begin(tmp_path, found, {"model": "m"}) == written
    with pytest.raises(FileExistsError, match="checkpoint exists already: take another folder"):
        begin(tmp_path, found, {"model": "m"}, resume=False)
    with pytest.raises(FileExistsError, match=r"another run \(model: m there, n here\)"):
        begin(tmp_path, found, {"model": "n"})
    assert begin(tmp_path, found, {"model": "n"}, force=True) is None
    assert found(tmp_path) == []


def test_results_without_a_checkpoint_are_kept(tmp_path: Path) -> None:
    (tmp_path / "result").write_text("of another program")
    with pytest.raises(FileExistsError, match="result exists already"):
        begin(tmp_path, found, {})
    assert (tmp_path / "result").exists()


def test_a_folder_in_the_place_of_a_file_is_no_results(tmp_path: Path) -> None:
    (tmp_path / "result").touch()
    (tmp_path / CHECKPOINT).mkdir()
    (tmp_path / CHECKPOINT / "mine").touch()
    for force in (False, True):
        with pytest.raises(FileExistsError, match="checkpoint: a folder, where a run has a file"):
            begin(tmp_path, found, {}, force=force)
    assert (tmp_path / "result").exists() and (tmp_path / CHECKPOINT / "mine").exists()


def test_parts_that_a_killed_run_left_are_removed_and_nothing_else(tmp_path: Path) -> None:
    (tmp_path / "maps").mkdir()
    parts = [tmp_path / ".a.csv.0123abcd.part", tmp_path / "maps" / ".b.png.ffffffff.part"]
    others = [tmp_path / ".mine.part", tmp_path / "a.part", tmp_path / "maps" / "b"]
    for path in (*parts, *others):
        path.touch()
    begin(tmp_path, found, {})
    assert not any(path.exists() for path in parts)
    assert all(path.exists() for path in others)
    remove_parts(tmp_path / "missing")  # nothing to do
