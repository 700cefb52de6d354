"""Whole networks: the core against the float64 reference that replays its gates and winners.

Without replay a float32 run differs from float64 by flipped gates; with it, by rounding alone.
"""

from __future__ import annotations

import os
from functools import lru_cache

import numpy as np
import pytest
import torch

import reference
import relprop
from agreement import assert_every_node_agrees
from cases import WITH_LEDGER
from networks import NETWORKS, initialise, with_small_head
from relprop import Explainer, Graph
from relprop.composites import RULES_ALONE
from relprop.composites import parameters as preset_parameters
from relprop.graph import MaxPool
from relprop.ledger import Ledger

SIZES = {"alexnet": 64, "resnet20": 32, "vgg16": 32, "vgg16_bn": 32}
IMAGES = {"efficientnet_lite0": 32}
"""Three where not given. EfficientNet-Lite0's bottlenecks end without a ReLU, so that its sums
cancel most and errors scatter over three decades from image to image: a few say nothing."""
PRESETS = list(RULES_ALONE)
FEW = ["epsilon_plus_flat", "epsilon_gamma_box", "alpha2_beta1", "epsilon", "gradient"]
"""Enough for the networks that take long in float64."""


@lru_cache
def network(name: str) -> tuple[Graph, np.ndarray]:
    """A network's graph and an image for it; VGG and AlexNet with heads that fit in a test."""
    module = NETWORKS[name][0]()
    if name in ("alexnet", "vgg16", "vgg16_bn"):
        module = with_small_head(module)
    size = SIZES.get(name, 64)
    shape = (IMAGES.get(name, 3), 3, size, size)
    x = np.random.default_rng(1).standard_normal(shape).astype(np.float32)
    graph = relprop.load(initialise(module), torch.from_numpy(x[:1])).graph
    return graph, x


def box(name: str) -> dict[str, float]:
    return {"low": -6.0, "high": 6.0} if "low" in preset_parameters(name) else {}


def deciders(graph: Graph) -> list[str]:
    """Nodes whose float32 values decide gates and winners."""
    names = []
    for node in graph:
        if isinstance(node.operator, MaxPool):
            names.append(node.inputs[0])
        elif node.type == "Activation" and node.operator.function in ("relu", "relu6"):
            names.append(node.name)
    return [name for name in dict.fromkeys(names) if name != graph.input.name]


@pytest.mark.parametrize("name", NETWORKS)
def test_presets_agree_with_the_reference(name: str) -> None:
    """The median over images: one sum of branches that cancels can spoil any float32 run."""
    graph, x = network(name)
    rows = np.arange(len(x))
    heavy = name in ("vgg16", "vgg16_bn", "resnet50", "densenet121", "efficientnet_lite0")
    for composite in FEW if heavy else PRESETS:
        explainer = Explainer(graph, composite, **box(composite))
        result = explainer(x, "argmax", initial="value", intermediate=deciders(graph))
        output = np.zeros_like(result.scores)
        output[rows, result.target] = result.scores[rows, result.target]
        expected, ledger = reference.relevance(
            graph, explainer.rules, x, output, result.activations
        )
        errors = relative_errors(result.relevance, expected[graph.input.name])
        assert np.median(errors) <= (1e-4 if composite == "epsilon" else 1e-5), (composite, errors)
        if composite in WITH_LEDGER:
            check_categories(result.ledger, expected, ledger, composite)


@pytest.mark.parametrize("name", NETWORKS)
def test_the_ledger_closes_under_every_preset(name: str) -> None:
    graph, x = network(name)
    for composite in WITH_LEDGER:
        result = Explainer(graph, composite, **box(composite))(x, "argmax")
        assert (result.ledger.closure_error <= 1e-6).all(), composite


def relative_errors(found: np.ndarray, truth: np.ndarray) -> list[float]:
    return [float(np.linalg.norm(a - b) / np.linalg.norm(b)) for a, b in zip(found, truth)]


@pytest.mark.parametrize("composite", ["epsilon", "epsilon_gamma_box", "alpha2_beta1", "gradient"])
@pytest.mark.parametrize("name", ["vgg16", "resnet18", "googlenet", "densenet121", "mobilenet_v2"])
def test_every_node_is_exact_given_what_it_read(name: str, composite: str) -> None:
    """Each node's relevance from the core's own float32 values and relevance behind it."""
    graph, x = network(name)
    explainer = Explainer(graph, composite, **box(composite))
    assert_every_node_agrees(explainer, {graph.input.name: x[:1]}, "argmax")


def check_categories(found: Ledger, expected, booked, composite: str) -> None:
    """What went to biases, stabilizers and constants is what the reference says."""
    largest = np.max([np.abs(r).reshape(len(r), -1).sum(1) for r in expected.values()], axis=0)
    for category in ("bias", "stabilizer", "constants", "zero"):
        truth = sum(parts.get(category, 0.0) for parts in booked.values())
        error = np.abs(getattr(found, category).sum(axis=1) - truth) / largest
        assert (error <= 1e-4).all(), (composite, category, error)


@pytest.mark.parametrize(
    "composite", ["epsilon_plus_flat", "epsilon_gamma_box", "alpha2_beta1", "gradient"]
)
@pytest.mark.parametrize("name", ["googlenet", "efficientnet_lite0"])
def test_a_sample_is_bit_identical_wherever_it_runs(name: str, composite: str) -> None:
    graph, x = network(name)
    explainer = Explainer(graph, composite, **box(composite))
    alone = explainer(x[:1], 3).relevance[0]
    crowd = np.random.default_rng(7).standard_normal((7, *x.shape[1:])).astype(np.float32)
    try:
        for threads in (1, 2, 3):
            relprop.set_threads(threads)
            for place in (0, 4, 7):
                batch = np.insert(crowd, place, x[0], axis=0)
                np.testing.assert_array_equal(explainer(batch, 3).relevance[place], alone)
    finally:
        relprop.set_threads(os.cpu_count() or 1)
