"""Files that appear whole or not at all."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from relprop.atomic import atomic_file, write_atomically


def test_a_file_is_replaced_in_one_step(tmp_path: Path) -> None:
    target = tmp_path / "result"
    write_atomically(target, b"old")
    with atomic_file(target) as part:
        part.write_bytes(b"new")
        assert target.read_bytes() == b"old"
    assert target.read_bytes() == b"new"
    assert [path.name for path in tmp_path.iterdir()] == ["result"]


def test_an_error_leaves_what_was_there(tmp_path: Path) -> None:
    target = tmp_path / "result"
    write_atomically(target, b"old")

    def fail() -> None:
        with atomic_file(target) as part:
            part.write_bytes(b"half")
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    assert target.read_bytes() == b"old"
    assert [path.name for path in tmp_path.iterdir()] == ["result"]


def test_an_error_of_the_disk_names_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(OSError, match="missing/result"):
        write_atomically(tmp_path / "missing/result", b"")

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match=r"No space left on device: .*result"):
        write_atomically(tmp_path / "result", b"content")
    assert list(tmp_path.iterdir()) == []
