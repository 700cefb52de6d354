"""Cuttings by their words."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from relprop import Preprocessing
from relprop.datasets import Sample
from relprop.errors import MissingAnnotation
from relprop.evaluation.cutting import (
    SUPERPIXELS,
    Masks,
    Squares,
    Superpixels,
    cutting_of,
    number_of_regions,
)
from relprop.evaluation.segments import superpixels


def sample(pixels: NDArray[np.float32], *masks: NDArray[np.bool_]) -> Sample:
    return Sample("key", pixels, None, (), masks, (None,) * len(masks))


@pytest.mark.parametrize(
    ("word", "cutting"),
    [
        ("9", Squares(9)),
        ("pixels", Squares(1)),
        ("superpixels", Superpixels(SUPERPIXELS)),
        ("superpixels:7", Superpixels(7)),
        ("masks", Masks()),
    ],
)
def test_words(word: str, cutting: object) -> None:
    found = cutting_of(word)
    assert found == cutting
    assert cutting_of(found.word) == found


@pytest.mark.parametrize(
    "word", ["0", "-1", "9:1", "", "squares", "superpixels:0", "superpixels:", "²"]
)
def test_other_words_are_refused(word: str) -> None:
    with pytest.raises(ValueError, match="regions must be a side in pixels such as 9, pixels"):
        cutting_of(word)


@pytest.mark.parametrize(("height", "width", "side"), [(7, 9, 3), (4, 4, 9), (5, 2, 1)])
def test_squares(height: int, width: int, side: int) -> None:
    labels = Squares(side).labels(sample(np.zeros((3, height, width), np.float32)))
    columns = -(-width // side)
    for y in range(height):
        for x in range(width):
            assert labels[y, x] == y // side * columns + x // side
    assert number_of_regions(Squares(side), height, width) == labels.max() + 1
    assert number_of_regions(Superpixels(5), height, width) is None


def test_masks_are_regions_and_the_rest_is_none() -> None:
    one, other = np.zeros((2, 2, 3), bool)
    one[0], other[:, 0] = True, True
    labels = Masks().labels(sample(np.zeros((1, 2, 3), np.float32), one, one, other))
    assert labels.tolist() == [[0, 0, 0], [1, -1, -1]]
    with pytest.raises(MissingAnnotation, match="key: it has no masks"):
        Masks().labels(sample(np.zeros((1, 2, 3), np.float32)))


@pytest.mark.parametrize("order", ["rgb", "bgr", "grey"])
def test_superpixels_are_those_of_the_photo(order: str) -> None:
    pytest.importorskip("skimage", reason="needs scikit-image: pip install 'relprop[evaluation]'")
    grey = order == "grey"
    mean, std = ((100.0,), (50.0,)) if grey else ((100.0, 110.0, 120.0), (50.0, 55.0, 60.0))
    preprocessing = Preprocessing((24, 24), mean, std, channel_order=order)  # type: ignore[arg-type]
    photo = np.random.default_rng(0).integers(0, 256, (24, 24, 3), np.uint8)
    pixels = preprocessing(photo)
    found = cutting_of("superpixels:9", preprocessing).labels(sample(pixels))
    np.testing.assert_array_equal(found, superpixels(pixels if grey else photo, 9))
