"""Arrays of numpy, torch and cupy, on the host or on a GPU: read, made and given back.

The core reads and fills them where they are. Of a kind of arrays there is one class here; arrays
themselves are ``Any``, since no type covers all three libraries.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

Bound: TypeAlias = NDArray[np.float32]
"""The least or the most that values may be."""


class Arrays(Protocol):
    """Arrays of one library in one memory, float32 where nothing else is said."""

    @property
    def stream(self) -> int:
        """Address of the CUDA stream in whose order they are written; 0 on the host."""
        ...

    def take(self, value: Any, name: str) -> Any:
        """An argument as an array of numbers, without a copy."""
        ...

    def number_kind(self, array: Any) -> str:
        """One of ``f``, ``i``, ``u`` and ``b``, as numpy has them."""
        ...

    def floats(self, array: Any) -> Any:
        """In C order; no copy where it is so already."""
        ...

    def empty(self, shape: tuple[int, ...]) -> Any:
        """A new one that nobody has filled."""
        ...

    def zeros(self, shape: tuple[int, ...]) -> Any:
        """A new one."""
        ...

    def finite(self, array: Any) -> NDArray[np.bool_]:
        """For each sample, whether all of its values are."""
        ...

    def within(self, array: Any, low: Bound, high: Bound) -> bool:
        """Whether all values lie between bounds that broadcast with them."""
        ...

    def of(self, array: NDArray[Any]) -> Any:
        """An array of numpy's as one of these."""
        ...

    def numpy(self, array: Any) -> NDArray[Any]:
        """One of these as numpy's, on the host."""
        ...

    def give(self, array: Any) -> Any:
        """As the user gets it."""
        ...


def arrays_of(value: Any, gpu: int | None, name: str) -> Arrays:
    """Return whose arrays ``value`` is of; ``gpu`` is the index of the one that will compute.

    Raises
    ------
    TypeError
        If it is in the memory of a GPU that does not compute.
    """
    if _is_of("torch", value):
        if value.device.type == "cpu":
            return _Host(torch=True)
        if gpu is not None and value.device.type == "cuda" and value.device.index == gpu:
            return _TorchOnGpu(gpu)
        raise _elsewhere(name, str(value.device), gpu)
    if _is_of("cupy", value):
        if gpu is not None and value.device.id == gpu:
            return _CupyOnGpu(gpu)
        raise _elsewhere(name, f"cuda:{value.device.id}", gpu)
    return _Host(torch=False)


def _is_of(library: str, value: object) -> bool:
    return type(value).__module__.partition(".")[0] == library


def _elsewhere(name: str, where: str, gpu: int | None) -> TypeError:
    wanted = "on the CPU" if gpu is None else f"on the CPU or on cuda:{gpu}"
    return TypeError(f"{name} must be {wanted}, not on {where}.")


def _dense(tensor: Any, name: str) -> Any:
    """A tensor of torch's without its history, if each of its numbers has a place in memory."""
    layout = "nested" if tensor.is_nested else str(tensor.layout)
    if layout != "torch.strided" or tensor.is_quantized:
        raise TypeError(f"{name} must be dense and not quantized, not {layout}, {tensor.dtype}.")
    return tensor.detach()


def to_numpy(value: Any, name: str) -> NDArray[Any]:
    """Return an array of numbers on the host, wherever it is; no copy of what is there already."""
    if _is_of("torch", value):
        value = _dense(value, name).cpu()
        if value.is_complex() or str(value.dtype) == "torch.bfloat16":
            raise TypeError(f"{name} must be float32, float64 or float16, not {value.dtype}.")
        return np.asarray(value.numpy())
    if isinstance(value, np.ma.MaskedArray):
        raise TypeError(f"{name} must not be a masked array: fill it, as by filled(0).")
    array = np.asarray(value.get() if _is_of("cupy", value) else value)
    if array.dtype.kind not in "fiub":
        raise TypeError(f"{name} must be an array of numbers, not of {array.dtype}.")
    return array


def _rows(array: Any) -> tuple[int, int]:
    """The shape with a row for each sample; a -1 in it would be unknown where there are none."""
    return len(array), math.prod(array.shape[1:])


