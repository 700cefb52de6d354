"""Reading ahead: order, bounds, what becomes of boxes and masks, and items that cannot be used."""

from __future__ import annotations

import dataclasses
import io
import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from annotated_photos import encoded, extent, items, photo, reader, rejected, square, write
from relprop import images
from relprop.datasets import Box, Item, Mask, Rejected, RunLengths, open_dataset, read_ahead
from relprop.preprocessing import Preprocessing

FIT = Preprocessing((4, 4), (0, 0, 0), (255, 255, 255), resize=4)


class Listing(list[Item | Rejected]):
    """A dataset of given items."""

    name = "listing"
    classes = ()

    def shard(self, index: int, count: int) -> Listing:
        return Listing(self[index::count])


def test_the_order_is_the_datasets_whatever_the_threads() -> None:
    def slow(n: int) -> bytes:
        time.sleep(0.002 * (7 - n % 8))
        return photo(color=n)

    found = Listing(Item(str(n), lambda n=n: slow(n)) for n in range(24))
    found.insert(5, Rejected("bad", "it is bad."))
    expected = [item.key for item in found]
    for workers, ahead in ((1, 1), (1, 64), (4, 3), (4, 64)):
        assert [each.key for each in read_ahead(found, FIT, workers, ahead)] == expected


def test_no_more_is_read_than_asked_for() -> None:
    reads: list[int] = []
    lock = threading.Lock()

    def read(n: int) -> bytes:
        with lock:
            reads.append(n)
        return photo()

    found = Listing(Item(str(n), lambda n=n: read(n)) for n in range(100))
    reading = read_ahead(found, FIT, workers=3, ahead=5)
    for n in range(10):
        next(reading)
        assert len(reads) <= n + 5
    reading.close()  # type: ignore[attr-defined]
    assert len(reads) < 16
    assert not [t for t in threading.enumerate() if t.name.startswith("relprop-reader")]


def test_pixels_boxes_and_masks_lie_in_the_input() -> None:
    pixels = square(8, 16, 6, 2, 10, 6)  # the crop sees columns 4 to 12
    runs = RunLengths(8, 16, (0, 16, 112))  # columns 0 and 1
    item = Item(
        "a",
        array=pixels,
        label="cat",
        boxes=(Box(6, 2, 10, 6, "cat"), Box(0, 0, 8, 8, "dog"), Box(0, 0, 4, 8, "left out")),
        masks=(
            Mask("cat", polygons=((6, 2, 10, 2, 10, 6, 6, 6),)),
            Mask("left out", runs=runs),
            Mask("all", runs=RunLengths(8, 16, (0, 128))),
        ),
    )
    (sample,) = items(read_ahead(Listing([item]), FIT))
    assert (sample.key, sample.label) == ("a", "cat")
    assert sample.pixels.dtype == np.float32 and sample.pixels.shape == (3, 4, 4)
    assert extent(sample.pixels[0] >= 0.5) == (1, 1, 3, 3)
    assert sample.boxes == (Box(1, 1, 3, 3, "cat"), Box(0, 0, 2, 4, "dog"))
    assert sample.mask_labels == ("cat", "all")
    assert [extent(mask) for mask in sample.masks] == [(1, 1, 3, 3), (0, 0, 4, 4)]
    assert {mask.dtype for mask in sample.masks} == {np.dtype(bool)}


def test_floats_are_ready_inputs() -> None:
    array = np.arange(48, dtype=np.float64).reshape(3, 4, 4)
    boxes = (Box(1, 1, 9, 3),)
    mask = Mask(runs=RunLengths(4, 4, (0, 4, 12)))
    found = Listing([Item("a", array=array, boxes=boxes, masks=(mask,))])
    for fit in (FIT, None):
        (sample,) = items(read_ahead(found, fit))
        assert sample.pixels.dtype == np.float32
        np.testing.assert_array_equal(sample.pixels, array)
        assert sample.boxes == (Box(1, 1, 4, 3),) and extent(sample.masks[0]) == (0, 0, 1, 4)


