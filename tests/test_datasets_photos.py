"""An item's photo and its annotation, turned upright together; what does not fit is refused."""

from __future__ import annotations

import numpy as np
import pytest

from annotated_photos import STORED, encoded, extent, reader, square
from relprop.datasets import Box, Item, Mask, open_photo

ORIENTATIONS = sorted(STORED)
SIDES = (2, 1, 7, 4)  # left, top, right, bottom in an upright photo of 6 x 9 pixels
UPRIGHT = square(6, 9, *SIDES)


def polygon(left: float, top: float, right: float, bottom: float) -> Mask:
    return Mask("x", polygons=((left, top, right, top, right, bottom, left, bottom),))


def seen(photo: np.ndarray) -> tuple[int, int, int, int]:
    return extent(photo[..., 0] >= 128)


@pytest.mark.parametrize("orientation", ORIENTATIONS)
@pytest.mark.parametrize("form", ["PNG", "JPEG"])
def test_an_annotation_of_the_stored_photo_is_turned_with_it(orientation: int, form: str) -> None:
    stored = STORED[orientation](UPRIGHT)
    sides = seen(stored)
    item = Item(
        "a",
        reader(encoded(UPRIGHT, form, orientation)),
        boxes=(Box(*sides, "x"),),
        masks=(polygon(*sides),),
        size=stored.shape[:2],
    )
    photo = open_photo(item)
    assert photo.image.size == (9, 6) and seen(np.asarray(photo.image)) == SIDES
    assert photo.boxes == (Box(*SIDES, "x"),)
    (mask,) = photo.masks()
    assert extent(mask) == SIDES and mask.shape == (6, 9)


@pytest.mark.parametrize(
    ("orientation", "size"),
    # of 2 to 4 the size is also that of the stored photo, which is taken to be meant
    [(n, None) for n in ORIENTATIONS] + [(n, (6, 9)) for n in (1, 5, 6, 7, 8)],
)
def test_an_annotation_of_the_upright_photo_stays(
    orientation: int, size: tuple[int, int] | None
) -> None:
    boxes, masks = (Box(*SIDES),), (polygon(*SIDES),)
    data = reader(encoded(UPRIGHT, orientation=orientation))
    photo = open_photo(Item("a", data, boxes=boxes, masks=masks, size=size))
    assert photo.boxes == boxes and extent(next(photo.masks())) == SIDES


@pytest.mark.parametrize("size", [(9, 7), (6, 8), (12, 18)])
def test_a_size_that_fits_neither(size: tuple[int, int]) -> None:
    item = Item("a", reader(encoded(UPRIGHT, orientation=6)), boxes=(Box(*SIDES),), size=size)
    with pytest.raises(ValueError, match="but the photo has 6 x 9, or 9 x 6 before it is turned"):
        open_photo(item)


@pytest.mark.parametrize(
    ("box", "clipped"),
    [
        (Box(-1, -0.5, 10, 7, "x"), Box(0, 0, 9, 6, "x")),
        (Box(0, 0, 9, 6), Box(0, 0, 9, 6)),
        (Box(-1.1, 0, 3, 3), None),
        (Box(0, 0, 10.1, 3), None),
        (Box(0, 0, 3, 60), None),
        (Box(9, 0, 10, 3), None),
        (Box(-1, 0, 0, 3), None),
        (Box(100, 100, 110, 110), None),
    ],
)
def test_boxes_over_the_edge(box: Box, clipped: Box | None) -> None:
    item = Item("a", array=UPRIGHT, boxes=(box,))
    if clipped is not None:
        assert open_photo(item).boxes == (clipped,)
        return
    with pytest.raises(ValueError, match="reaches over the edge of a photo of 6 x 9 pixels"):
        open_photo(item)


def test_arrays_are_photos() -> None:
    grey = open_photo(Item("a", array=UPRIGHT[..., 0])).image
    assert grey.mode == "RGB"
    np.testing.assert_array_equal(np.asarray(grey), UPRIGHT)
    with pytest.raises(ValueError, match=r"a photo must be uint8 .*, not float32 \(3, 4, 5\)"):
        open_photo(Item("a", array=np.zeros((3, 4, 5), np.float32)))
    with pytest.raises(ValueError, match="b: not an image in one of the formats"):
        open_photo(Item("b", reader(b"no image at all")))
