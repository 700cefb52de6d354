"""What the machine gives at best, beside which the contenders' figures are put."""

from __future__ import annotations

from dataclasses import replace

import torch

from relprop import _core
from relprop.benchmark.place import Gpu, Place
from relprop.benchmark.timing import take_turns, use_threads


def fma_ceiling(threads: int, rounds: int = 1_000_000, repeat: int = 15) -> float:
    """Measure what the multipliers give at best: multiply-adds in registers, on all threads.

    Each round is some hundred of them, whose number depends on the instruction set in use.

    Returns
    -------
    float
        GFLOP/s of all threads together, the best of ``repeat`` runs.
    """
    use_threads(threads)
    done = _core.multiply_adds(rounds)
    turns = take_turns({"core": lambda: _core.multiply_adds(rounds)}, repeat)["core"]
    return 2e-9 * done / min(turn.wall for turn in turns)


def product_ceiling(place: Place, size: int = 8192, repeat: int = 15) -> float:
    """Measure torch's product of two large square matrices in the precision of a place.

    Returns
    -------
    float
        GFLOP/s, the best of ``repeat`` runs.
    """
    a, b = (place.operand(torch.randn(size, size)) for _ in range(2))
    turns = take_turns({"product": lambda: a @ b}, repeat, place)["product"]
    return 2e-9 * size**3 / min(turn.wall for turn in turns)


def tf32_ceiling(place: Gpu) -> float:
    """Measure :func:`product_ceiling` in TF32, which takes a third of the time of float32."""
    rounded = replace(place, precision="tf32")
    with rounded.settings():
        return product_ceiling(rounded)


def copy_ceiling(place: Place, size: int = 2**30, repeat: int = 15) -> float:
    """Measure a copy of so many bytes within a place's memory.

    Returns
    -------
    float
        GB/s, bytes read and bytes written together, the best of ``repeat`` runs.
    """
    data = place.tensor(torch.zeros(size, dtype=torch.uint8))
    turns = take_turns({"copy": data.clone}, repeat, place)["copy"]
    return 2e-9 * size / min(turn.wall for turn in turns)
