"""Trained networks on photos: every way of computing, against the float64 reference.

The way that a user gets explains three photos, each of the others a different one of them.

Trained weights and maps behind ReLUs are not like random ones: sparser, and of every magnitude.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import pytest

import reference
import relprop
from method_networks import trained_resnet20
from real_data import real
from relprop import Explainer, Graph
from test_precision import box, deciders, relative_errors

PRESETS = [
    "epsilon",
    "epsilon_plus_flat",
    "epsilon_gamma_box",
    "epsilon_alpha2_beta1",
    "deconvnet",
    "guided_backprop",
]
WAYS = ["default", "plain", "winograd2", "winograd4"]


@lru_cache
def network(name: str) -> tuple[Graph, np.ndarray]:
    """A trained network and three photos as it wants them."""
    if name == "resnet20":
        module, x = trained_resnet20()
        return relprop.load(module, x[:1]).graph, x.numpy()
    prefix = {"googlenet": "bvlc_googlenet", "squeezenet": "squeezenet_v1.1"}[name]
    prototxt, caffemodel, stored = real(
        f"models/{prefix}_deploy.prototxt",
        f"models/{prefix}.caffemodel",
        "models/reference_forward.npz",
    )
    with np.load(stored) as photos:
        x = photos[f"{name}_input_bgr"][:3].astype(np.float32) - np.float32([104, 117, 123])
    return relprop.load((prototxt, caffemodel)).graph, np.ascontiguousarray(x.transpose(0, 3, 1, 2))


@pytest.mark.parametrize("composite", PRESETS)
@pytest.mark.parametrize("name", ["googlenet", "squeezenet", "resnet20"])
def test_every_way_agrees_with_the_reference(name: str, composite: str, monkeypatch) -> None:
    graph, x = network(name)
    bounds = {key: np.sign(value) * np.abs(x).max() for key, value in box(composite).items()}
    photos = x
    for i, way in enumerate(WAYS):
        if way != "default":
            monkeypatch.setenv("RELPROP_PRODUCT", way)
            x = photos[i - 1 : i]
        explainer = Explainer(graph, composite, **bounds)
        result = explainer(x, "argmax", initial="value", intermediate=deciders(graph))
        assert result.ledger is None or (result.ledger.closure_error <= 1e-6).all()
        output = np.zeros_like(result.scores)
        rows = np.arange(len(x))
        output[rows, result.target] = result.scores[rows, result.target]
        expected, _ = reference.relevance(graph, explainer.rules, x, output, result.activations)
        errors = relative_errors(result.relevance, expected[graph.input.name])
        assert np.median(errors) <= (1e-4 if composite == "epsilon" else 1e-5), (way, errors)
