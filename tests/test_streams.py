"""Random numbers depend on the seed and the names, and on nothing else."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from relprop.evaluation.streams import Stream

NAMES = st.lists(st.one_of(st.text(max_size=4), st.integers(0, 3)), max_size=3)


def drawn(stream: Stream) -> list[float]:
    return stream.generator().random(4).tolist()


def test_a_stream_begins_anew_and_children_are_named_in_order() -> None:
    stream = Stream(5, ("photo.jpg",))
    assert drawn(stream) == drawn(stream)
    assert drawn(stream.child(3).child("order")) == drawn(Stream(5, ("photo.jpg", 3, "order")))


@given(st.integers(-5, 5), NAMES, st.integers(-5, 5), NAMES)
def test_streams_that_differ_in_anything_draw_other_numbers(
    seed: int, names: list[str | int], other_seed: int, other_names: list[str | int]
) -> None:
    one, other = Stream(seed, tuple(names)), Stream(other_seed, tuple(other_names))
    assert (drawn(one) == drawn(other)) == (one == other)


def test_numpys_integers_are_integers() -> None:
    assert drawn(Stream(0, (np.int64(7),))) == drawn(Stream(0, (7,)))


def test_a_number_and_its_text_are_two_names() -> None:
    assert drawn(Stream(0, ("7",))) != drawn(Stream(0, (7,)))
