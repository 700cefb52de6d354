"""Similarity of two maps of an image: of their order, and of their structure.

Both are 1 for maps that differ by a positive factor. A constant map has neither order nor
structure: where one of the two is constant the similarity is NaN.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType

import numpy as np
from numpy.typing import ArrayLike

from relprop.evaluation.maps import Map, read_map
from relprop.optional import import_optional

WINDOW = 11
"""Pixels along a side of the window in which :func:`ssim` compares."""


def spearman(first: ArrayLike, second: ArrayLike) -> float:
    """Spearman's rank correlation of two maps, in [-1, 1].

    It looks at signed values: the least relevant pixels are those with the most negative
    relevance. Equal values share the mean of their ranks.

    Parameters
    ----------
    first, second
        Maps, (H, W).

    Raises
    ------
    TypeError, ValueError
        If one is no map, or their shapes differ.
    ImportError
        If scipy is missing: the extra ``evaluation`` brings it.
    """
    one, other = _read(first, second)
    scipy = import_optional("scipy", "evaluation", "Spearman's correlation")
    if _constant(one) or _constant(other):
        return float("nan")
    return float(scipy.stats.spearmanr(one, other, axis=None).statistic)


def spearman_absolute(first: ArrayLike, second: ArrayLike) -> float:
    """Return :func:`spearman` of the absolute values of two maps."""
    one, other = _read(first, second)
    return spearman(np.abs(one), np.abs(other))


def ssim(first: ArrayLike, second: ArrayLike) -> float:
    """Structural similarity of two maps, in [-1, 1].

    Each map is divided by its own largest magnitude, so that zero stays zero and signs stay; L is
    the range of the values of both. Weighted means, variances and covariances are those of a
    Gaussian of 1.5 pixels in a window of 11 x 11, and the mean is over all windows that lie in
    the map. K1 = 0.01, K2 = 0.03.

    Parameters
    ----------
    first, second
        Maps, (H, W), at least 11 x 11.

    Raises
    ------
    TypeError, ValueError
        If one is no map or too small, or their shapes differ.
    ImportError
        If scikit-image is missing: the extra ``evaluation`` brings it.

    References
    ----------
    Wang, Bovik, Sheikh and Simoncelli 2004, *Image quality assessment*.
    """
    one, other = _read(first, second)
    if min(one.shape) < WINDOW:
        raise ValueError(f"maps must be at least {WINDOW} x {WINDOW} for SSIM, not {one.shape}.")
    skimage = import_optional("skimage", "evaluation", "SSIM")
    if _constant(one) or _constant(other):
        return float("nan")
    one, other = one / np.abs(one).max(), other / np.abs(other).max()
    return float(
        skimage.metrics.structural_similarity(
            one,
            other,
            data_range=max(one.max(), other.max()) - min(one.min(), other.min()),
            gaussian_weights=True,
            sigma=1.5,
            use_sample_covariance=False,
            K1=0.01,
            K2=0.03,
        )
    )


Similarity = Callable[[Map, Map], float]

SIMILARITIES: Mapping[str, Similarity] = MappingProxyType(
    {"spearman": spearman, "spearman_absolute": spearman_absolute, "ssim": ssim}
)
"""The similarities by their names."""


def _constant(values: Map) -> bool:
    return bool(values.min() == values.max())


def _read(first: ArrayLike, second: ArrayLike) -> tuple[Map, Map]:
    one, other = read_map(first, "first"), read_map(second, "second")
    if one.shape != other.shape:
        raise ValueError(f"second must have the shape of first, {one.shape}, not {other.shape}.")
    return one, other
