"""Colours of a network's input: where they come from, how they are spelled, what is refused."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from relprop import Preprocessing
from relprop.evaluation.colours import Colour, Colours, per_channel, read_colour, spelled


def test_colours_of_a_preprocessing() -> None:
    preprocessing = Preprocessing((4, 4), (100, 110, 120), (50, 51, 52), channel_order="bgr")
    colours = Colours.of(preprocessing)
    black, mean, white = (
        preprocessing(np.full((4, 4, 3), colour, np.uint8))[:, 0, 0]
        for colour in (0, (120, 110, 100), 255)
    )
    for found, expected in zip((colours.low, colours.mean, colours.high), (black, mean, white)):
        np.testing.assert_array_equal(np.float32(found), expected)


def test_colours_of_bounds() -> None:
    assert Colours.of_bounds((0, 1), 2) == Colours((0.0, 0.0), (1.0, 1.0))
    assert Colours.of_bounds((0, (1, 2)), 2) == Colours((0.0, 0.0), (1.0, 2.0))


def test_a_number_is_the_colour_of_every_channel() -> None:
    assert per_channel(0.5, 2).tolist() == [[[0.5]], [[0.5]]]
    assert per_channel((0.5, 1.0), 2).tolist() == [[[0.5]], [[1.0]]]


@pytest.mark.parametrize(
    ("colour", "word"), [(0.5, "0.5"), (-1.0, "-1"), ((0.1, 0.25, 3.0), "0.1/0.25/3")]
)
def test_words_of_colours(colour: Colour, word: str) -> None:
    assert spelled(colour) == word
    assert read_colour(word) == colour


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Colours((1,), (0,)), "low must be <= high"),
        (lambda: Colours((0, 0), (1,)), "high must be a finite number for each of 2"),
        (lambda: Colours((0,), (1,), (np.nan,)), "mean must be a finite number"),
        (lambda: Colours.of_bounds((0, 1, 2), 3), "pair"),
        (lambda: Colours.of_bounds((0, (1, 2)), 3), "high has shape"),
        (lambda: per_channel((1.0, 2.0), 3), "must have 3 channels, not 2"),
    ],
)
def test_what_is_refused(make: Callable[[], object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()
