"""Items, boxes and masks: what they refuse, and the forms of a mask."""

from __future__ import annotations

import math

import numpy as np
import pytest

from annotated_photos import encoded, reader
from relprop.datasets import Box, Item, Mask, RunLengths
from relprop.datasets.items import main_class

NUMBERS = np.array([[0, 1, 2], [2, 2, 255]], np.uint8)


@pytest.mark.parametrize("sides", [(3, 0, 3, 2), (4, 0, 3, 2), (0, 2, 1, 2), (0, 0, 1, math.inf)])
def test_a_box_has_an_area(sides: tuple[float, ...]) -> None:
    with pytest.raises(ValueError, match=r"must be finite|must have an area"):
        Box(*sides)


def test_the_largest_box_gives_the_class() -> None:
    assert main_class([Box(0, 0, 2, 2, "cat"), Box(0, 0, 5, 1, "dog")]) == "dog"
    assert main_class([]) is None


def test_an_item_has_one_content() -> None:
    with pytest.raises(ValueError, match=r"a\.png: an item has either read or array"):
        Item("a.png")
    with pytest.raises(ValueError, match="either read or array"):
        Item("a.png", read=bytes, array=NUMBERS)


def test_a_mask_has_one_form() -> None:
    with pytest.raises(ValueError, match="by one of them"):
        Mask("cat")
    with pytest.raises(ValueError, match="by one of them"):
        Mask("cat", polygons=((0, 0, 1, 0, 1, 1),), read=bytes)


def test_a_mask_of_an_image_of_numbers() -> None:
    read = reader(encoded(NUMBERS))
    np.testing.assert_array_equal(Mask(read=read).pixels(2, 3), NUMBERS != 0)
    np.testing.assert_array_equal(Mask(read=read, value=2).pixels(2, 3), NUMBERS == 2)
    with pytest.raises(ValueError, match=r"the mask has the size \(2, 3\), the photo \(3, 2\)"):
        Mask(read=read).pixels(3, 2)
    with pytest.raises(ValueError, match="need a palette or 8-bit grey image, not mode RGB"):
        Mask(read=reader(encoded(np.zeros((2, 3, 3), np.uint8)))).pixels(2, 3)
    with pytest.raises(ValueError, match="mask: not an image"):
        Mask(read=reader(b"no image at all")).pixels(2, 3)


def test_masks_of_polygons_and_runs() -> None:
    half = [[True, False], [True, False]]
    assert Mask(polygons=((0, 0, 1, 0, 1, 2, 0, 2),)).pixels(2, 2).tolist() == half
    assert Mask(runs=RunLengths(2, 2, (0, 2, 2))).pixels(2, 2).tolist() == half
    with pytest.raises(ValueError, match="the mask has the size"):
        Mask(runs=RunLengths(2, 2, (0, 2, 2))).pixels(1, 4)
