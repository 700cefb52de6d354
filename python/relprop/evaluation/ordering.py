"""Ordering: in which order regions are taken from an image."""

from __future__ import annotations

from typing import Any, Literal, TypeAlias, get_args

import numpy as np
from numpy.typing import NDArray

from relprop.evaluation.maps import read_map
from relprop.evaluation.segments import Regions
from relprop.evaluation.streams import Stream

Order: TypeAlias = Literal["morf", "lerf", "random"]
"""Most relevant first, least relevant first, or any."""

By: TypeAlias = Literal["sum", "mean"]
"""What of its pixels' relevance ranks a region."""

ORDERS: tuple[Order, ...] = get_args(Order)


def region_relevance(relevance: Any, regions: Regions, by: By = "sum") -> NDArray[np.float64]:
    """Return the relevance of every region, (regions,), in float64.

    Pixels are added in the order of rows, so that regions with the same values have the same sum.

    Parameters
    ----------
    relevance
        Of one image, (C, H, W) or (H, W).
    regions
        Its regions.
    by
        The ``"sum"`` of the pixels' relevance, as the paper has it, or their ``"mean"``, where
        regions differ in size.

    Raises
    ------
    TypeError, ValueError
        If the relevance is of another shape or not finite, or ``by`` is not known.
    """
    if by not in ("sum", "mean"):
        raise ValueError(f'by must be "sum" or "mean", not {by!r}.')
    pixels = read_map(relevance)
    if pixels.shape != regions.labels.shape:
        raise ValueError(
            f"relevance must have the shape of the labels, {regions.labels.shape}, not "
            f"{pixels.shape}."
        )
    numbers = regions.labels.reshape(-1) + 1
    counted = np.bincount(numbers, pixels.reshape(-1), minlength=len(regions) + 1)
    sums = np.asarray(counted[1:], np.float64)
    return sums / regions.sizes if by == "mean" else sums


def order_of(
    order: Order,
    regions: Regions,
    relevance: Any = None,
    *,
    by: By = "sum",
    stream: Stream | None = None,
) -> NDArray[np.intp]:
    """Return the numbers of all regions, in the order in which they are taken.

    Samek et al. 2017. Equally relevant regions are taken in the order of their
    numbers, both most and least relevant first: the curves of a map that is the same everywhere are
    one curve.

    Parameters
    ----------
    order
        ``"morf"``, most relevant first; ``"lerf"``, least relevant first; ``"random"``.
    regions
        The image's regions.
    relevance
        Of the image, (C, H, W) or (H, W); ``"random"`` needs none.
    by
        What ranks a region: see :func:`region_relevance`.
    stream
        Where the random order comes from; only ``"random"`` needs it.

    Raises
    ------
    TypeError, ValueError
        If the order is not known, or what it needs is missing or of the wrong kind.
    """
    if order not in ORDERS:
        raise ValueError(f"order must be one of {', '.join(ORDERS)}, not {order!r}.")
    if order == "random":
        if stream is None:
            raise TypeError('order="random" needs a stream, not None.')
        return np.argsort(stream.generator().random(len(regions)), kind="stable")
    if relevance is None:
        raise TypeError(f"order={order!r} needs relevance, not None.")
    ranked = region_relevance(relevance, regions, by)
    return np.argsort(-ranked if order == "morf" else ranked, kind="stable")
