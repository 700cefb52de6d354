"""Localisation against plain loops, and what is not defined is no number."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from relprop.aggregation import InsideBoxes
from relprop.datasets import Box
from relprop.evaluation import (
    box_mask,
    class_accuracies,
    maps_of,
    mean_class_accuracy,
    pointing_game,
    relevance_mass,
    relevance_rank,
    top_k_intersection,
)
from test_regions import Sample


@st.composite
def maps_and_masks(draw: st.DrawFn, ties: bool = True) -> tuple[np.ndarray, np.ndarray]:
    """A map and a mask that neither covers nothing nor all; with or without equal values."""
    shape = draw(st.tuples(st.integers(1, 9), st.integers(1, 9)))
    assume(math.prod(shape) > 1)
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    values = rng.integers(-3, 4, shape) / 4 if ties else rng.standard_normal(shape)
    mask = rng.random(shape) < draw(st.sampled_from([0.1, 0.5, 0.9]))
    mask.flat[rng.choice(mask.size, 2, replace=False)] = True, False
    return values, mask


# --- The pointing game ---------------------------------------------------------------------------


@given(maps_and_masks(), st.sampled_from([0, 0.5, 1, 1.5, 2, 4, 15]))
def test_a_hit_is_near_the_maximum(case: tuple[np.ndarray, np.ndarray], tolerance: float) -> None:
    values, mask = case
    assume(len(np.unique(values)) > 1)
    highest, best = -math.inf, (0, 0)
    for y in range(len(values)):
        for x in range(len(values[0])):
            if values[y, x] > highest:
                highest, best = values[y, x], (y, x)
    expected = False
    for y in range(len(values)):
        for x in range(len(values[0])):
            distance = math.hypot(y - best[0], x - best[1])
            if mask[y, x] and (distance < tolerance or distance == 0):
                expected = True
    assert pointing_game(values, mask, tolerance) is expected


def test_the_tolerance_is_a_disc_without_its_rim() -> None:
    """As TorchRay has it: a pixel at exactly 15 is too far."""
    values, mask = np.zeros((31, 31)), np.zeros((31, 31), bool)
    values[0, 0] = 1.0
    for place, hit in (((0, 14), True), ((0, 15), False), ((9, 12), False), ((8, 12), True)):
        mask[:] = False
        mask[place] = True
        assert pointing_game(values, mask) is hit


def test_of_equal_maxima_the_first_one_points() -> None:
    values = np.array([[0.0, 1.0, 0.0], [1.0, 0.0, 1.0]])
    for place, hit in (((0, 1), True), ((1, 0), False), ((1, 2), False)):
        mask = np.zeros((2, 3), bool)
        mask[place] = True
        assert pointing_game(values, mask, 0) is hit


def test_a_constant_map_misses() -> None:
    mask = np.array([[True, False], [False, False]])
    assert pointing_game(np.zeros((2, 2)), mask) is False
    assert pointing_game(np.full((2, 2), 3.0), mask) is False


def test_accuracy_is_the_mean_over_classes() -> None:
    hits = [True, True, False, None, False, None]
    classes = ["cat", "cat", "cat", "cat", "dog", "bird"]
    assert class_accuracies(hits, classes) == {"cat": 2 / 3, "dog": 0.0}
    assert mean_class_accuracy(hits, classes) == pytest.approx(1 / 3)
    assert math.isnan(mean_class_accuracy([None], ["cat"]))
    assert math.isnan(mean_class_accuracy([], []))
    with pytest.raises(ValueError, match="one for each of 6 hits, not 1"):
        mean_class_accuracy(hits, ["cat"])


# --- Mass, rank, top k ---------------------------------------------------------------------------


@given(maps_and_masks())
def test_mass_is_the_share_of_positive_relevance(case: tuple[np.ndarray, np.ndarray]) -> None:
    values, mask = case
    inside = total = 0.0
    for y in range(len(values)):
        for x in range(len(values[0])):
            if values[y, x] > 0:
                total += values[y, x]
                inside += values[y, x] if mask[y, x] else 0.0
    found = relevance_mass(values, mask)
    if total == 0:
        assert math.isnan(found)
    else:
        assert found == pytest.approx(inside / total, rel=1e-12)


def chosen_by_loops(values: np.ndarray, mask: np.ndarray, k: int) -> float:
    """How many of the k highest are in the mask: the mean over all orders of the tied ones."""
    pixels = sorted(zip(values.ravel(), mask.ravel()), key=lambda pixel: -pixel[0])
    places, found = k, 0.0
    while places > 0:
        tied = [inside for value, inside in pixels if value == pixels[0][0]]
        pixels = pixels[len(tied) :]
        taken = min(places, len(tied))
        found += taken * sum(map(int, tied)) / len(tied)
        places -= taken
    return found / k


@given(maps_and_masks(), st.data())
def test_rank_and_top_k_share_places_among_equals(
    case: tuple[np.ndarray, np.ndarray], data: st.DataObject
) -> None:
    values, mask = case
    k = data.draw(st.integers(1, values.size))
    expected = chosen_by_loops(values, mask, k)
    assert top_k_intersection(values, mask, k) == pytest.approx(expected, rel=1e-12)
    size = int(mask.sum())
    assert relevance_rank(values, mask) == pytest.approx(chosen_by_loops(values, mask, size))
    assert relevance_rank(values, mask) == top_k_intersection(values, mask, size)


@given(maps_and_masks(), st.integers(0, 2**32 - 1))
def test_only_which_pixels_are_inside_counts(
    case: tuple[np.ndarray, np.ndarray], seed: int
) -> None:
    """Pixels in another order: ties are not decided by where they are."""
    values, mask = case
    order = np.random.default_rng(seed).permutation(values.size)
    other = values.ravel()[order].reshape(values.shape), mask.ravel()[order].reshape(mask.shape)
    assert relevance_rank(*other) == relevance_rank(values, mask)
    assert relevance_mass(*other) == pytest.approx(relevance_mass(values, mask), nan_ok=True)


def test_a_constant_map_ranks_as_chance() -> None:
    mask = np.zeros((4, 5), bool)
    mask[:2, :3] = True
    assert relevance_rank(np.ones((4, 5)), mask) == pytest.approx(6 / 20)


def test_a_map_of_the_mask_itself_is_perfect() -> None:
    mask = np.zeros((8, 8), bool)
    mask[2:5, 3:6] = True
    assert relevance_mass(mask.astype(float), mask) == 1.0
    assert relevance_rank(mask.astype(float), mask) == 1.0
    assert relevance_rank(-mask.astype(float), mask) == 0.0
    assert top_k_intersection(mask.astype(float), mask, 18) == 0.5


def test_mass_survives_any_magnitude() -> None:
    mask = np.array([[True, False]])
    for scale in (1e308, 5e-324):
        assert relevance_mass(np.array([[scale, scale]]), mask) == 0.5


# --- What is not defined -------------------------------------------------------------------------


@pytest.mark.parametrize("covers", [False, True])
def test_a_mask_of_nothing_or_all_gives_no_number(covers: bool) -> None:
    values, mask = np.arange(6.0).reshape(2, 3), np.full((2, 3), covers)
    assert pointing_game(values, mask) is None
    assert math.isnan(relevance_mass(values, mask))
    assert math.isnan(relevance_rank(values, mask))
    assert math.isnan(top_k_intersection(values, mask, 2))


def test_without_positive_relevance_there_is_no_mass() -> None:
    mask = np.array([[True, False]])
    assert math.isnan(relevance_mass(np.zeros((1, 2)), mask))
    assert math.isnan(relevance_mass(np.array([[-1.0, -2.0]]), mask))


def test_what_does_not_fit_is_refused() -> None:
    values, mask = np.arange(4.0).reshape(2, 2), np.array([[True, False], [False, False]])
    for function in (pointing_game, relevance_mass, relevance_rank):
        with pytest.raises(TypeError, match="mask must be bool, not int"):
            function(values, mask.astype(int))
        with pytest.raises(ValueError, match=r"shape \(2, 2\), not \(1, 2\)"):
            function(values, mask[:1])
        with pytest.raises(ValueError, match=r"must be finite, not nan at pixel \(0, 1\)"):
            function(np.array([[0.0, math.nan], [1.0, 2.0]]), mask)
        with pytest.raises(ValueError, match=r"for each image, not \(1, 1, 2, 2\)"):
            function(values[None, None], mask)
        with pytest.raises(TypeError, match="numbers, not of complex128"):
            function(values * 1j, mask)
    for k in (0, 5):
        with pytest.raises(ValueError, match=f"at least 1 and at most 4, not {k}"):
            top_k_intersection(values, mask, k)
    for tolerance in (-1, math.nan):
        with pytest.raises(ValueError, match=f"at least 0 pixels, not {tolerance}"):
            pointing_game(values, mask, tolerance)


# --- Maps and masks ------------------------------------------------------------------------------


def test_a_map_sums_channels_in_double_precision() -> None:
    relevance = np.float32([[[[2.0**24]], [[1.0]], [[-(2.0**24)]]]])
    assert maps_of(relevance).tolist() == [[[1.0]]]
    with pytest.raises(ValueError, match=r"\(N, C, H, W\), not of shape \(1, 3, 4\)"):
        maps_of(np.zeros((1, 3, 4)))


SIDE = st.floats(-2, 10)


@given(st.lists(st.tuples(SIDE, SIDE, SIDE, SIDE), max_size=3))
def test_boxes_become_pixels_as_in_the_regions(sides: list[tuple[float, ...]]) -> None:
    boxes = [
        Box(min(a, b), min(c, d), max(a, b), max(c, d), "cat")
        for a, b, c, d in sides
        if a != b and c != d
    ]
    mask = box_mask(boxes, 6, 8)
    for y in range(6):
        for x in range(8):
            assert mask[y, x] == any(
                box.left <= x + 0.5 < box.right and box.top <= y + 0.5 < box.bottom for box in boxes
            )
    if boxes:
        sample = Sample(np.zeros((3, 6, 8), np.float32), tuple(boxes), label="cat")
        assert ((InsideBoxes().labels(sample) == 0) == mask).all()
