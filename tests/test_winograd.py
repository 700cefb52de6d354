"""Winograd's filtering: 3 x 3 layers of stride 1, forced on every shape, against the reference."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

import relprop
from agreement import assert_every_node_agrees
from cases import SEEDS, WITH_LEDGER, numbers
from networks import NETWORKS, initialise
from relprop import Explainer, rules
from relprop import graph as g

WAYS = ["plain", "winograd2", "winograd4"]
RULES: list[rules.Rule] = [
    rules.Epsilon(),
    rules.Epsilon(0.1, "distribute"),
    rules.ZPlus(),
    rules.ZPlus("distribute"),
    rules.ZPlus("exclude"),
    rules.Gamma(0.25),
    rules.Gamma(2.0, "exclude"),
    rules.AlphaBeta(2, 1),
    rules.AlphaBeta(3, 2, "distribute"),
    rules.AlphaBeta(1.5, 0.5, "exclude"),
    rules.Gradient(),
]

SCARCE = [np.float32(share) for share in (1, 1, 0.05, 1e-4, 1e-7, 0)]
"""What is left of negative weights: Z- is small beside Z+, or nothing."""


def supported(layer: g.Conv | g.ConvTranspose, shape: g.Shape, before: str = "relu") -> g.Graph:
    """A convolution after one ReLU and before another, whose relevance is in proportion to it."""
    graph = g.Graph()
    graph.add("input", g.Input(shape))
    graph.add("before", g.Activation(before, 0.5), ["input"])
    graph.add("conv", layer, ["before"])
    graph.add("after", g.Activation("relu"), ["conv"])
    size = graph["after"].shape[1:]
    graph.add("pool", g.AvgPool((min(2, size[0]), min(2, size[1])), (2, 2)), ["after"])
    return graph


def images(rng: np.random.Generator, shape: tuple[int, ...], empty: bool) -> g.Array:
    """Normal numbers; where ``empty``, blocks of zeros and values of every magnitude."""
    x = numbers(rng, shape)
    if empty:
        mask = rng.random((shape[0], 1, -(-shape[2] // 4), -(-shape[3] // 4))) < 0.5
        mask = np.kron(mask, np.ones((4, 4)))[..., : shape[2], : shape[3]]
        x = x * mask * np.float32(10) ** rng.integers(-6, 3, x.shape)
    return x.astype(np.float32)


@pytest.mark.parametrize("way", WAYS)
@given(data=st.data(), seed=SEEDS, empty=st.booleans())
@settings(
    max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_any_layer(way, data, seed, empty, monkeypatch) -> None:
    monkeypatch.setenv("RELPROP_PRODUCT", way)
    rng = np.random.default_rng(seed)
    sizes = st.integers(1, 40)
    into, out = data.draw(sizes), data.draw(sizes)
    shape = (into, data.draw(st.integers(3, 13)), data.draw(st.integers(3, 13)))
    kind = data.draw(st.sampled_from([g.Conv, g.ConvTranspose]))
    edges = st.integers(0, 3 if kind is g.Conv else 2)
    padding = tuple((data.draw(edges), data.draw(edges)) for _ in range(2))
    weight = numbers(rng, (out, into, 3, 3)) / np.float32(3 * np.sqrt(into))
    weight[weight < 0] *= data.draw(st.sampled_from(SCARCE))
    bias = numbers(rng, (out,)) / np.float32(10) if data.draw(st.booleans()) else None
    if kind is g.ConvTranspose:
        weight = np.ascontiguousarray(weight.swapaxes(0, 1))
    before = data.draw(st.sampled_from(["relu", "leaky_relu"]))
    graph = supported(kind(weight, bias, padding=padding), shape, before)
    rule = data.draw(st.sampled_from(RULES))
    explainer = Explainer(graph, rules={"conv": rule})
    x = images(rng, (data.draw(st.integers(1, 3)), *shape), empty)
    scores = explainer.forward(x)
    # Winograd's errors are 1e-7 of the largest values nearby (docs/performance.md): more than the
    # tolerance where only dead neurons see those, and living ones see less than a hundredth.
    seen = scores.max() - (0.0 if bias is None else bias.max())
    assume(way == "plain" or seen >= 1e-2 * np.abs(x).max())
    # as it arrives in networks: small where the values are
    r = scores * np.abs(numbers(rng, (len(x), *graph[graph.output].shape)))
    assert_every_node_agrees(explainer, {"input": x}, r)


@pytest.mark.parametrize("way", WAYS)
def test_an_image_on_empty_ground_leaves_it_empty(way, monkeypatch) -> None:
    """Relevance is given everywhere, so that what is not quite zero would take some."""
    monkeypatch.setenv("RELPROP_PRODUCT", way)
    rng = np.random.default_rng(0)
    x = np.zeros((2, 33, 28, 28), np.float32)
    x[:, :, 9:18, 4:16] = 255 * rng.random((2, 33, 9, 12))
    graph = g.Graph()
    graph.add("input", g.Input(x.shape[1:]))
    last = graph.add("before", g.Activation("relu"), ["input"])
    for name in ("first", "second"):
        weight = numbers(rng, (33, 33, 3, 3)) / np.float32(12)
        graph.add(name, g.Conv(weight, padding=((1, 1),) * 2), [last])
        last = graph.add(f"{name}.relu", g.Activation("relu"), [name])
    graph.add("sum", g.Conv(np.ones((1, 33, 1, 1), np.float32)), [last])
    scores = Explainer(graph, "epsilon_plus").forward(x)
    ground = np.ones((28, 28), bool)
    ground[7:20, 2:18] = False
    assert (scores[:, 0, ground] == 0).all()
    assert (scores[:, 0, ~ground] > 0).mean() > 0.9
    for composite in ("epsilon", "epsilon_plus", "epsilon_alpha2_beta1"):
        explainer = Explainer(graph, composite)
        result = assert_every_node_agrees(explainer, {"input": x}, np.ones_like(scores))
        assert result.ledger is not None
        assert (result.ledger.closure_error <= 1e-6).all()


@pytest.mark.parametrize("way", WAYS)
def test_volumes_that_padding_makes_deep(way, monkeypatch) -> None:
    monkeypatch.setenv("RELPROP_PRODUCT", way)
    rng = np.random.default_rng(0)
    layer = g.Conv(numbers(rng, (40, 20, 1, 3, 3)), padding=((0, 1), (1, 1), (1, 1)))
    graph = g.Graph()
    graph.add("input", g.Input((20, 1, 9, 9)))
    graph.add("before", g.Activation("relu"), ["input"])
    graph.add("conv", layer, ["before"])
    graph.add("after", g.Activation("relu"), ["conv"])
    x = numbers(rng, (2, 20, 1, 9, 9))
    for rule in RULES:
        explainer = Explainer(graph, rules={"conv": rule})
        scores = explainer.forward(x)
        assert (scores[:, :, 1] == 0).all()
        assert_every_node_agrees(explainer, {"input": x}, scores)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("composite", ["epsilon_plus", "epsilon_alpha2_beta1"])
def test_a_sample_is_bit_identical_wherever_it_runs(way, composite, monkeypatch) -> None:
    monkeypatch.setenv("RELPROP_PRODUCT", way)
    rng = np.random.default_rng(0)
    weight = numbers(rng, (70, 50, 3, 3))
    weight[:9][weight[:9] < 0] *= np.float32(0.01)
    layer = g.Conv(weight, numbers(rng, (70,)), padding=((1, 1),) * 2)
    graph = supported(layer, (50, 14, 9))
    explainer = Explainer(graph, composite)
    x = numbers(rng, (23, 50, 14, 9))
    target = np.ones((23, *graph[graph.output].shape), np.float32)
    crowd = explainer(x, target).relevance
    for i in (0, 11, 22):
        np.testing.assert_array_equal(explainer(x[i : i + 1], target[:1]).relevance[0], crowd[i])


@pytest.mark.parametrize(
    "composite",
    ["epsilon", "epsilon_plus_flat", "epsilon_gamma_box", "epsilon_alpha2_beta1", "gradient"],
)
def test_ways_agree_on_a_network(composite: str, monkeypatch) -> None:
    x = np.random.default_rng(0).standard_normal((4, 3, 64, 64)).astype(np.float32)
    module = initialise(NETWORKS["resnet18"][0]())
    graph = relprop.load(module, torch.from_numpy(x[:1])).graph
    box = {"low": -6.0, "high": 6.0} if composite == "epsilon_gamma_box" else {}
    results = {}
    for way in WAYS:
        monkeypatch.setenv("RELPROP_PRODUCT", way)
        results[way] = Explainer(graph, composite, **box)(x, 3)
        if composite in WITH_LEDGER:
            assert (results[way].ledger.closure_error <= 1e-6).all()
    for way in WAYS[1:]:
        assert not np.array_equal(results[way].relevance, results["plain"].relevance)
        errors = [
            np.linalg.norm(a - b) / np.linalg.norm(b)
            for a, b in zip(results[way].relevance, results["plain"].relevance)
        ]
        assert np.median(errors) <= 1e-3  # gates that flip


def test_unknown_ways_are_refused(monkeypatch) -> None:
    monkeypatch.setenv("RELPROP_PRODUCT", "magic")
    layer = g.Conv(np.ones((20, 20, 3, 3), np.float32), padding=((1, 1),) * 2)
    graph = supported(layer, (20, 5, 5))
    with pytest.raises(RuntimeError, match=r'RELPROP_PRODUCT must be plain.* not "magic"'):
        Explainer(graph, "epsilon")
