"""How the core stores tensors: images channels last, two axes as their neighbours compute."""

from __future__ import annotations

import numpy as np
import pytest

from relprop import graph as g
from relprop.layouts import Layout, layouts


@pytest.mark.parametrize(
    ("layout", "extent"),
    [
        (Layout((), False), (1, 1, 1, 1)),
        (Layout((5,), False), (1, 1, 1, 5)),
        (Layout((4, 5), False), (1, 1, 4, 5)),
        (Layout((4, 5), True), (1, 1, 5, 4)),
        (Layout((2, 3, 4), True), (1, 3, 4, 2)),
        (Layout((2, 3, 4, 5), True), (3, 4, 5, 2)),
        (Layout((2, 3, 4, 5, 6), False), (1, 1, 120, 6)),
    ],
)
def test_places_lead_to_what_is_stored(layout: Layout, extent: tuple[int, ...]) -> None:
    values = np.arange(np.prod(layout.shape, dtype=int)).reshape(layout.shape)
    assert layout.extent == extent
    np.testing.assert_array_equal(layout.stored(values)[layout.places()], values)


def test_tokens_are_rows_and_what_is_between_follows() -> None:
    """Attention's moves begin and end where dense layers and matrix products read and write."""
    graph = g.Graph()
    graph.add("image", g.Input((3, 8, 8)))
    graph.add("patches", g.Conv(np.ones((6, 3, 4, 4), np.float32), stride=(4, 4)), ["image"])
    graph.add("flat", g.Reshape((6, 4)), ["patches"])
    graph.add("tokens", g.Permute((1, 0)), ["flat"])
    graph.add("norm", g.LayerNorm(np.ones(6, np.float32)), ["tokens"])
    graph.add("dense", g.Dense(np.ones((6, 6), np.float32)), ["norm"])
    graph.add("heads", g.Reshape((4, 2, 3)), ["dense"])
    graph.add("turned", g.Permute((1, 0, 2)), ["heads"])
    graph.add("scores", g.MatMul(transposed=True), ["turned", "turned"])
    graph.add("scaled", g.Mul(), ["scores", graph.add("scale", g.Constant(np.ones((2, 4, 4))))])
    graph.add("weights", g.Softmax(2), ["scaled"])
    found = layouts(graph)
    last = {name for name, layout in found.items() if layout.channels_last}
    assert last == {"image", "patches"}


def test_what_is_tied_has_one_layout() -> None:
    graph = g.Graph()
    graph.add("row", g.Input((12,)))
    graph.add("rows", g.Reshape((3, 4)), ["row"])
    graph.add("one", g.Reshape((3, 2, 2)), ["rows"])
    graph.add("other", g.Input((3, 2, 2)))
    graph.add("sum", g.Add(), ["one", "other"])
    found = layouts(graph)
    assert {found[name].channels_last for name in ("one", "other", "sum")} == {False}


def test_two_axes_follow_their_neighbours() -> None:
    graph = g.Graph()
    graph.add("signal", g.Input((3, 8)))
    graph.add("relu", g.Activation("relu"), ["signal"])
    graph.add("conv", g.Conv(np.ones((4, 3, 3), np.float32)), ["relu"])
    graph.add("clip", g.Clip(0.0, 1.0), ["conv"])
    graph.add("turned", g.Permute((1, 0)), ["clip"])
    graph.add("dense", g.Dense(np.ones((2, 4), np.float32)), ["turned"])
    found = layouts(graph)
    last = {name for name, layout in found.items() if layout.channels_last}
    assert last == {"signal", "relu", "conv", "clip"}
