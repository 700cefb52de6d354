"""Where the batch is in values that move it, or merge it with other axes."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from relprop.frontends.batch_axis import HOME, Place, common
from relprop.frontends.conversion import Unsupported

N = 5


def apart(values: np.ndarray, place: Place) -> np.ndarray:
    """A value with the batch first, as a Graph has it."""
    shape = values.shape
    split = (*shape[: place.axis], place.outer, N, place.inner, *shape[place.axis + 1 :])
    moved = np.moveaxis(values.reshape(split), place.axis + 1, 0)
    return moved.reshape(N, *place.sample(shape))


@given(data=st.data())
@settings(max_examples=200, deadline=None)
def test_values_follow_the_batch(data) -> None:
    shape = tuple(data.draw(st.lists(st.integers(1, 4), min_size=1, max_size=4)))
    place, values = HOME, np.arange(N * np.prod(shape)).reshape(N, *shape)
    sample = apart(values, place)
    for _ in range(data.draw(st.integers(1, 5))):
        if data.draw(st.booleans()):
            dims = data.draw(st.permutations(range(values.ndim)))
            axes, place = place.permuted(dims)
            values = values.transpose(dims)
            sample = sample.transpose(0, *(axis + 1 for axis in axes))
        else:
            first, last = sorted(data.draw(st.tuples(*[st.integers(0, values.ndim)] * 2)))
            merged = int(np.prod(values.shape[first:last]))
            target = (*values.shape[:first], merged, *values.shape[last:])
            place = place.viewed_as(sample.shape[1:], [target], (N,))
            values = values.reshape(target)
            sample = sample.reshape(N, *place.sample(target))
        assert place.full(sample.shape[1:], N) == values.shape
        np.testing.assert_array_equal(apart(values, place), sample)


def test_axes_of_a_sample() -> None:
    place = Place(1, 2, 3)
    assert place.sample((4, 30, 7)) == (4, 2, 3, 7)
    assert [place.axis_of(dim, 3) for dim in (0, 2, -1)] == [0, 3, 3]
    with pytest.raises(Unsupported, match="batch axis"):
        place.axis_of(-2, 3)


def test_a_view_that_splits_samples() -> None:
    for before, behind in (((2,), (12,)), ((), (5,)), ((3,), ())):
        with pytest.raises(Unsupported, match="batch axis"):
            HOME.viewed((4, 6), before, behind)
    assert HOME.viewed((4, 6), (), (12,)) == Place(0, 1, 2)


def test_values_that_are_broadcast() -> None:
    assert common([(Place(1), 3), (HOME, 2)], 4) == Place(2)
    with pytest.raises(Unsupported, match="batch axis"):
        common([(HOME, 3), (HOME, 2)], 3)
    with pytest.raises(Unsupported, match="batch axis"):
        common([(HOME, 3), (Place(0, 1, 2), 3)], 3)


def test_of_a_batch_of_one_the_likeliest_axis_is_taken() -> None:
    assert Place(1).viewed_as((5, 8), [(5, 2, 4)], (1,)) == Place(1, 1, 2)
    assert Place(1).viewed_as((5, 8), [(5, 8)], (1,)) == Place(0, 5)
    assert HOME.viewed_as((5, 8), [(1, 40)], (1,)) == HOME
    with pytest.raises(Unsupported, match="batch axis"):
        HOME.viewed_as((5, 8), [(3, 40), (3, 80)], (3, 7))
