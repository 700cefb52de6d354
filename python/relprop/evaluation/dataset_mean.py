"""The mean of a dataset's inputs, to put in the place of regions."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from relprop.datasets import Dataset, Rejected, read_ahead
from relprop.preprocessing import Preprocessing


def mean_input(
    dataset: Dataset, preprocessing: Preprocessing | None, workers: int = 2
) -> NDArray[np.float32]:
    """Return the mean of the network's inputs over a dataset, (C, H, W).

    The sum is float64, in the dataset's order. Items that cannot be used are left out.

    Parameters
    ----------
    dataset
        What :func:`relprop.datasets.open_dataset` returns.
    preprocessing
        The model's; None where the dataset holds inputs.
    workers
        Threads that decode images.

    Raises
    ------
    ValueError
        If no item can be used, or inputs differ in shape.
    """
    total, count = np.zeros(()), 0
    for sample in read_ahead(dataset, preprocessing, workers):
        if isinstance(sample, Rejected):
            continue
        if count and sample.pixels.shape != total.shape:
            raise ValueError(
                f"inputs must have one shape, not {total.shape} and {sample.pixels.shape} "
                f"({sample.key})."
            )
        total = total + sample.pixels
        count += 1
    if not count:
        raise ValueError("dataset must hold at least one item that can be used, not none.")
    mean: NDArray[np.float32] = (total / count).astype(np.float32)
    return mean
