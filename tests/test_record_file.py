"""The file of a run's records: what it gives back, and what a checkpoint of it counts on."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from relprop.evaluation.record_file import Record, RecordFile
from scarce_disk import largest_file


def record(number: int, key: str | None = None) -> Record:
    """A record of 2 curves of 4 steps, and of 2 methods and one metric."""
    rng = np.random.default_rng(number)
    metrics = rng.standard_normal((2, 1))
    metrics[number % 2] = np.nan
    name = f"photos/{number}.jpg" if key is None else key
    return Record(name, number % 3 - 1, 1, 2, 0.5, rng.standard_normal((2, 4)), metrics)


def opened(path: Path, state: bytes | None = None) -> RecordFile:
    return RecordFile(path, (2, 4), (2, 1), state)


def assert_same(one: Record, other: Record) -> None:
    for name in ("key", "label", "predicted", "target", "score"):
        assert getattr(one, name) == getattr(other, name)
    np.testing.assert_array_equal(one.curves, other.curves)
    np.testing.assert_array_equal(one.metrics, other.metrics)


@given(st.lists(st.text(st.characters(exclude_categories=["Cs"])), max_size=5))
def test_records_come_back_as_they_were(
    tmp_path_factory: pytest.TempPathFactory, keys: list[str]
) -> None:
    file = opened(tmp_path_factory.mktemp("records") / "records")
    written = [record(number, key) for number, key in enumerate(keys)]
    for one in written:
        file.append(one)
    for _ in range(2):  # several passes
        for one, other in zip(written, file, strict=True):
            assert_same(one, other)
    assert file.count == len(keys)
    file.close()


def test_what_a_checkpoint_does_not_count_is_cut_off(tmp_path: Path) -> None:
    path = tmp_path / "records"
    file = opened(path)
    for number in range(3):
        file.append(record(number))
    state = file.state()
    whole = path.read_bytes()
    file.append(record(9))
    file.close()  # killed before another checkpoint
    again = opened(path, state)
    assert path.read_bytes() == whole
    again.append(record(3))
    for number, one in enumerate(again):
        assert_same(one, record(number))
    assert again.count == 4
    again.close()
    anew = opened(path)
    assert (anew.count, path.read_bytes()) == (0, b"")
    anew.close()


def test_an_empty_file_need_not_be_there(tmp_path: Path) -> None:
    file = opened(tmp_path / "records")
    state = file.state()
    file.close()
    (tmp_path / "records").unlink()
    again = opened(tmp_path / "records", state)
    assert list(again) == []
    again.close()


def test_a_file_that_is_not_what_the_checkpoint_counts_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "records"
    file = opened(path)
    file.append(record(0))
    state = file.state()
    file.close()
    whole = path.read_bytes()
    assert json.loads(state)["bytes"] == len(whole)
    for content, message in (
        (whole[:-1], "it has fewer"),
        (whole[:50] + b"\0" + whole[51:], "it has others"),
    ):
        path.write_bytes(content)
        with pytest.raises(
            ValueError, match=rf"records: must begin with the {len(whole)} bytes.*{message}"
        ):
            opened(path, state)
    path.unlink()
    with pytest.raises(ValueError, match="it has fewer"):
        opened(path, state)


def test_an_error_of_the_disk_names_the_file(tmp_path: Path) -> None:
    file = opened(tmp_path / "records")
    file.append(record(0))
    big = record(1, "key" * 2**20)
    with largest_file(100):
        for write in (lambda: file.append(big), file.state, file.close):
            with pytest.raises(OSError, match=r"File too large: .*records"):
                write()


def test_records_of_another_shape_are_refused(tmp_path: Path) -> None:
    file = RecordFile(tmp_path / "records", (2, 4), (3, 1))
    with pytest.raises(ValueError, match=r"metrics must have shape \(3, 1\), not \(2, 1\)"):
        file.append(record(0))
    file.close()