@dataclass(frozen=True)
class _Host:
    """numpy's arrays; torch's on the CPU share their memory with these."""

    torch: bool = field(compare=False)
    """Whether they are given back as torch's."""
    stream: int = 0

    def take(self, value: Any, name: str) -> Any:
        return to_numpy(value, name)

    def number_kind(self, array: Any) -> str:
        return str(array.dtype.kind)

    def floats(self, array: Any) -> Any:
        with np.errstate(over="ignore"):
            return np.ascontiguousarray(array, np.float32)

    def empty(self, shape: tuple[int, ...]) -> Any:
        return np.empty(shape, np.float32)

    def zeros(self, shape: tuple[int, ...]) -> Any:
        return np.zeros(shape, np.float32)

    def finite(self, array: Any) -> NDArray[np.bool_]:
        if np.isfinite(array).all():
            return np.ones(len(array), np.bool_)
        each: NDArray[np.bool_] = np.isfinite(array.reshape(len(array), -1)).all(1)
        return each

    def within(self, array: Any, low: Bound, high: Bound) -> bool:
        return bool(((low <= array) & (array <= high)).all())

    def of(self, array: NDArray[Any]) -> Any:
        return array

    def numpy(self, array: Any) -> NDArray[Any]:
        return np.asarray(array)

    def give(self, array: Any) -> Any:
        if not self.torch:
            return array
        import torch

        return torch.from_numpy(array)


@dataclass(frozen=True)
class _TorchOnGpu:
    """torch's tensors in the memory of a GPU."""

    gpu: int

    @property
    def stream(self) -> int:
        import torch

        return int(torch.cuda.current_stream(self.gpu).cuda_stream)

    def take(self, value: Any, name: str) -> Any:
        if value.is_complex():
            raise TypeError(f"{name} must be an array of numbers, not of {value.dtype}.")
        return _dense(value, name)

    def number_kind(self, array: Any) -> str:
        if array.is_floating_point():
            return "f"
        return "b" if str(array.dtype) == "torch.bool" else "i"

    def floats(self, array: Any) -> Any:
        import torch

        return array.to(torch.float32).contiguous()

    def empty(self, shape: tuple[int, ...]) -> Any:
        import torch

        return torch.empty(shape, dtype=torch.float32, device=f"cuda:{self.gpu}")

    def zeros(self, shape: tuple[int, ...]) -> Any:
        return self.empty(shape).zero_()

    def finite(self, array: Any) -> NDArray[np.bool_]:
        import torch

        return self.numpy(torch.isfinite(array).reshape(_rows(array)).all(1))

    def within(self, array: Any, low: Bound, high: Bound) -> bool:
        import torch

        least, most = (torch.from_numpy(bound).to(array.device) for bound in (low, high))
        return bool(((least <= array) & (array <= most)).all())

    def of(self, array: NDArray[Any]) -> Any:
        import torch

        return torch.from_numpy(array).to(f"cuda:{self.gpu}")

    def numpy(self, array: Any) -> NDArray[Any]:
        return np.asarray(array.cpu().numpy())

    def give(self, array: Any) -> Any:
        return array


@dataclass(frozen=True)
class _CupyOnGpu:
    """cupy's arrays."""

    gpu: int

    @property
    def stream(self) -> int:
        import cupy

        return int(cupy.cuda.get_current_stream(self.gpu).ptr)

    def take(self, value: Any, name: str) -> Any:
        if value.dtype.kind not in "fiub":
            raise TypeError(f"{name} must be an array of numbers, not of {value.dtype}.")
        return value

    def number_kind(self, array: Any) -> str:
        return str(array.dtype.kind)

    def floats(self, array: Any) -> Any:
        import cupy

        with cupy.cuda.Device(self.gpu):
            return cupy.ascontiguousarray(array, cupy.float32)

    def empty(self, shape: tuple[int, ...]) -> Any:
        import cupy

        with cupy.cuda.Device(self.gpu):
            return cupy.empty(shape, cupy.float32)

    def zeros(self, shape: tuple[int, ...]) -> Any:
        import cupy

        with cupy.cuda.Device(self.gpu):
            return cupy.zeros(shape, cupy.float32)

    def finite(self, array: Any) -> NDArray[np.bool_]:
        import cupy

        with cupy.cuda.Device(self.gpu):
            return self.numpy(cupy.isfinite(array).reshape(_rows(array)).all(1))

    def within(self, array: Any, low: Bound, high: Bound) -> bool:
        import cupy

        with cupy.cuda.Device(self.gpu):
            least, most = cupy.asarray(low), cupy.asarray(high)
            return bool(((least <= array) & (array <= most)).all())

    def of(self, array: NDArray[Any]) -> Any:
        import cupy

        with cupy.cuda.Device(self.gpu):
            return cupy.asarray(array)

    def numpy(self, array: Any) -> NDArray[Any]:
        return np.asarray(array.get())

    def give(self, array: Any) -> Any:
        return array
