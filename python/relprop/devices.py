"""Where a model is explained: on the CPU or on a GPU."""

from __future__ import annotations

import os
from typing import Literal, TypeAlias

from relprop import _core

Precision: TypeAlias = Literal["float32", "tf32", "bf16"]
"""How exactly a GPU computes products; a CPU knows the first alone."""


def default_device() -> str:
    """What ``RELPROP_DEVICE`` names, or the CPU."""
    return os.environ.get("RELPROP_DEVICE", "cpu")


def gpu_of(device: str) -> int | None:
    """Return the index of a GPU, 0 for ``"cuda"``; None for the CPU.

    Raises
    ------
    TypeError
        If it is no string.
    ValueError
        If it is neither ``"cpu"`` nor ``"cuda"`` nor ``"cuda:N"``.
    RuntimeError
        If this build has no CUDA.
    """
    if not isinstance(device, str):
        raise TypeError(f'device must be "cpu", "cuda" or "cuda:1" and the like, not {device!r}.')
    if device == "cpu":
        return None
    kind, colon, index = device.partition(":")
    if kind != "cuda" or (colon and not (index.isascii() and index.isdigit())):
        raise ValueError(f'device must be "cpu", "cuda" or "cuda:1" and the like, not {device!r}.')
    if not _core.with_cuda:
        raise RuntimeError(
            f'device must be "cpu", not {device!r}: relprop was built without CUDA; install it '
            "again with RELPROP_CUDA=ON where nvcc is (docs/gpu.md)."
        )
    return int(index or 0)
