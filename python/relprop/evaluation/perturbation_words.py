"""The words by which the command line and results call perturbations."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np

from relprop.evaluation.colours import read_colour
from relprop.evaluation.perturbations import (
    Blur,
    Constant,
    DatasetMean,
    InPainting,
    Perturbation,
    Uniform,
)


def _read_uniform(*bounds: str) -> Uniform:
    if not bounds:
        return Uniform()
    low, high = bounds
    return Uniform(read_colour(low), read_colour(high))


def _read_constant(value: str = "mean") -> Constant:
    if value in ("mean", "image_mean", "black", "white"):
        return Constant(value)  # type: ignore[arg-type]
    return Constant(read_colour(value))


def _read_blur(*sigma: str) -> Blur:
    return Blur(*map(float, sigma))


def _read_dataset_mean(*path: str) -> DatasetMean:
    name = ":".join(path)  # a path may hold a colon
    if not name:
        raise ValueError("a file of numpy's must be named")
    with Path(name).open("rb") as file:
        try:
            image = np.lib.format.read_array(file, allow_pickle=False)
        except Exception as error:  # it raises anything on broken data
            raise ValueError(f"{name} holds no array of numpy's (.npy)") from error
    return DatasetMean(image, name)


def _read_inpainting(method: str = "telea", *radius: str) -> InPainting:
    return InPainting(method, *map(float, radius))  # type: ignore[arg-type]


PERTURBATIONS: Mapping[str, Callable[..., Perturbation]] = {
    "uniform": _read_uniform,
    "constant": _read_constant,
    "blur": _read_blur,
    "dataset_mean": _read_dataset_mean,
    "inpainting": _read_inpainting,
}
"""How the words of each are read, by its name."""

FORMS = (
    "uniform, uniform:LOW:HIGH, constant:mean, constant:image_mean, constant:black, "
    "constant:white, constant:VALUE, blur:SIGMA, dataset_mean:FILE.npy, inpainting:telea:RADIUS or "
    "inpainting:ns:RADIUS"
)
"""The words that :func:`perturbation_of` reads, as error texts list them."""


def perturbation_of(word: str) -> Perturbation:
    """Make the perturbation that the command line's word names.

    Parameters
    ----------
    word
        ``"uniform"``, ``"uniform:-1:1"``, ``"constant"`` (the mean), ``"constant:black"``,
        ``"constant:0.5"``, ``"constant:0.1/0.2/0.3"`` (one for each channel), ``"blur"``,
        ``"blur:5"``, ``"dataset_mean:mean.npy"``, ``"inpainting"``, ``"inpainting:ns:5"``.

    Raises
    ------
    OSError
        If the file cannot be read.
    ValueError
        If the word names none, or its parameters are not ones.
    """
    name, *values = word.split(":")
    if name not in PERTURBATIONS:
        raise ValueError(f"perturbation must be {FORMS}, not {word!r}.")
    try:
        return PERTURBATIONS[name](*values)
    except (TypeError, ValueError) as error:
        raise ValueError(f"perturbation must be {FORMS}, not {word!r}: {error}") from error
