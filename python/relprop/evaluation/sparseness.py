"""Sparseness: on how few pixels a map rests. Both figures look at absolute relevance.

A map of zeros has neither: NaN.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from relprop.evaluation.maps import Map, read_map


def gini(relevance: ArrayLike) -> float:
    """Gini index of the absolute relevance: 0 for a map of equals, 1 - 1/n for one pixel alone.

    With v the n values in ascending order, ``sum_k (2k - n - 1) v_k / (n sum_k v_k)``, k from 1.

    Parameters
    ----------
    relevance
        The map, (H, W).

    Returns
    -------
    float
        NaN for a map of zeros.

    Raises
    ------
    TypeError, ValueError
        If it is no finite map.

    References
    ----------
    Hurley and Rickard 2009, *Comparing measures of sparsity*; for explanations Chalasani et al.
    2020, *Concise explanations of neural networks using adversarial training*.
    """
    shares = _shares(relevance)
    if shares is None:
        return float("nan")
    ordered, n = np.sort(shares), shares.size
    return float((2.0 * np.arange(1, n + 1) - n - 1.0) @ ordered / n)


def entropy(relevance: ArrayLike) -> float:
    """Entropy of the shares of absolute relevance in nats: 0 for one pixel alone, at most ln n.

    ``-sum_i p_i ln p_i`` with ``p_i = |R_i| / sum_j |R_j|`` and ``0 ln 0 = 0``.

    Parameters
    ----------
    relevance
        The map, (H, W).

    Returns
    -------
    float
        NaN for a map of zeros.

    Raises
    ------
    TypeError, ValueError
        If it is no finite map.

    References
    ----------
    Bhatt, Weller and Moura 2020, *Evaluating and aggregating feature-based model explanations*:
    complexity.
    """
    shares = _shares(relevance)
    if shares is None:
        return float("nan")
    positive = shares[shares > 0.0]
    return float(-(positive @ np.log(positive))) + 0.0  # of one pixel alone 0, not -0


def _shares(relevance: ArrayLike) -> Map | None:
    """Every pixel's share of the absolute relevance, in a row; None where there is none."""
    magnitude = np.abs(read_map(relevance)).ravel()
    largest = magnitude.max()
    if largest == 0.0:
        return None
    magnitude /= largest  # so that no sum overflows
    shares: Map = magnitude / magnitude.sum()
    return shares
