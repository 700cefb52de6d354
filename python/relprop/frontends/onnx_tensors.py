"""ONNX tensors to numpy arrays, with their data in the model's file or in files beside it.

Nothing is believed before it is checked: how many values a tensor announces must be how many are
there, files of external data must lie in the model's folder, and what is made of them in memory
is held in proportion to what is on disk.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

Tensor = NDArray[Any]

TYPES: dict[int, str] = {
    onnx.TensorProto.FLOAT: "<f4",
    onnx.TensorProto.DOUBLE: "<f8",
    onnx.TensorProto.FLOAT16: "<f2",
    onnx.TensorProto.INT64: "<i8",
    onnx.TensorProto.INT32: "<i4",
    onnx.TensorProto.INT16: "<i2",
    onnx.TensorProto.INT8: "<i1",
    onnx.TensorProto.UINT64: "<u8",
    onnx.TensorProto.UINT32: "<u4",
    onnx.TensorProto.UINT16: "<u2",
    onnx.TensorProto.UINT8: "<u1",
    onnx.TensorProto.BOOL: "?",
}
"""The element types that are read, as numpy calls them."""

FLOATS = (
    onnx.TensorProto.FLOAT,
    onnx.TensorProto.DOUBLE,
    onnx.TensorProto.FLOAT16,
    onnx.TensorProto.BFLOAT16,
)

INTEGERS = (onnx.TensorProto.INT32, onnx.TensorProto.INT64)
"""What ids may be of."""

_FIELDS: dict[int, str] = {
    onnx.TensorProto.FLOAT: "float_data",
    onnx.TensorProto.DOUBLE: "double_data",
    onnx.TensorProto.INT64: "int64_data",
    onnx.TensorProto.UINT32: "uint64_data",
    onnx.TensorProto.UINT64: "uint64_data",
}
"""Where values lie that are not raw bytes; those of all other types are in ``int32_data``."""


def type_name(number: int) -> str:
    """What ONNX calls an element type."""
    known = onnx.TensorProto.DataType.values()
    return str(onnx.TensorProto.DataType.Name(number)) if number in known else f"type {number}"


_ALWAYS_ALLOWED = 1 << 29


class Storage:
    """Where the tensors of one model lie, and how much memory may be made of them."""

    def __init__(self, model: Path) -> None:
        self.folder = model.parent
        self._known = {Path(os.path.realpath(model))}
        self._left = _ALWAYS_ALLOWED + 4 * model.stat().st_size

    def spend(self, size: int) -> None:
        """Count bytes of memory; a small file that would become far larger is a ValueError."""
        self._left -= size
        if self._left < 0:
            raise ValueError("it would take far more memory than the model has on disk")

    def read(self, tensor: onnx.TensorProto) -> Tensor:
        """The array that a tensor holds; bfloat16 becomes float32.

        Raises
        ------
        ValueError
            If its type is not read, its data does not fit its shape or lies outside the folder.
        OSError
            If a file of external data cannot be read.
        """
        if tensor.data_location != onnx.TensorProto.EXTERNAL:
            return _decoded(tensor, None)
        path = _confined(
            f"tensor {tensor.name!r}", _entries(tensor).get("location", ""), self.folder
        )
        if path not in self._known:
            self._known.add(path)
            self._left += 4 * path.stat().st_size
        return _decoded(tensor, lambda size: self._external(tensor, path, size))

    def _external(self, tensor: onnx.TensorProto, path: Path, size: int) -> bytes:
        """The bytes of a tensor that lie in a file beside the model."""
        entries, name = _entries(tensor), f"tensor {tensor.name!r}"
        try:
            offset, length = int(entries.get("offset", 0)), int(entries.get("length", size))
        except ValueError:
            raise ValueError(f"{name} has no number as offset or length: {entries}") from None
        _check_size(tensor, length, size, "bytes")
        with path.open("rb") as file:
            there = os.fstat(file.fileno()).st_size
            if offset < 0 or offset + size > there:
                raise ValueError(
                    f"{name} needs bytes {offset} to {offset + size} of {path.name!r}, "
                    f"which has {there}"
                )
            self.spend(size)
            file.seek(offset)
            data = file.read(size)
        _check_size(tensor, len(data), size, "bytes")
        return data


def _entries(tensor: onnx.TensorProto) -> dict[str, str]:
    return {entry.key: entry.value for entry in tensor.external_data}


def _decoded(tensor: onnx.TensorProto, external: Callable[[int], bytes] | None) -> Tensor:
    shape = tuple(tensor.dims)
    if any(size < 0 for size in shape) or tensor.HasField("segment"):
        raise ValueError(f"tensor {tensor.name!r} has shape {shape}, or comes in segments")
    kind, brain = tensor.data_type, tensor.data_type == onnx.TensorProto.BFLOAT16
    if kind not in TYPES and not brain:
        raise ValueError(f"tensor {tensor.name!r} is of type {type_name(kind)}, which is not read")
    dtype = np.dtype("<u2" if brain else TYPES[kind])
    values: Tensor
    if external is not None:
        values = np.frombuffer(external(math.prod(shape) * dtype.itemsize), dtype)
    elif tensor.HasField("raw_data"):
        _check_size(tensor, len(tensor.raw_data), math.prod(shape) * dtype.itemsize, "bytes")
        values = np.frombuffer(tensor.raw_data, dtype)
    else:
        listed = getattr(tensor, _FIELDS.get(kind, "int32_data"))
        _check_size(tensor, len(listed), math.prod(shape), "values")
        if kind == onnx.TensorProto.FLOAT16:  # the bits, as integers
            values = np.array(listed, np.int64).astype("<u2").view("<f2")
        else:
            values = np.array(listed).astype(dtype)
    if brain:
        values = (values.astype(np.uint32) << 16).view(np.float32)
    return values.astype(values.dtype.newbyteorder("="), copy=False).reshape(shape)


def _check_size(tensor: onnx.TensorProto, there: int, wanted: int, what: str) -> None:
    if there != wanted:
        raise ValueError(
            f"tensor {tensor.name!r} of shape {tuple(tensor.dims)} and type "
            f"{type_name(tensor.data_type)} needs {wanted} {what}, there are {there}"
        )


def _confined(name: str, location: str, folder: Path) -> Path:
    """The file of external data, if it lies in the model's folder and symbolic links agree."""
    if not location or "\0" in location:
        raise ValueError(f"{name} keeps its data in {location!r}, which is no file's name")
    path = Path(os.path.realpath(folder / location))  # resolve() fails on links in a circle
    parts = location.replace("\\", "/").split("/")
    inside = path.is_relative_to(os.path.realpath(folder))
    if Path(location).is_absolute() or ".." in parts or not inside:
        raise ValueError(
            f"{name} keeps its data in {location!r}, which is outside the model's folder"
        )
    if not path.exists():
        raise FileNotFoundError(f"{name} keeps its data in {location!r}: there is no such file")
    if not path.is_file():  # a pipe or a device might never end
        raise ValueError(f"{name} keeps its data in {location!r}, which is no ordinary file")
    return path
