"""Upsampling in the core against plain interpolation and against torch."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import relprop
from agreement import assert_agrees
from cases import BATCHES, KINDS, SEEDS, numbers
from relprop import graph as g
from relprop import rules
from relprop.compile import compile_plan


@st.composite
def resized(draw: st.DrawFn) -> tuple[g.Shape, g.Pair, tuple[float, float]]:
    """An image's shape, another size, and ratios that need not fit it."""
    shape = draw(st.tuples(*[st.integers(1, n) for n in (70, 6, 6)]))
    size = draw(st.tuples(st.integers(1, 9), st.integers(1, 9)))
    ratio = draw(st.tuples(*[st.sampled_from([0.0, 0.37, 0.5, 1.0, 1.6])] * 2))
    if draw(st.booleans()):
        ratio = (shape[1] / size[0], shape[2] / size[1])
    return shape, size, ratio


@given(layer=resized(), n=BATCHES, seed=SEEDS, kind=KINDS)
@settings(max_examples=60, deadline=None)
def test_any_nearest(layer, n, seed, kind) -> None:
    shape, size, ratio = layer
    rng = np.random.default_rng(seed)
    x, r = numbers(rng, (n, *shape), kind), numbers(rng, (n, shape[0], *size))
    for rule in (rules.Pass(), rules.Zero()):
        assert_agrees(g.UpsampleNearest2d(size, ratio), [x], rule, r)


# Values on a grid cancel exactly in float64 and not in float32, where epsilon's sign then differs.
@given(
    layer=resized(),
    n=BATCHES,
    seed=SEEDS,
    kind=st.sampled_from(["normal", "sparse", "nonnegative"]),
    corners=st.booleans(),
)
@settings(max_examples=60, deadline=None)
def test_any_bilinear(layer, n, seed, kind, corners) -> None:
    shape, size, ratio = layer
    rng = np.random.default_rng(seed)
    x, r = numbers(rng, (n, *shape), kind), numbers(rng, (n, shape[0], *size))
    for rule in (rules.Epsilon(0.1), rules.Zero()):
        assert_agrees(g.UpsampleBilinear2d(size, ratio, corners), [x], rule, r)


@pytest.mark.parametrize(
    "options",
    [
        {"scale_factor": 2},
        {"scale_factor": (1.5, 2.7)},
        {"size": (7, 3)},
        {"scale_factor": 2, "mode": "bilinear"},
        {"scale_factor": (1.5, 2.7), "mode": "bilinear"},
        {"scale_factor": (1.5, 2.7), "mode": "bilinear", "recompute_scale_factor": True},
        {"size": (9, 3), "mode": "bilinear"},
        {"size": (9, 3), "mode": "bilinear", "align_corners": True},
        {"size": (1, 13), "mode": "bilinear", "align_corners": True},
    ],
    ids=str,
)
def test_same_as_torch(options: dict) -> None:
    module = torch.nn.Sequential(torch.nn.Upsample(**options), torch.nn.Flatten()).eval()
    x = torch.randn(2, 3, 5, 6, generator=torch.Generator().manual_seed(1))
    explainer = relprop.Explainer(relprop.load(module, x), "epsilon", epsilon=1e-9)
    torch.testing.assert_close(explainer.forward(x), module(x), rtol=1e-5, atol=2e-6)


@pytest.mark.parametrize("mode", ["bicubic", "nearest-exact"])
def test_other_modes_are_refused(mode: str) -> None:
    module = torch.nn.Upsample(scale_factor=2, mode=mode).eval()
    with pytest.raises(relprop.UnsupportedOperatorError, match="upsample"):
        relprop.load(module, torch.zeros(1, 1, 4, 4))


@pytest.mark.parametrize(
    ("operator", "count"),
    [
        (g.UpsampleNearest2d((16000, 16000), (0.001, 0.001)), 768_000_000),
        (g.UpsampleBilinear2d((26000, 26000), (0.001, 0.001)), 2_704_000_000),
        (g.Pad(((0, 0), (0, 19992), (0, 19992)), 1.0), 1_200_000_000),
    ],
)
def test_more_places_than_memory_holds_are_refused(operator, count: int) -> None:
    graph = g.Graph()
    graph.add("y", operator, (graph.add("x", g.Input((3, 8, 8))),))
    with pytest.raises(ValueError, match=f"'y' .*takes {count} values from places of their own"):
        compile_plan(graph, {"y": rules.Epsilon()})
