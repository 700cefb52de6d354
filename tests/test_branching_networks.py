"""Several inputs or outputs, maps, signals and volumes: whole networks from torch and from ONNX."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import reference
import relprop
from agreement import assert_every_node_agrees
from branching_networks import BRANCHING
from cases import WITH_LEDGER
from networks import initialise
from onnx_models import exported
from peers import gates_of, peer, zennit_composite, zennit_relevance
from relprop import Explainer, Graph
from relprop.composites import RULES_ALONE, parameters

BOX = {"low": -6.0, "high": 6.0}
ENDS = [(name, output) for name, network in BRANCHING.items() for output in network.outputs]
Arrays = dict[str, np.ndarray]


@lru_cache
def graph_of(name: str) -> Graph:
    return relprop.load(BRANCHING[name].module(), BRANCHING[name].example()).graph


def explainer_of(name: str, output: str, composite: str, **values: object) -> Explainer:
    return Explainer(graph_of(name), composite, output=output, **box_of(composite), **values)


def box_of(composite: str) -> dict[str, float]:
    return BOX if "low" in parameters(composite) else {}


def inputs_of(name: str, samples: int = 3, seed: int = 1) -> Arrays:
    return {key: x.numpy() for key, x in BRANCHING[name].example(samples, seed=seed).items()}


def target_of(explainer: Explainer, x: Arrays) -> np.ndarray:
    """The best class; of a map that of its middle, wherever it is the best."""
    scores = explainer.forward(x)
    if scores.ndim == 2:
        return scores.argmax(axis=1)
    best = scores.argmax(axis=1, keepdims=True)
    middle = best[:, :, 8:9, 6:7]
    return (best == middle) & (np.arange(3)[:, None, None] == middle)


@pytest.mark.parametrize("composite", WITH_LEDGER)
@pytest.mark.parametrize(("name", "output"), ENDS)
def test_every_node_agrees_and_the_ledger_closes(name: str, output: str, composite: str) -> None:
    explainer, x = explainer_of(name, output, composite), inputs_of(name)
    result = assert_every_node_agrees(explainer, x, target_of(explainer, x))
    assert list(result.relevance) == list(x)
    assert all(result.relevance[key].shape == x[key].shape for key in x)
    arrived = sum(reference.per_sample(r.astype(np.float64)) for r in result.relevance.values())
    np.testing.assert_allclose(result.ledger.input, arrived, rtol=1e-5, atol=1e-5)
    assert (result.ledger.closure_error <= 1e-6).all()


# Where a residual sum is zero but for its biases, neither mode finds anybody to hand them to.
CONSERVING = {"two heads": "distribute", "image and vector": "distribute", "siamese": "exclude",
              "u-net": "distribute"}  # fmt: skip


@pytest.mark.parametrize(("name", "output"), [end for end in ENDS if end[0] in CONSERVING])
def test_relevance_of_all_inputs_sums_to_what_is_explained(name: str, output: str) -> None:
    explainer = explainer_of(name, output, "epsilon", bias=CONSERVING[name])
    x = inputs_of(name)
    result = explainer(x, target_of(explainer, x))
    arrived = sum(reference.per_sample(r.astype(np.float64)) for r in result.relevance.values())
    chosen = initial_relevance(result.scores.astype(np.float64), target_of(explainer, x))
    np.testing.assert_allclose(arrived, reference.per_sample(chosen), rtol=1e-4)


class Head(nn.Module):
    """One output of a module with one input."""

    def __init__(self, module: nn.Module, output: str) -> None:
        super().__init__()
        self.module, self.output = module, output
        self.eval()

    def forward(self, x: Tensor) -> Tensor:
        return self.module(x)[self.output]


# Zennit's special first layers are one, not one for each input.
EVERYWHERE = ("epsilon_plus", "epsilon_alpha2_beta1", "alpha2_beta1", "epsilon", "gradient")


@pytest.mark.parametrize("composite", RULES_ALONE)
@pytest.mark.parametrize(("name", "output"), ENDS)
def test_the_whole_agrees_with_the_reference_and_with_zennit(
    name: str, output: str, composite: str
) -> None:
    explainer, x = explainer_of(name, output, composite), inputs_of(name, samples=12)
    target = target_of(explainer, x)
    names = [node.name for node in explainer.graph if node.name not in x]
    result = explainer(x, target, initial="value", intermediate=names)
    initial = initial_relevance(result.scores, target)
    tolerance = 1e-4 if composite == "epsilon" else 1e-5
    truth, _ = reference.relevance(
        explainer.graph, explainer.rules, x, initial, {**x, **result.activations}
    )
    assert np.median(errors(result.relevance, truth)) <= tolerance
    if len(x) > 1 and composite not in EVERYWHERE:
        return
    peer("zennit")
    module = BRANCHING[name].module()
    found = zennit_relevance(
        Head(module, output) if len(BRANCHING[name].outputs) > 1 else module,
        zennit_composite(composite, **box_of(composite)),
        list(x.values()),
        initial,
        gates_of(explainer.graph, result.activations),
    )
    assert np.median(errors(result.relevance, dict(zip(x, found)))) <= tolerance


def initial_relevance(scores: np.ndarray, target: np.ndarray) -> np.ndarray:
    """The scores but for those that are not explained."""
    if target.dtype != bool:
        target = np.arange(scores.shape[1]) == target[:, None]
    return np.where(target, scores, 0)


def errors(found: Arrays, truth: Arrays) -> list[float]:
    """Per sample, over all inputs, relative in norm."""
    a, b = (
        np.concatenate([reference.flat(arrays[name]) for name in found], axis=1)
        for arrays in (found, truth)
    )
    return list(np.linalg.norm(a - b, axis=1) / np.linalg.norm(b, axis=1))


@pytest.mark.parametrize("exporter", ["trace", "export"])
@pytest.mark.parametrize("name", BRANCHING)
def test_a_file_gives_the_same_relevance(name: str, exporter: str, tmp_path: Path) -> None:
    # Samples of which rounding decides nothing: a float64 reference is nearer than 5e-7 to each.
    network, x = BRANCHING[name], inputs_of(name, seed=2)
    module, example = network.module(), tuple(network.example().values())
    names = tuple(network.inputs)
    graph = exported(module, example, exporter, tmp_path, names, network.outputs)
    assert tuple(node.name for node in graph.inputs) == names
    assert tuple(graph.outputs) == network.outputs
    for output in network.outputs:
        directly = explainer_of(name, output, "epsilon_plus_flat")
        target = target_of(directly, x)
        expected = directly(x, target)
        found = Explainer(graph, "epsilon_plus_flat", output=output)(x, target)
        np.testing.assert_allclose(found.scores, expected.scores, rtol=1e-4, atol=1e-5)
        assert max(errors(found.relevance, expected.relevance)) <= 1e-6


def test_one_head_is_explained_as_if_it_were_alone() -> None:
    network, x = BRANCHING["two heads"], inputs_of("two heads")
    for output in network.outputs:
        alone = relprop.load(Head(network.module(), output), network.example()["image"])
        np.testing.assert_array_equal(
            Explainer(alone)(x["image"], 2).relevance,
            Explainer(graph_of("two heads"), output=output)(x, 2).relevance["image"],
        )


class Features(nn.Module):
    """Features without their batch norm, logits and odds."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm, self.head = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Linear(144, 3)

    def forward(self, image: Tensor) -> dict[str, Tensor]:
        features = self.conv(image)
        logits = self.head(F.relu(self.norm(features)).flatten(1))
        return {"features": features, "logits": logits, "odds": logits.softmax(1)}


