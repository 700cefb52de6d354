"""Maps: one value of relevance for each pixel of an image, (H, W), all channels together."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from relprop.arrays import to_numpy
from relprop.explain import Explainer
from relprop.targets import Target, read_target

Map = NDArray[np.float64]
"""Relevance (H, W)."""


def read_map(relevance: Any, name: str = "relevance") -> Map:
    """Return an image's relevance as a map, float64 (H, W).

    Parameters
    ----------
    relevance
        Of one image, (C, H, W), whose channels are summed, or (H, W); numpy's, torch's or cupy's.
    name
        What the errors call it.

    Raises
    ------
    TypeError, ValueError
        If it is no array of real numbers of such a shape, has no pixels or is not finite.
    """
    given = to_numpy(relevance, name)
    if given.dtype.kind not in "fiu":
        raise TypeError(f"{name} must be real numbers, not {given.dtype}.")
    if given.ndim not in (2, 3) or given.size == 0:
        raise ValueError(
            f"{name} must have shape (channels, height, width) or (height, width) for each image, "
            f"not {given.shape}."
        )
    values: Map = given.astype(np.float64)
    if given.ndim == 3:
        values = values.sum(axis=0)
    if not np.isfinite(values).all():
        at = tuple(int(i) for i in np.argwhere(~np.isfinite(values))[0])
        raise ValueError(f"{name} must be finite, not {values[at]} at pixel {at}.")
    return values


def maps_of(relevance: Any) -> NDArray[np.float64]:
    """Sum relevance (N, C, H, W) over the channels in float64: maps (N, H, W).

    Raises
    ------
    TypeError, ValueError
        If it is no array of numbers, or of another number of axes.
    """
    given = to_numpy(relevance, "relevance")
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
    """Cut ``count`` things into slices of at most ``size``; a ValueError if that is below 1."""
    if size < 1:
        raise ValueError(f"batch_size must be at least 1, not {size}.")
    return (slice(begin, min(begin + size, count)) for begin in range(0, count, size))
