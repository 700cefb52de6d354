"""Occlusion: Captum, and a plain loop over windows and pixels."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from cases import numbers
from method_networks import NETWORKS, double, errors, network
from peers import peer
from relprop import Explainer
from relprop import graph as g
from relprop.methods import Occlusion


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize(("window", "stride"), [((5, 5), (3, 3)), ((4, 7), (4, 2))])
def test_it_is_captums(name: str, window: tuple[int, int], stride: tuple[int, int]) -> None:
    """Captum has the same map in every channel where windows cover all of them."""
    attr = peer("captum.attr")
    module, model, x = network(name)
    x = x[:2]
    result = Explainer(model, "occlusion", window=window, stride=stride, value=0.25)(x)
    truth = attr.Occlusion(module).attribute(
        double(x),
        (3, *window),
        strides=(3, *stride),
        baselines=0.25,
        target=torch.from_numpy(result.target),
    )
    assert max(errors(result.relevance, truth[:, :1])) <= 1e-5


@given(data=st.data(), height=st.integers(1, 7), width=st.integers(1, 7))
@settings(max_examples=40, deadline=None)
def test_any_window(data, height: int, width: int) -> None:
    """Of a linear network, whose loss by a window is a sum over its pixels."""
    window = tuple(data.draw(st.integers(1, size)) for size in (height, width))
    stride = tuple(data.draw(st.integers(1, side)) for side in window)
    rng = np.random.default_rng(height * 10 + width)
    graph = g.Graph()
    graph.add("input", g.Input((2, height, width)))
    graph.add("flat", g.Reshape((2 * height * width,)), ["input"])
    graph.add("scores", g.Dense(numbers(rng, (1, 2 * height * width))), ["flat"])
    x, value = numbers(rng, (2, 2, height, width)), numbers(rng, (2,))
    weight = graph["scores"].operator.weight.reshape(2, height, width).astype(np.float64)
    loss = (weight * (x - value[:, None, None])).sum(1)
    total, covered = np.zeros((2, height, width)), np.zeros((height, width))
    top = 0
    while True:
        left = 0
        while True:
            rows, columns = slice(top, top + window[0]), slice(left, left + window[1])
            total[:, rows, columns] += loss[:, rows, columns].sum((1, 2), keepdims=True)
            covered[rows, columns] += 1
            if left + window[1] >= width:
                break
            left += stride[1]
        if top + window[0] >= height:
            break
        top += stride[0]
    assert (covered > 0).all()
    explainer = Explainer(graph, "occlusion", window=window, stride=stride, value=tuple(value))
    found = explainer(x, 0).relevance
    size = 1e-5 * np.abs(weight).sum() * 10
    np.testing.assert_allclose(found[:, 0], total / covered, rtol=1e-5, atol=size)


def test_an_array_to_look_at_instead() -> None:
    _, model, x = network("branches")
    instead = x[1]
    explainer = Explainer(model, "occlusion", window=14, stride=14, value=instead)
    result = explainer(x[:1], 2)
    lost = result.scores[0, 2] - explainer.forward(instead)[0, 2]
    np.testing.assert_allclose(result.relevance, np.full((1, 1, 14, 14), lost), rtol=1e-5)


@pytest.mark.parametrize(
    ("parameters", "error", "text"),
    [
        ({"window": 0}, ValueError, "window must be at least 1, not 0"),
        ({"window": 2.5}, TypeError, r"window must be a whole number or two, not 2\.5"),
        ({"window": (3, 3, 3)}, TypeError, "window must be a whole number or two"),
        ({"window": 4, "stride": 5}, ValueError, r"stride must be at most the window, \(4, 4\)"),
        ({"window": (14, 15)}, ValueError, r"window must fit into the image, \(14, 14\)"),
        ({"window": 4, "stride": 2, "value": (1, 2)}, ValueError, "value must be a number, one"),
        ({"value": float("nan")}, ValueError, "value must be finite"),
    ],
)
def test_parameters_that_are_refused(parameters, error, text) -> None:
    with pytest.raises(error, match=text):
        Explainer(network("branches")[1], "occlusion", **parameters)


def test_windows_reach_the_border() -> None:
    windows = Occlusion(4, 3).windows(8, 4)
    assert [rows.start for rows, _ in windows] == [0, 3, 6]
    assert {columns.start for _, columns in windows} == {0}
