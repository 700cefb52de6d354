"""Relevance maps kept on disk: as Zarr arrays, or as HDF5 files that ViRelAy opens.

Both grow part by part. A part that is not full yet is written at every checkpoint and once more
when it is full, so that a run which was killed goes on without a gap, and ends with the same files.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol, get_args

import numpy as np
from numpy.typing import NDArray

from relprop.atomic import atomic_file, naming, write_atomically
from relprop.optional import import_optional

Kind = Literal["zarr", "virelay"]
KINDS = get_args(Kind)

FILES = ("maps.zarr", "attributions-*.h5", "label-map.json")
"""What a folder with maps may hold."""

ZARR_BYTES, HDF5_BYTES = 16 * 2**20, 128 * 2**20
"""How large a part of maps is, about: a chunk in Zarr, a file for ViRelAy."""

Rows = dict[str, NDArray[Any]]
"""A part's arrays by their names, the samples along the first axis."""

Types = dict[str, tuple[tuple[int, ...], Any]]
"""The shape of one sample's row, and the type of its numbers, by the array's name."""


@dataclass(frozen=True)
class KeptMap:
    """One sample's relevance (channels, height, width), scores and explained class.

    ``index`` is the item's position in the dataset.
    """

    relevance: NDArray[np.float32]
    scores: NDArray[np.float32]
    target: int
    index: int


class Store(Protocol):
    """Where parts are written."""

    def read(self, number: int, count: int) -> Rows:
        """Return the first ``count`` samples of a part."""

    def write(self, number: int, rows: Rows) -> None:
        """Write a part in place of what is there of it."""

    def cut(self, parts: int, samples: int) -> None:
        """Remove what is beyond the first ``parts`` parts, ``samples`` samples in all."""


class KeptMaps:
    """The maps of a run, in the order in which they are added.

    Parameters
    ----------
    folder
        Where they go: ``maps.zarr`` or ``attributions-00000.h5`` and so on.
    kind
        ``"zarr"`` or ``"virelay"``.
    shape
        Of a map.
    names
        What the model's outputs are called; ViRelAy reads this in a file of its own.
    dtype
        ``"float32"``, or ``"float16"`` for half the room: three digits, and less where values are
        below 6e-5. Zarr only.
    count
        How many maps there are already, of a run that goes on.

    Raises
    ------
    ImportError
        If the package that writes them is not installed.
    """

    def __init__(
        self,
        folder: Path,
        kind: Kind,
        shape: tuple[int, ...],
        names: Sequence[str],
        dtype: str = "float32",
        count: int = 0,
    ) -> None:
        if kind not in KINDS:
            raise ValueError(f"maps can be kept as {' or '.join(KINDS)}, not {kind!r}.")
        if dtype not in ("float32", "float16") or (kind == "virelay" and dtype != "float32"):
            raise ValueError(f"maps kept as {kind} cannot be {dtype}.")
        types: Types = {
            "attribution": (shape, np.dtype(dtype)),
            "prediction": ((len(names),), np.dtype(np.float32)),
            "label": ((), np.dtype(np.uint32)),
            "index": ((), np.dtype(np.uint32)),
        }
        one_map = int(np.prod(shape)) * np.dtype(dtype).itemsize
        room = ZARR_BYTES if kind == "zarr" else HDF5_BYTES
        self._rows_per_part = rows = max(1, room // one_map)
        self._part = {name: np.zeros((rows, *of), kind) for name, (of, kind) in types.items()}
        self._store: Store
        if kind == "zarr":
            self._store = _Zarr(folder / "maps.zarr", types, rows, new=count == 0)
        else:
            self._store = _ViRelAy(folder, names)
        self.count = count
        self._go_on()

    def _go_on(self) -> None:
        """Drop what was kept after the last checkpoint, take up the part that was not full."""
        number, filled = divmod(self.count, self._rows_per_part)
        self._store.cut(number + bool(filled), self.count)
        if filled:
            for name, rows in self._store.read(number, filled).items():
                self._part[name][:filled] = rows

    def add(self, one: KeptMap) -> None:
        """Keep a map."""
        number, row = divmod(self.count, self._rows_per_part)
        attribution = self._part["attribution"]
        with np.errstate(over="ignore"):
            attribution[row] = one.relevance
        if attribution.dtype == np.float16 and not np.isfinite(attribution[row]).all():
            raise ValueError(
                f"relevance up to {np.abs(one.relevance).max():.3g} is beyond float16: keep the "
                "maps as float32."
            )
        self._part["prediction"][row] = one.scores
        self._part["label"][row] = one.target
        self._part["index"][row] = one.index
        self.count += 1
        if row + 1 == self._rows_per_part:
            self._store.write(number, self._part)

    def flush(self) -> None:
        """Write what is not on disk yet."""
        number, filled = divmod(self.count, self._rows_per_part)
        if filled:
            self._store.write(number, {name: rows[:filled] for name, rows in self._part.items()})


class _Zarr:
    """One group of arrays; each chunk of ``attribution`` is a part."""

    def __init__(self, path: Path, types: Types, rows: int, *, new: bool) -> None:
        zarr = import_optional("zarr", "zarr", "keeping maps as Zarr")
        self._path = path
        self._rows = rows
        self._group = zarr.open_group(path, mode="w" if new else "a")
        for name, (shape, dtype) in types.items():
            if name not in self._group:
                self._group.create_array(
                    name, shape=(0, *shape), chunks=(rows, *shape), dtype=dtype
                )

    def read(self, number: int, count: int) -> Rows:
        start = number * self._rows
        return {name: array[start : start + count] for name, array in self._group.arrays()}

    def write(self, number: int, rows: Rows) -> None:
        start = number * self._rows
        with naming(self._path):
            for name, values in rows.items():
                array = self._group[name]
                array.resize((start + len(values), *array.shape[1:]))
                array[start:] = values

    def cut(self, parts: int, samples: int) -> None:
        for _, array in self._group.arrays():
            if array.shape[0] < samples:
                raise ValueError(f"{self._group.store_path}: holds less than {samples} maps.")
            array.resize((samples, *array.shape[1:]))


class _ViRelAy:
    """One attribution database for each part; a project of ViRelAy names them as its sources."""

    def __init__(self, folder: Path, names: Sequence[str]) -> None:
        self._h5py = import_optional("h5py", "virelay", "keeping maps for ViRelAy")
        self._folder = folder
        labels = [
            {"index": index, "word_net_id": "", "name": name} for index, name in enumerate(names)
        ]
        write_atomically(folder / "label-map.json", json.dumps(labels, indent=1).encode())

    def read(self, number: int, count: int) -> Rows:
        with self._h5py.File(self._path(number), "r") as file:
            return {name: file[name][:count] for name in file}

    def write(self, number: int, rows: Rows) -> None:
        with atomic_file(self._path(number)) as part, self._h5py.File(part, "w") as file:
            for name, values in rows.items():
                file.create_dataset(name, data=values)

    def cut(self, parts: int, samples: int) -> None:
        for path in self._folder.glob("attributions-*.h5"):
            if int(path.stem.partition("-")[2]) >= parts:
                path.unlink()

    def _path(self, number: int) -> Path:
        return self._folder / f"attributions-{number:05}.h5"
