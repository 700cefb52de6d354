"""The order of regions: by plain loops, with ties, and at random."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from relprop.evaluation.ordering import order_of, region_relevance
from relprop.evaluation.segments import Regions, grid
from relprop.evaluation.streams import Stream


def plain(order: str, labels: Any, relevance: Any, by: str) -> list[int]:
    """Again, by loops: take the best of what is left, the first of equals."""
    values = []
    for region in range(labels.max() + 1):
        pixels = [
            sum(float(plane[row, column]) for plane in relevance)
            for row in range(labels.shape[0])
            for column in range(labels.shape[1])
            if labels[row, column] == region
        ]
        values.append(sum(pixels) / (len(pixels) if by == "mean" else 1))
    left = list(range(len(values)))
    taken = []
    while left:
        best = left[0]
        for region in left:
            if values[region] > values[best] if order == "morf" else values[region] < values[best]:
                best = region
        taken.append(best)
        left.remove(best)
    return taken


@settings(deadline=None)
@given(
    st.integers(1, 12),
    st.integers(1, 12),
    st.integers(1, 5),
    st.integers(1, 3),
    st.integers(1, 6),
    st.sampled_from(["morf", "lerf"]),
    st.sampled_from(["sum", "mean"]),
    st.integers(0, 2**32),
)
def test_orders_are_those_of_plain_loops(
    height: int, width: int, region: int, channels: int, spread: int, order: Any, by: Any, seed: int
) -> None:
    """Small whole numbers, whose sums are exact and often equal."""
    rng = np.random.default_rng(seed)
    relevance = rng.integers(-spread, spread + 1, (channels, height, width)).astype(np.float32)
    labels = grid(height, width, region)
    found = order_of(order, Regions(labels), relevance, by=by)
    assert found.tolist() == plain(order, labels, relevance, by)


@pytest.mark.parametrize("value", [0.0, 0.1, -3e7])
def test_a_constant_map_gives_one_order_whether_most_or_least_comes_first(value: float) -> None:
    regions = Regions(grid(18, 27, 9))
    relevance = np.full((3, 18, 27), value, np.float32)
    for order in ("morf", "lerf"):
        assert order_of(order, regions, relevance).tolist() == list(range(6))


def test_narrow_borders_lose_by_their_sum_and_not_by_their_mean() -> None:
    relevance = np.ones((4, 5))
    relevance[:, 4] = 2
    regions = Regions(grid(4, 5, 4))
    assert region_relevance(relevance, regions).tolist() == [16, 8]
    assert region_relevance(relevance, regions, "mean").tolist() == [1, 2]
    assert order_of("morf", regions, relevance).tolist() == [0, 1]
    assert order_of("morf", regions, relevance, by="mean").tolist() == [1, 0]


def test_pixels_of_no_region_count_nowhere() -> None:
    labels = np.array([[0, -1], [-1, 1]])
    relevance = np.array([[1.0, 100.0], [100.0, 2.0]])
    assert region_relevance(relevance, Regions(labels)).tolist() == [1, 2]


def test_relevance_is_summed_in_float64() -> None:
    relevance = np.array([[[2.0**30, 1.0]]], np.float32)
    assert region_relevance(relevance, Regions(np.zeros((1, 2), int))).tolist() == [2.0**30 + 1]


def test_random_orders_are_permutations_of_their_stream() -> None:
    regions = Regions(grid(12, 12, 3))
    stream = Stream(0, ("a", 1))
    first = order_of("random", regions, stream=stream)
    assert sorted(first) == list(range(16))
    assert np.array_equal(order_of("random", regions, stream=stream), first)
    others = [order_of("random", regions, stream=stream.child(i)) for i in range(400)]
    places = np.stack(others).mean(axis=0)
    assert np.abs(places - 7.5).max() < 1  # every place holds any region: 4.6 / sqrt(400) = 0.23


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"order": "best"}, ValueError, "must be one of morf, lerf, random, not 'best'"),
        ({"order": "random"}, TypeError, "needs a stream"),
        ({"relevance": None}, TypeError, "order='morf' needs relevance, not None"),
        ({"by": "median"}, ValueError, "by must be"),
        ({"relevance": np.zeros((2, 3))}, ValueError, r"\(2, 2\), not \(2, 3\)"),
        ({"relevance": np.zeros(4)}, ValueError, r"not \(4,\)"),
        ({"relevance": np.array([[0, 1], [np.nan, 2]])}, ValueError, r"not nan at pixel \(1, 0\)"),
        ({"relevance": np.array([[0, np.inf], [1, 2]])}, ValueError, "not inf at pixel"),
        ({"relevance": [["a"]]}, TypeError, "array of numbers"),
    ],
)
def test_orders_refuse(arguments: Any, error: type[Exception], message: str) -> None:
    given = {"order": "morf", "relevance": np.zeros((2, 2)), **arguments}
    with pytest.raises(error, match=message):
        order_of(given.pop("order"), Regions(np.arange(4).reshape(2, 2)), **given)