def test_every_unusable_item_has_its_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing() -> bytes:
        raise FileNotFoundError("x.jpg: there is no such file.")

    monkeypatch.setattr(images, "MAX_PIXELS", 200)
    floats = io.BytesIO()
    Image.new("F", (3, 2)).save(floats, "TIFF")
    nan = np.full((3, 4, 4), np.nan, np.float32)
    broken = Mask(runs=RunLengths(6, 8, (1, 2)))
    found = Listing(
        [
            Item("missing", missing),
            Item("empty", reader(b"")),
            Item("truncated", reader(photo()[:200])),
            Item("text", reader(b"hello, I am a text")),
            Item("mode", reader(floats.getvalue())),
            Item("large", reader(photo(20, 30))),
            Item("size", reader(photo()), size=(8, 9)),
            Item("outside", reader(photo()), boxes=(Box(20, 20, 30, 30),)),
            Item("runs", reader(photo()), masks=(broken,)),
            Item("nan", array=nan),
            Item("shape", array=np.zeros((1, 4, 4), np.float32)),
            Item("kind", array=np.zeros((4, 4, 3), np.int32)),
            Item(os.fsdecode(b"\xff"), reader(photo())),
            Item("good", reader(photo())),
        ]
    )
    reasons = rejected(read_ahead(found, FIT))
    for key, text in {
        "missing": "there is no such file",
        "empty": "the file is empty",
        "truncated": "cannot be read as an image",
        "text": "not an image in one of the formats",
        "mode": "floating-point pixels have no known range",
        "large": "30 x 20 pixels are more than the 200 allowed",
        "size": "the annotation is for 8 x 9 pixels",
        "outside": "reaches over the edge",
        "runs": "run lengths do not fill",
        "nan": "must be finite floats",
        "shape": "has the shape (3, 4, 4), the array (1, 4, 4)",
        "kind": "a photo must be uint8",
        r"\udcff": "its name is not in UTF-8",
    }.items():
        assert text in reasons.pop(key)
    assert not reasons
    photos = Listing([Item("a", reader(photo()))])
    assert "a photo needs preprocessing" in rejected(read_ahead(photos, None))["a"]


@pytest.mark.parametrize(("name", "value"), [("workers", 0), ("ahead", 0)])
def test_numbers_are_checked_at_once(name: str, value: int) -> None:
    with pytest.raises(ValueError, match=f"{name} must be at least 1, not 0"):
        read_ahead(Listing(), FIT, **{name: value})


def test_errors_of_the_dataset_itself_are_raised() -> None:
    def broken() -> Iterator[np.ndarray]:
        yield np.zeros((4, 4, 3), np.uint8)
        raise RuntimeError("the camera is gone")

    with pytest.raises(RuntimeError, match="the camera is gone"):
        list(read_ahead(open_dataset(broken()), FIT))


@pytest.mark.parametrize("orientation", [1, 3, 6])
@pytest.mark.parametrize("resize", [None, 40])
def test_a_drawn_square_lands_in_its_box(
    tmp_path: Path, orientation: int, resize: int | None
) -> None:
    """From the file of a turned photo and its annotation to the network's input."""
    pixels = square(90, 150, 50, 20, 80, 60)
    write(tmp_path / "JPEGImages/a.jpg", encoded(pixels, "JPEG", orientation))
    sides = {1: (50, 20, 80, 60), 3: (70, 30, 100, 70), 6: (20, 70, 60, 100)}[orientation]
    width, height = (90, 150) if orientation == 6 else (150, 90)
    left, top, right, bottom = sides
    write(
        tmp_path / "Annotations/a.xml",
        f"<annotation><size><width>{width}</width><height>{height}</height></size>"
        f"<object><name>cat</name><bndbox><xmin>{left + 1}</xmin><ymin>{top + 1}</ymin>"
        f"<xmax>{right}</xmax><ymax>{bottom}</ymax></bndbox></object></annotation>",
    )
    fit = dataclasses.replace(FIT, size=(30, 36), resize=resize)
    (sample,) = items(read_ahead(open_dataset(tmp_path), fit))
    (box,) = sample.boxes
    found = extent(sample.pixels.mean(axis=0) >= 0.5)
    assert np.abs(np.array(found) - (box.left, box.top, box.right, box.bottom)).max() <= 0.6
