"""Localisation: whether the relevance of a class lies where its boxes or masks say it is.

Every function takes one map and one mask. What is not defined is NaN, or None for a hit, and
never a number: an empty mask, which nothing could hit; a mask of all pixels, which nothing could
miss. Leave these out of means, and say how many they were.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable

import numpy as np
from numpy.typing import ArrayLike, NDArray

from relprop.aggregation.regions import box_mask
from relprop.evaluation.maps import Map, read_map

__all__ = [
    "box_mask",
    "class_accuracies",
    "mean_class_accuracy",
    "pointing_game",
    "relevance_mass",
    "relevance_rank",
    "top_k_intersection",
]

Mask = NDArray[np.bool_]


def pointing_game(relevance: ArrayLike, mask: ArrayLike, tolerance: float = 15) -> bool | None:
    """Whether the highest relevance lies on the object, or near it.

    A hit is where a pixel of the mask is less than ``tolerance`` from the pixel with the highest
    relevance (the first of equals, row by row), or is that pixel. A constant map points nowhere
    and misses.

    Parameters
    ----------
    relevance
        The map, (H, W).
    mask
        Which pixels the class covers, bool (H, W).
    tolerance
        In pixels, centre to centre; 0 asks for the pixel itself.

    Returns
    -------
    bool or None
        None where the mask is empty or covers all pixels.

    Raises
    ------
    TypeError, ValueError
        If the map or the mask is none, they differ in shape, or the tolerance is negative.

    References
    ----------
    Zhang et al. 2016, *Top-down neural attention by excitation backprop*, in the protocol of
    TorchRay (Fong, Patrick and Vedaldi 2019).
    """
    values, inside = _read(relevance, mask)
    if not tolerance >= 0:
        raise ValueError(f"tolerance must be at least 0 pixels, not {tolerance}.")
    if not _tells(inside):
        return None
    if values.min() == values.max():
        return False
    y, x = np.unravel_index(values.argmax(), values.shape)
    rows, columns = np.nonzero(inside)
    nearest = float(((rows - y) ** 2 + (columns - x) ** 2).min())
    return nearest == 0 or nearest < float(tolerance) ** 2


def relevance_mass(relevance: ArrayLike, mask: ArrayLike) -> float:
    """Share of the positive relevance that lies inside the mask, in [0, 1].

    Parameters
    ----------
    relevance
        The map, (H, W). Negative values are taken for zero.
    mask
        Which pixels the class covers, bool (H, W).

    Returns
    -------
    float
        NaN where the mask is empty or covers all pixels, or no relevance is positive.

    References
    ----------
    Arras, Osman and Samek 2022, *CLEVR-XAI*: relevance mass accuracy.
    """
    values, inside = _read(relevance, mask)
    positive = np.maximum(values, 0.0)
    largest = positive.max()
    if not _tells(inside) or largest == 0.0:
        return float("nan")
    positive /= largest  # no sum overflows, and none of tiny numbers loses its digits
    return float(positive[inside].sum() / positive.sum())


def relevance_rank(relevance: ArrayLike, mask: ArrayLike) -> float:
    """Share of the K highest pixels that lie inside the mask, which has K pixels, in [0, 1].

    Ties are treated, and NaN returned, as in :func:`top_k_intersection`.

    References
    ----------
    Arras, Osman and Samek 2022, *CLEVR-XAI*: relevance rank accuracy.
    """
    values, inside = _read(relevance, mask)
    return _share_of_highest(values, inside, int(inside.sum()))


def top_k_intersection(relevance: ArrayLike, mask: ArrayLike, k: int) -> float:
    """Share of the k highest pixels that lie inside the mask, in [0, 1].

    Where pixels with equal relevance compete for the last of the k places, each has its share of
    these: the mean over all ways to decide. So a constant map gets what chance gets.

    Parameters
    ----------
    relevance
        The map, (H, W).
    mask
        Which pixels the class covers, bool (H, W).
    k
        How many pixels are looked at, 1 to H * W. With more than the mask has the share cannot
        reach 1.

    Returns
    -------
    float
        NaN where the mask is empty or covers all pixels.

    Raises
    ------
    TypeError, ValueError
        If the map or the mask is none, they differ in shape, or k is out of range.

    References
    ----------
    Theiner, Mueller-Budack and Ewerth 2022, *Interpretable semantic photo geolocation*.
    """
    values, inside = _read(relevance, mask)
    if not 1 <= k <= values.size:
        raise ValueError(f"k must be at least 1 and at most {values.size}, not {k}.")
    return _share_of_highest(values, inside, k)


def class_accuracies(
    hits: Iterable[bool | None], classes: Iterable[Hashable]
) -> dict[Hashable, float]:
    """Return the share of hits for each class of which something was counted.

    Parameters
    ----------
    hits
        What :func:`pointing_game` returned for each pair of an image and a class in it; None is
        not counted.
    classes
        The class of each.

    Raises
    ------
    ValueError
        If there are more of one than of the other.
    """
    hits, classes = list(hits), list(classes)
    if len(hits) != len(classes):
        raise ValueError(f"classes must be one for each of {len(hits)} hits, not {len(classes)}.")
    counted: dict[Hashable, list[bool]] = {}
    for hit, name in zip(hits, classes):
        if hit is not None:
            counted.setdefault(name, []).append(bool(hit))
    return {name: sum(own) / len(own) for name, own in counted.items()}


def mean_class_accuracy(hits: Iterable[bool | None], classes: Iterable[Hashable]) -> float:
    """Mean of :func:`class_accuracies`: rare classes count as much as frequent ones.

    NaN where nothing was counted.
    """
    accuracies = class_accuracies(hits, classes)
    return sum(accuracies.values()) / len(accuracies) if accuracies else float("nan")


def _share_of_highest(values: Map, inside: Mask, k: int) -> float:
    if not _tells(inside):
        return float("nan")
    last = np.partition(values, -k, axis=None)[-k]
    above, tied = values > last, values == last
    share = (k - int(above.sum())) / int(tied.sum())  # of a place, for each that is tied
    return (int((above & inside).sum()) + share * int((tied & inside).sum())) / k


def _tells(inside: Mask) -> bool:
    """Whether a map could both hit and miss."""
    return bool(inside.any()) and not bool(inside.all())


def _read(relevance: ArrayLike, mask: ArrayLike) -> tuple[Map, Mask]:
    values, inside = read_map(relevance), np.asarray(mask)
    if inside.dtype != np.bool_:
        raise TypeError(f"mask must be bool, not {inside.dtype}.")
    if inside.shape != values.shape:
        raise ValueError(f"mask must have the map's shape {values.shape}, not {inside.shape}.")
    return values, inside
