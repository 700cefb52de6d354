"""Float arrays in the memory of the emulator's GPUs, as torch's and cupy's are in a real one's."""

from __future__ import annotations

import ctypes
from functools import cache
from typing import Any

import numpy as np
import pytest

from relprop import _core

TO_DEVICE, TO_HOST = 1, 2


@cache
def runtime() -> ctypes.CDLL:
    """The emulator's runtime; a real one is not to be had through the extension."""
    library = ctypes.CDLL(_core.__file__)
    if not hasattr(library, "cudaMalloc"):
        pytest.skip("arrays of no library can be made in the emulator's memory alone")
    library.cudaFree.argtypes = [ctypes.c_void_p]
    library.cudaMemcpy.argtypes = [
        ctypes.c_void_p, ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int
    ]  # fmt: skip
    return library


class DeviceArray:
    """A copy of an array on a GPU, which says of itself what CUDA's interface asks."""

    def __init__(self, array: np.ndarray, gpu: int = 0, **other: Any) -> None:
        self.host = np.ascontiguousarray(array)
        self.other = other
        memory = ctypes.c_void_p()
        assert runtime().cudaSetDevice(gpu) == 0
        assert runtime().cudaMalloc(ctypes.byref(memory), self.host.nbytes) == 0
        self.pointer = memory.value
        self._copy(self.pointer, self.host.ctypes.data, TO_DEVICE)

    def _copy(self, to: int | None, start: int | None, way: int) -> None:
        assert runtime().cudaMemcpy(to, start, self.host.nbytes, way) == 0

    def __del__(self) -> None:
        runtime().cudaFree(self.pointer)

    @property
    def shape(self) -> tuple[int, ...]:
        return self.host.shape

    @property
    def __cuda_array_interface__(self) -> dict[str, Any]:
        return {
            "shape": self.shape,
            "typestr": self.host.dtype.str,
            "data": (self.pointer, False),
            "version": 3,
            "strides": None,
        } | self.other

    def numpy(self) -> np.ndarray:
        """What is there now."""
        self._copy(self.host.ctypes.data, self.pointer, TO_HOST)
        return self.host.copy()
