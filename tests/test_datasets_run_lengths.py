"""Run lengths, against plain loops that count and write them."""

from __future__ import annotations

import contextlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from relprop.datasets import RunLengths

MASKS = st.tuples(st.integers(1, 9), st.integers(1, 9)).flatmap(lambda size: arrays(bool, size))


def counted(mask: np.ndarray) -> list[int]:
    counts, current = [0], False
    for value in mask.T.ravel().tolist():
        if value != current:
            counts.append(0)
            current = value
        counts[-1] += 1
    return counts


def written(counts: list[int]) -> str:
    """COCO's text, as its authors describe it."""
    text = ""
    for i, count in enumerate(counts):
        x = count - counts[i - 2] if i > 2 else count
        more = True
        while more:
            digit = x & 31
            x >>= 5
            more = x != (-1 if digit & 16 else 0)
            text += chr(48 + digit + 32 * more)
    return text


@given(MASKS)
def test_round_trip(mask: np.ndarray) -> None:
    counts = counted(mask)
    for form in (tuple(counts), written(counts)):
        np.testing.assert_array_equal(RunLengths(*mask.shape, form).pixels(), mask)


def test_long_runs_take_several_digits() -> None:
    mask = np.zeros((700, 900), bool)
    mask[100:600, 300:700] = True
    np.testing.assert_array_equal(RunLengths(700, 900, written(counted(mask))).pixels(), mask)


@pytest.mark.parametrize(
    ("height", "width", "counts", "text"),
    [
        (2, 3, (1, 2), "do not fill a mask of 2 x 3"),
        (2, 3, (1, 6), "do not fill"),
        (2, 3, (), "do not fill"),
        (2, 3, (-1, 7), "do not fill"),
        (2, 3, (10**30, 6), "do not fill"),
        (0, 3, (), "cannot fill a mask of 0 x 3"),
        (10**6, 10**6, (10**12,), "cannot fill"),
        (2, 3, " ", "the text of run lengths is broken"),
        (2, 3, "é", "the text of run lengths is broken"),
        (2, 3, "o" * 9, "the text of run lengths is broken"),
        (2, 3, "6o", "cut off"),
        (2, 3, "60", None),
    ],
)
def test_broken_runs(height: int, width: int, counts: tuple[int, ...] | str, text: str) -> None:
    runs = RunLengths(height, width, counts)
    if text is None:
        assert not runs.pixels().any()
        return
    with pytest.raises(ValueError, match=text):
        runs.pixels()


@given(st.integers(1, 5), st.integers(1, 5), st.text(max_size=12))
def test_any_text_is_a_mask_or_a_value_error(height: int, width: int, text: str) -> None:
    with contextlib.suppress(ValueError):
        assert RunLengths(height, width, text).pixels().shape == (height, width)
