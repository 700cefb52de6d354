"""Regions: squares, superpixels, masks, and what is refused."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from relprop.evaluation.segments import Regions, grid, masks, superpixels


@given(st.integers(1, 30), st.integers(1, 30), st.integers(1, 12))
def test_a_grid_is_that_of_plain_loops(height: int, width: int, region: int) -> None:
    labels = grid(height, width, region)
    assert labels.dtype == np.int32 and labels.shape == (height, width)
    number = -1
    for top in range(0, height, region):
        for left in range(0, width, region):
            number += 1
            square = labels[top : top + region, left : left + region]
            assert (square == number).all() and (labels == number).sum() == square.size
    assert labels.max() == number


def test_the_papers_grid_has_narrow_borders() -> None:
    labels = grid(227, 227, 9)
    assert labels.max() + 1 == 26 * 26
    assert Regions(labels).sizes[[0, 25, -1]].tolist() == [81, 18, 4]


def test_an_image_smaller_than_a_region_is_one_region() -> None:
    assert (grid(4, 7, 9) == 0).all()


@pytest.mark.parametrize("name", ["height", "width", "region"])
def test_a_grid_needs_sizes(name: str) -> None:
    sizes = {"height": 3, "width": 3, "region": 3, name: 0}
    with pytest.raises(ValueError, match=f"{name} must be at least 1, not 0"):
        grid(**sizes)


def quadrants() -> np.ndarray[Any, Any]:
    photo = np.zeros((32, 40, 3), np.uint8)
    photo[:16, :20], photo[:16, 20:] = (200, 20, 20), (20, 200, 20)
    photo[16:, :20], photo[16:, 20:] = (20, 20, 200), (200, 200, 20)
    return photo


@pytest.mark.parametrize("as_input", [False, True])
def test_superpixels_follow_edges(as_input: bool) -> None:
    pytest.importorskip("skimage")
    photo = quadrants()
    image = photo.transpose(2, 0, 1).astype(np.float32) / 50 - 2 if as_input else photo
    labels = superpixels(image, 16, compactness=0.1 if as_input else 10)
    count = len(Regions(labels))
    assert labels.dtype == np.int32 and 8 <= count <= 24
    for number in range(count):
        colours = photo[labels == number]
        assert (colours == colours[0]).all()  # none reaches over an edge


def test_superpixels_of_a_flat_image_are_numbered_without_a_gap() -> None:
    pytest.importorskip("skimage")
    assert len(Regions(superpixels(np.full((3, 20, 20), 0.5, np.float32), 9))) >= 1


def test_superpixels_refuse() -> None:
    with pytest.raises(ValueError, match="count must be at least 1, not 0"):
        superpixels(quadrants(), 0)
    with pytest.raises(TypeError, match="not int64 of"):
        superpixels(np.zeros((3, 4, 4), np.int64), 4)
    with pytest.raises(ValueError, match="finite"):
        superpixels(np.full((3, 4, 4), np.nan, np.float32), 4)


def rectangle(top: int, bottom: int, left: int, right: int) -> np.ndarray[Any, Any]:
    mask = np.zeros((6, 8), bool)
    mask[top:bottom, left:right] = True
    return mask


def test_masks_are_numbered_in_order_and_the_rest_is_none() -> None:
    labels = masks([rectangle(0, 2, 0, 3), rectangle(3, 6, 4, 8)])
    for row in range(6):
        for column in range(8):
            expected = 0 if row < 2 and column < 3 else 1 if row >= 3 and column >= 4 else -1
            assert labels[row, column] == expected
    assert Regions(labels).sizes.tolist() == [6, 12]


def test_overlapping_masks_are_refused_or_the_first_wins() -> None:
    given = [rectangle(0, 4, 0, 4), rectangle(2, 6, 2, 8)]
    with pytest.raises(ValueError, match=r"masks\[1\] shares 4 pixels"):
        masks(given)
    assert Regions(masks(given, overlap="first")).sizes.tolist() == [16, 20]


def test_a_mask_may_cover_all() -> None:
    labels = masks([np.ones((6, 8), bool)])
    assert (labels == 0).all() and len(Regions(labels)) == 1


def test_empty_masks_are_refused_or_dropped() -> None:
    given = [np.zeros((6, 8), bool), rectangle(0, 1, 0, 1)]
    with pytest.raises(ValueError, match=r"masks\[0\] must have a pixel of its own"):
        masks(given)
    assert masks(given, empty="drop").max() == 0
    hidden = [rectangle(0, 4, 0, 4), rectangle(1, 2, 1, 2)]
    with pytest.raises(ValueError, match=r"masks\[1\] must have a pixel of its own"):
        masks(hidden, overlap="first")


@pytest.mark.parametrize(
    ("given", "error", "message"),
    [
        ([], ValueError, "at least one, not none"),
        ([np.ones((2, 2))], TypeError, r"masks\[0\] must be bool, not float64"),
        ([np.ones((2, 2), bool), np.ones((2, 3), bool)], ValueError, r"masks\[1\] is \(2, 3\)"),
        ([np.ones(4, bool)], ValueError, "one shape"),
    ],
)
def test_masks_refuse(given: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        masks(given)


@given(st.integers(1, 9), st.integers(1, 9), st.integers(1, 12), st.integers(0, 2**32))
def test_regions_know_their_pixels(height: int, width: int, count: int, seed: int) -> None:
    drawn = np.random.default_rng(seed).integers(-1, count, (height, width))
    drawn.flat[0] = 0
    numbers = {old: new for new, old in enumerate(sorted(set(drawn.flat) - {-1}))}
    labels = np.vectorize(lambda old: numbers.get(old, -1))(drawn)
    regions = Regions(labels)
    assert len(regions) == len(numbers)
    for number in range(len(regions)):
        expected = [at for at, label in enumerate(labels.flat) if label == number]
        assert regions.pixels(number).tolist() == expected
        assert regions.sizes[number] == len(expected)


@pytest.mark.parametrize(
    ("labels", "error", "message"),
    [
        (np.zeros((2, 2)), TypeError, "whole numbers, not float64"),
        (np.zeros(4, int), ValueError, r"not \(4,\)"),
        (np.zeros((0, 4), int), ValueError, r"not \(0, 4\)"),
        (np.array([[0, -2]]), ValueError, "at least -1, not -2"),
        (np.full((2, 2), -1), ValueError, "at least one region"),
        (np.array([[0, 2, 2]]), ValueError, "region 1 of 3 has no pixel"),
        (np.array([[0, 10**9]]), ValueError, "2 pixels and a region 1000000000"),
    ],
)
def test_regions_refuse(labels: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        Regions(labels)
