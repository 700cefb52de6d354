"""Maps: one value of relevance for each pixel of an image, (H, W), all channels together."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import ArrayLike, NDArray

from relprop.explain import Explainer
from relprop.targets import Target, read_target

Map = NDArray[np.float64]
"""Relevance (H, W)."""


def read_map(values: ArrayLike, name: str = "relevance") -> Map:
    """Return a map as float64 (H, W).

    Raises
    ------
    TypeError
        If its values are no real numbers.
    ValueError
        If it does not have two axes, has no pixels or is not finite.
    """
    given = np.asarray(values)
    if given.dtype.kind not in "fiu":
        raise TypeError(f"{name} must be real numbers, not {given.dtype}.")
    if given.ndim != 2 or given.size == 0:
        raise ValueError(f"{name} must be a map (height, width), not of shape {given.shape}.")
    values = given.astype(np.float64)
    if not np.isfinite(values).all():
        raise ValueError(f"{name} must be finite, but {int((~np.isfinite(values)).sum())} are not.")
    return values


def maps_of(relevance: ArrayLike) -> NDArray[np.float64]:
    """Sum relevance (N, C, H, W) over the channels in float64: maps (N, H, W)."""
    given = np.asarray(relevance)
    if given.ndim != 4:
        raise ValueError(
            f"relevance must be that of images, (N, C, H, W), not of shape {given.shape}."
        )
    maps: NDArray[np.float64] = given.sum(axis=1, dtype=np.float64)
    return maps


def explained_maps(
    explainer: Explainer, images: NDArray[np.floating], target: Target, batch_size: int
) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Explain images in batches, on which no value depends.

    Returns
    -------
    tuple
        The maps (N, H, W) and the class that was explained for each image, (N,).

    Raises
    ------
    ValueError
        If ``target`` is a mask or the output's relevance: what is compared needs a class.
    """
    start = read_target(
        target, len(images), explainer.graph[explainer.graph.output].shape, explainer.model
    )
    if start.mask is not None or start.given is not None:
        raise ValueError('target must be "argmax" or classes here, not a mask or relevance.')
    maps, classes = [], []
    for part in batches(len(images), batch_size):
        wanted: Target = "argmax" if start.argmax else start.indices[part]
        result = explainer(images[part], wanted)
        maps.append(maps_of(result.relevance))
        classes.append(result.target)
    return np.concatenate(maps), np.concatenate(classes)


def batches(count: int, size: int) -> Iterator[slice]:
    """Cut ``count`` things into slices of at most ``size``."""
    if size < 1:
        raise ValueError(f"batch_size must be at least 1, not {size}.")
    return (slice(begin, min(begin + size, count)) for begin in range(0, count, size))