@pytest.mark.parametrize("output", ["features", "logits", "odds"])
def test_other_outputs_change_nothing(output: str) -> None:
    module, x = initialise(Features()), inputs_of("two heads")["image"]
    whole = relprop.load(module, torch.from_numpy(x))
    assert [node.type for node in whole.graph].count("BatchNorm") == 1
    target = np.ones((3, *whole.graph[whole.graph.outputs[output]].shape), np.float32)
    alone = relprop.load(Head(module, output), torch.from_numpy(x))
    np.testing.assert_array_equal(
        Explainer(whole, output=output)(x, target).relevance, Explainer(alone)(x, target).relevance
    )


def test_in_one_call() -> None:
    network = BRANCHING["image and vector"]
    module, x = network.module(), network.example(3, seed=1)
    expected = explainer_of("image and vector", "output", "epsilon")(inputs_of("image and vector"))
    named = relprop.torch.attribute(module, x, composite="epsilon")
    in_order = relprop.torch.attribute(module, tuple(x.values()), composite="epsilon")
    for (name, relevance), other in zip(named.items(), in_order, strict=True):
        np.testing.assert_array_equal(relevance.numpy(), expected.relevance[name])
        assert torch.equal(relevance, other)


def test_a_segmentation_mask_needs_no_forward_pass_where_it_is_known() -> None:
    explainer, x = explainer_of("u-net", "output", "epsilon_plus"), inputs_of("u-net")["image"]
    mask = np.zeros((3, 3, 16, 12), bool)
    mask[:, 2, 4:8, 3:9] = True
    result = explainer(x, mask)
    np.testing.assert_array_equal(
        result.relevance, explainer(x, np.where(mask, result.scores, 0)).relevance
    )
    np.testing.assert_allclose(
        result.ledger.initial, result.scores.sum((1, 2, 3), where=mask), rtol=1e-5
    )
    assert (result.target == -1).all()
    one = explainer(torch.from_numpy(x[1]), torch.from_numpy(mask[1]), initial="one")
    ones = explainer(x[1], mask[1].astype(np.float32))
    np.testing.assert_array_equal(one.relevance.numpy(), ones.relevance)
    np.testing.assert_array_equal(one.ledger.initial, [24.0])
