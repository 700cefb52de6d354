"""Regions cut images where their names say, and what is missing or wrong is said in words."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from relprop.aggregation import (
    Grid,
    InsideBoxes,
    InsideMasks,
    LabelMap,
    MissingAnnotation,
    Thirds,
    regions_of,
)


@dataclass(frozen=True)
class Box:
    left: float
    top: float
    right: float
    bottom: float
    label: Any = None


@dataclass(frozen=True)
class Sample:
    pixels: Any
    boxes: Any = ()
    masks: Any = ()
    mask_labels: Any = ()
    label: Any = None
    key: str = "photo"


def blank(height: int, width: int, **fields: Any) -> Sample:
    return Sample(np.zeros((3, height, width), np.float32), **fields)


@given(height=st.integers(3, 100))
def test_thirds_differ_by_one_row(height: int) -> None:
    labels = Thirds().labels(blank(height, 2))
    assert labels.dtype == np.int32
    assert (np.diff(labels[:, 0]) >= 0).all()
    sizes = np.bincount(labels[:, 0])
    assert len(sizes) == 3 and np.ptp(sizes) <= 1


def test_a_grid_counts_row_by_row() -> None:
    grid = Grid(2, 3)
    assert grid.names == ("r1c1", "r1c2", "r1c3", "r2c1", "r2c2", "r2c3")
    assert grid.labels(blank(2, 3)).tolist() == [[0, 1, 2], [3, 4, 5]]
    assert grid.labels(blank(3, 4)).tolist() == [[0, 0, 1, 2], [0, 0, 1, 2], [3, 3, 4, 5]]
    assert Grid(5, 1).labels(blank(2, 1)).tolist() == [[0], [2]]
    with pytest.raises(ValueError, match="must be >= 1, not 0 and 2"):
        Grid(0, 2)


SIDES = st.floats(-3, 12)


@given(SIDES, SIDES, SIDES, SIDES)
def test_a_pixel_is_inside_where_its_centre_is(a: float, b: float, c: float, d: float) -> None:
    box = Box(min(a, b), min(c, d), max(a, b), max(c, d), "cat")
    labels = InsideBoxes().labels(blank(7, 9, boxes=(box,), label="cat"))
    for y in range(7):
        for x in range(9):
            inside = box.left <= x + 0.5 < box.right and box.top <= y + 0.5 < box.bottom
            assert labels[y, x] == (0 if inside else 1)


def test_boxes_are_chosen_by_class() -> None:
    boxes = (Box(0, 0, 1, 1, "cat"), Box(1, 0, 2, 1, "dog"), Box(0, 1, 1, 2, 0))
    sample = blank(2, 2, boxes=boxes, label="dog")

    def inside(of: str, classes: tuple[str, ...] = ()) -> list[list[bool]]:
        return (InsideBoxes(of, classes).labels(sample) == 0).tolist()

    assert inside("label") == [[False, True], [False, False]]
    assert inside("cat") == [[True, False], [False, False]]
    assert inside("cat", ("cat", "dog")) == [[True, False], [True, False]]
    anything = blank(2, 2, boxes=(Box(0, 0, 1, 1, "any"), *boxes), label="any")
    assert (InsideBoxes().labels(anything) == 0).sum() == 1
    assert inside("any") == [[True, True], [True, False]]


def test_masks_cover_what_they_cover() -> None:
    mask = np.array([[True, False], [False, True]])
    sample = blank(2, 2, masks=(mask,), mask_labels=("cat",), label="cat")
    assert InsideMasks().labels(sample).tolist() == [[0, 1], [1, 0]]
    with pytest.raises(ValueError, match=r"bool of shape \(2, 2\), not bool of \(1, 2\)"):
        InsideMasks().labels(blank(2, 2, masks=(mask[:1],), mask_labels=("cat",), label="cat"))


@pytest.mark.parametrize("regions", [InsideBoxes("horse"), InsideMasks("horse"), InsideBoxes()])
def test_a_sample_without_annotation_says_so(regions: Any) -> None:
    sample = blank(2, 2, boxes=(Box(0, 0, 1, 1, "cat"),), label="horse")
    with pytest.raises(MissingAnnotation, match=r"photo: there is no (box|mask) of class 'horse'"):
        regions.labels(sample)
    with pytest.raises(MissingAnnotation, match=r"there is no box\."):
        InsideBoxes("any").labels(blank(2, 2))


def test_a_sample_without_label_has_no_box_of_its_class() -> None:
    with pytest.raises(MissingAnnotation):
        InsideBoxes().labels(blank(2, 2, boxes=(Box(0, 0, 1, 1, None),)))


def test_a_label_map_is_read_by_key() -> None:
    regions = LabelMap(("sky", "grass"), lambda key: [[0, 1], [-1, len(key) - 5]])
    assert regions.labels(blank(2, 2)).tolist() == [[0, 1], [-1, 0]]
    assert regions.labels(blank(2, 2)).dtype == np.int32
    for wrong, text in (
        ([[0.0, 1.0], [0.0, 1.0]], "whole numbers"),
        ([[0, 1]], r"shape \(2, 2\)"),
        ([[0, 2], [0, 0]], r"in \[-1, 2\), not be 2"),
        ([[0, -2], [0, 0]], "not be -2"),
    ):
        with pytest.raises(ValueError, match=text):
            LabelMap(("sky", "grass"), lambda key, wrong=wrong: wrong).labels(blank(2, 2))
    with pytest.raises(ValueError, match="differ"):
        LabelMap(("sky", "sky"), lambda key: [[0]])


def test_words_name_regions() -> None:
    assert regions_of("thirds").names == ("top", "middle", "bottom")
    assert len(regions_of("grid:3x4").names) == 12
    for word, of in (("boxes", "label"), ("boxes:horse", "horse"), ("masks:any", "any")):
        regions = regions_of(word, ("horse",))
        assert isinstance(regions, (InsideBoxes, InsideMasks))
        assert (regions.of, regions.classes) == (of, ("horse",))
    assert isinstance(regions_of("masks"), InsideMasks)


def test_a_class_that_the_dataset_does_not_have() -> None:
    for word in ("boxes:doggo", "masks:doggo"):
        with pytest.raises(
            ValueError, match=rf"'{word}': .* has no class 'doggo'; close are dog\.$"
        ):
            regions_of(word, ("horse", "dog"))
        assert regions_of(word).of == "doggo", "nobody knows better"
    with pytest.raises(ValueError, match=r"has no class '7'\.$"):
        regions_of("boxes:7", ("horse", "dog"))


WRONG = (
    "",
    "halves",
    "thirds:2",
    "grid",
    "grid:3",
    "grid:0x4",
    "grid:3x-1",
    "grid:3x\u0663",
    "boxes:",
)


@pytest.mark.parametrize("word", WRONG)
def test_other_words_are_refused(word: str) -> None:
    with pytest.raises(ValueError, match="thirds, grid:ROWSxCOLUMNS, boxes, boxes:any"):
        regions_of(word)
