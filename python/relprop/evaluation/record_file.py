"""RecordFile: what a run keeps of each image, appended to a file, so that memory does not grow.

A record is a header of fixed size, the image's key and its figures as float64, all little endian.
"""

from __future__ import annotations

import json
import os
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray

from relprop.atomic import naming

_HEADER = struct.Struct("<Iqqqd")
_CHUNK = 2**20


@dataclass(frozen=True, eq=False)
class Record:
    """One image.

    ``label`` and ``predicted`` are numbers of classes, -1 where there is none; ``target`` is the
    output of the model that was judged and ``score`` its value for the whole image. ``curves`` is
    (rows, steps + 1) float64 and ``metrics`` (methods, metrics), NaN where a metric is not defined.
    """

    key: str
    label: int
    predicted: int
    target: int
    score: float
    curves: NDArray[np.float64]
    metrics: NDArray[np.float64]


class RecordFile:
    """Records one after the other; a checkpoint says how many of its bytes count.

    Parameters
    ----------
    path
        The file; it is made where it is missing.
    curves, metrics
        The shapes of these arrays, the same for all records.
    state
        What :meth:`state` returned when the run was stopped. What lies behind it in the file is cut
        off; without a state everything is.

    Raises
    ------
    ValueError
        If the file does not hold what the state says.
    OSError
        If it cannot be read or written.
    """

    def __init__(
        self,
        path: Path,
        curves: tuple[int, int],
        metrics: tuple[int, int],
        state: bytes | None = None,
    ) -> None:
        self.path = path
        self.count = 0
        self._curves = curves
        self._metrics = metrics
        self._size = 0
        self._sum = 0
        if state is not None:
            told = json.loads(state)
            self.count, self._size, self._sum = told["count"], told["bytes"], told["crc32"]
            _check(path, self._size, self._sum)
        self._file: BinaryIO = path.open("r+b" if path.exists() else "w+b")
        self._file.truncate(self._size)
        self._file.seek(self._size)

    def append(self, record: Record) -> None:
        """Add one image."""
        for name, expected in (("curves", self._curves), ("metrics", self._metrics)):
            shape = getattr(record, name).shape
            if shape != expected:
                raise ValueError(f"{name} must have shape {expected}, not {shape}.")
        key = record.key.encode()
        content = b"".join(
            (
                _HEADER.pack(len(key), record.label, record.predicted, record.target, record.score),
                key,
                record.curves.astype("<f8").tobytes(),
                record.metrics.astype("<f8").tobytes(),
            )
        )
        with naming(self.path):
            self._file.write(content)
        self._size += len(content)
        self._sum = zlib.crc32(content, self._sum)
        self.count += 1

    def state(self) -> bytes:
        """Return what a checkpoint keeps, once all records are on the disk."""
        with naming(self.path):
            self._file.flush()
            os.fsync(self._file.fileno())
        return json.dumps({"count": self.count, "bytes": self._size, "crc32": self._sum}).encode()

    def close(self) -> None:
        """Close the file."""
        with naming(self.path):
            self._file.close()

    def __iter__(self) -> Iterator[Record]:
        """Read the records in their order, one at a time."""
        self._file.flush()
        rows = int(np.prod(self._curves))
        with self.path.open("rb") as file:
            for _ in range(self.count):
                length, label, predicted, target, score = _HEADER.unpack(file.read(_HEADER.size))
                key = file.read(length).decode()
                size = 8 * (rows + int(np.prod(self._metrics)))
                values = np.frombuffer(file.read(size), "<f8").astype(np.float64)
                yield Record(
                    key,
                    label,
                    predicted,
                    target,
                    score,
                    values[:rows].reshape(self._curves),
                    values[rows:].reshape(self._metrics),
                )


def _check(path: Path, size: int, expected: int) -> None:
    """Make sure that a file begins with what a checkpoint counts on."""
    found, left = 0, size
    if path.exists():
        with path.open("rb") as file:
            while left and (part := file.read(min(left, _CHUNK))):
                found, left = zlib.crc32(part, found), left - len(part)
    if left or found != expected:
        raise ValueError(
            f"{path}: must begin with the {size} bytes that the checkpoint counts, but it has "
            f"{'fewer' if left else 'others'}: begin anew (force, --force)."
        )
