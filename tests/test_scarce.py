"""Z- as what z leaves of Z+: as exact as a sum of its own, however little is left."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agreement import assert_layer_agrees
from cases import BATCHES, KINDS, SEEDS, convolutions, numbers
from relprop import graph as g
from relprop import rules

BIAS_MODES = st.sampled_from(["absorb", "exclude", "distribute"])
SHARES = st.sampled_from([1, 0.1, 0.05, 1e-3, 1e-6, 1e-12, 0])


@given(
    layer=convolutions(),
    n=BATCHES,
    seed=SEEDS,
    kind=KINDS,
    share=SHARES,
    bias=BIAS_MODES,
    after_relu=st.booleans(),
)
@settings(max_examples=300, deadline=None)
def test_any_convolution(layer, n, seed, kind, share, bias, after_relu) -> None:
    operator, shape = layer
    weight = np.where(operator.weight < 0, np.float32(share) * operator.weight, operator.weight)
    operator = g.Conv(
        weight,
        operator.bias,
        operator.stride,
        operator.padding,
        operator.dilation,
        operator.groups,
    )
    rng = np.random.default_rng(seed)
    rule = rules.AlphaBeta(2, 1, bias)
    assert_layer_agrees(
        operator, shape, rule, rng, n=n, kinds=(kind, "normal"), after_relu=after_relu
    )


@pytest.mark.parametrize("share", [1, 1e-3, 1e-6, 0])
@pytest.mark.parametrize("after_relu", [False, True], ids=["any signs", "after relu"])
def test_a_wide_dense_layer(after_relu: bool, share: float) -> None:
    """More inputs than a vector holds, more outputs than a panel."""
    rng = np.random.default_rng(0)
    weight = numbers(rng, (70, 333))
    weight[weight < 0] *= np.float32(share)
    operator = g.Dense(weight, numbers(rng, (70,)))
    assert_layer_agrees(operator, (333,), rules.AlphaBeta(2, 1), rng, after_relu=after_relu)


@pytest.mark.parametrize("way", ["default", "plain"])
@pytest.mark.parametrize("channels", [1, 2, 3, 4, 5])
def test_few_input_channels_of_any_sign(channels: int, way: str, monkeypatch) -> None:
    """As in an image, whose relevance chooses between the weights by the pixel's sign."""
    if way != "default":
        monkeypatch.setenv("RELPROP_PRODUCT", way)
    rng = np.random.default_rng(channels)
    weight = numbers(rng, (32, channels, 5, 3))
    for stride, padding in (((2, 1), ((2, 1), (1, 0))), ((1, 2), ((0, 0), (0, 0)))):
        operator = g.Conv(weight, numbers(rng, (32,)), stride, padding)
        for kind in ("normal", "sparse"):
            assert_layer_agrees(
                operator, (channels, 9, 21), rules.AlphaBeta(2, 1), rng, kinds=(kind, "normal")
            )
