"""iNNvestigate's stored attributions of one layer's largest neuron.

Its epsilon is 1e-7, its LRPZ the limit of epsilon, and alpha beta divides without a stabiliser
unless a sum is zero; the stored layers have biases of zero.
"""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from peers import peer
from relprop import Explainer, rules
from relprop import graph as g

FOLDER = Path(__file__).parents[2] / "shared/data/reference_innvestigate"
METHODS: dict[str, rules.Rule] = {
    "LRPZ": rules.Epsilon(1e-9),
    "LRPZIgnoreBias": rules.Epsilon(1e-9, "exclude"),
    "LRPEpsilon": rules.Epsilon(1e-7),
    "LRPEpsilonIgnoreBias": rules.Epsilon(1e-7, "exclude"),
    "LRPAlpha1Beta0": rules.AlphaBeta(1, 0),
    "LRPAlpha1Beta0IgnoreBias": rules.AlphaBeta(1, 0, "exclude"),
    "LRPAlpha2Beta1": rules.AlphaBeta(2, 1),
    "LRPAlpha2Beta1IgnoreBias": rules.AlphaBeta(2, 1, "exclude"),
    "LRPZPlus": rules.ZPlus(),
    "LRPFlat": rules.Flat(),
    "LRPWSquare": rules.WSquare(),
    "DeepTaylor": rules.ZPlus(),
}
LAYERS = ("Conv2D", "Conv2D_relu", "Dense", "Dense_relu", "AveragePooling2D", "MaxPooling2D")


def layer_graph(layer: str, weights: list[np.ndarray]) -> g.Graph:
    """The layer on its input, channels first but for the dense layer on the last axis."""
    graph = g.Graph()
    if layer.startswith("Dense"):
        graph.add("input", g.Input((10, 10, 3)))
        operator: g.Operator = g.Dense(weights[0].T, weights[1])
    else:
        graph.add("input", g.Input((3, 10, 10)))
        operator = {
            "Conv2D": lambda: g.Conv(weights[0].transpose(3, 2, 0, 1), weights[1]),
            "AveragePooling2D": lambda: g.AvgPool((2, 2), (2, 2)),
            "MaxPooling2D": lambda: g.MaxPool((2, 2), (2, 2)),
        }[layer.removesuffix("_relu")]()
    graph.add("layer", operator, ["input"])
    if layer.endswith("_relu"):
        graph.add("relu", g.Activation("relu"), ["layer"])
    return graph


@pytest.mark.parametrize("layer", LAYERS)
@pytest.mark.parametrize("method", METHODS)
def test_stored_attributions(method: str, layer: str) -> None:
    if not FOLDER.is_dir() and not os.environ.get("CI"):
        pytest.skip(f"{FOLDER} is not there")
    if (method, layer) == ("DeepTaylor", "AveragePooling2D"):
        return  # a pooling without weights is flat there
    stored = peer("h5py").File(FOLDER / f"{method}.hdf5")
    x = stored["input"][:].astype(np.float32)
    group = stored[layer]
    graph = layer_graph(layer, [group["weights"][key][:] for key in sorted(group["weights"])])
    channels_first = not layer.startswith("Dense")
    if channels_first:
        x = x.transpose(0, 3, 1, 2)

    weighted = layer.startswith(("Conv2D", "Dense"))
    own = {"layer": METHODS[method]} if weighted else {}
    if layer == "AveragePooling2D":
        own = {"layer": rules.Epsilon(1e-9)}
    explainer = Explainer(graph, "epsilon", rules=own)
    scores = explainer.forward(x)
    in_order = scores.transpose(0, 2, 3, 1) if channels_first else scores
    np.testing.assert_allclose(in_order.reshape(8, -1), group["output"][:], atol=1e-6)

    flat = scores.reshape(8, -1)
    largest = np.where(flat == flat.max(axis=1, keepdims=True), flat, 0).reshape(scores.shape)
    found = explainer(x, largest).relevance
    if channels_first:
        found = found.transpose(0, 2, 3, 1)
    truth = group["attribution"][:]
    # Without a stabiliser there, sums of Z- near zero show ours.
    tolerance = 5e-4 if method.startswith("LRPAlpha2") and layer.startswith("Dense") else 1e-5
    assert np.linalg.norm(found - truth) <= tolerance * np.linalg.norm(truth)
