"""Relevance maps kept on disk, as Zarr and for ViRelAy."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from relprop.aggregation import kept_maps
from relprop.aggregation.kept_maps import KeptMap, KeptMaps
from scarce_disk import largest_file

SHAPE, OUTPUTS, ROWS = (3, 4, 5), 2, 4
NAMES = ("cat", "dog")


@pytest.fixture(autouse=True)
def small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("ZARR_BYTES", "HDF5_BYTES"):
        monkeypatch.setattr(kept_maps, name, ROWS * 3 * 4 * 5 * 4 + 1)


@pytest.fixture(params=["zarr", "virelay"])
def kind(request: pytest.FixtureRequest) -> str:
    pytest.importorskip({"zarr": "zarr", "virelay": "h5py"}[request.param])
    kind: str = request.param
    return kind


def some_maps(count: int) -> list[KeptMap]:
    rng = np.random.default_rng(0)
    return [
        KeptMap(
            rng.standard_normal(SHAPE).astype(np.float32),
            rng.standard_normal(OUTPUTS).astype(np.float32),
            index % OUTPUTS,
            index * 3,
        )
        for index in range(count)
    ]


def opened(folder: Path, kind: Any, **options: Any) -> KeptMaps:
    return KeptMaps(folder, kind, SHAPE, NAMES, **options)


def read(folder: Path) -> Iterator[dict[str, Any]]:
    """The parts that other programs would find."""
    for path in sorted(folder.glob("attributions-*.h5")):
        import h5py

        with h5py.File(path) as file:
            yield {name: file[name][:] for name in file}
    if (folder / "maps.zarr").exists():
        import zarr

        yield {name: array[:] for name, array in zarr.open_group(folder / "maps.zarr").arrays()}


def check(folder: Path, expected: list[KeptMap]) -> None:
    parts = list(read(folder))
    found = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    assert len(found["index"]) == len(expected)
    for row, one in enumerate(expected):
        assert np.array_equal(found["attribution"][row], one.relevance)
        assert np.array_equal(found["prediction"][row], one.scores)
        assert (found["label"][row], found["index"][row]) == (one.target, one.index)


@pytest.mark.parametrize("count", [1, ROWS, 2 * ROWS + 3])
def test_maps_are_kept_in_order(tmp_path: Path, kind: str, count: int) -> None:
    maps = opened(tmp_path, kind)
    for one in some_maps(count):
        maps.add(one)
    maps.flush()
    check(tmp_path, some_maps(count))


@pytest.mark.parametrize("stopped", [0, 1, ROWS - 1, ROWS, ROWS + 1, 2 * ROWS])
@pytest.mark.parametrize("further", [0, 1, ROWS, ROWS + 2])
def test_a_run_that_goes_on_neither_loses_nor_doubles_maps(
    tmp_path: Path, kind: str, stopped: int, further: int
) -> None:
    """What was kept after the last checkpoint is written again."""
    expected = some_maps(3 * ROWS + 2)
    maps = opened(tmp_path, kind)
    for one in expected[:stopped]:
        maps.add(one)
    maps.flush()
    for one in expected[stopped : stopped + further]:
        maps.add(one)
    maps.flush()
    maps = opened(tmp_path, kind, count=stopped)
    for one in expected[stopped:]:
        maps.add(one)
    maps.flush()
    check(tmp_path, expected)


def test_an_error_of_the_disk_names_the_file(tmp_path: Path, kind: str) -> None:
    maps = opened(tmp_path, kind)
    for one in some_maps(1):
        maps.add(one)
    name = {"zarr": r"maps\.zarr", "virelay": r"attributions-00000\.h5"}[kind]
    with largest_file(50), pytest.raises(OSError, match=f"File too large.*{name}"):
        maps.flush()


def test_float16_takes_half_the_room(tmp_path: Path) -> None:
    zarr = pytest.importorskip("zarr")
    maps = opened(tmp_path, "zarr", dtype="float16")
    (one,) = some_maps(1)
    maps.add(one)
    maps.flush()
    kept = zarr.open_group(tmp_path / "maps.zarr")["attribution"]
    assert kept.dtype == np.float16
    np.testing.assert_allclose(kept[0], one.relevance, rtol=1e-3)
    with pytest.raises(ValueError, match=r"relevance up to 7e\+04 is beyond float16"):
        maps.add(KeptMap(np.full(SHAPE, 7e4, np.float32), one.scores, 0, 1))


def test_what_cannot_be_kept_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="as zarr or virelay, not 'npz'"):
        opened(tmp_path, "npz")
    with pytest.raises(ValueError, match="kept as virelay cannot be float16"):
        opened(tmp_path, "virelay", dtype="float16")


def test_virelay_reads_the_files(tmp_path: Path) -> None:
    model = pytest.importorskip("virelay.model", reason="needs ViRelAy and what it imports")
    expected = some_maps(ROWS + 1)
    maps = opened(tmp_path, "virelay")
    for one in expected:
        maps.add(one)
    maps.flush()
    label_map = model.LabelMap(str(tmp_path / "label-map.json"))
    sources = [
        model.AttributionDatabase(str(path), label_map)
        for path in sorted(tmp_path.glob("attributions-*.h5"))
    ]
    assert len(sources) == 2
    for one in expected:
        (source,) = (source for source in sources if source.has_attribution(one.index))
        read = source.get_attribution(one.index)
        assert np.array_equal(np.moveaxis(read.data, 2, 0), one.relevance)
        assert np.array_equal(read.prediction, one.scores)
        assert [label.name for label in read.labels] == [NAMES[one.target]]
    assert not any(source.has_attribution(1) for source in sources)
    for source in sources:
        source.close()
