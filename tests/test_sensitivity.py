"""Sensitivity and other norms over channels, and gradient x input, beside Captum."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from method_networks import NETWORKS, double, errors, network, quietly
from peers import peer
from relprop import Explainer


def norm_of_channels(relevance: np.ndarray, norm: str) -> np.ndarray:
    """Pixel by pixel."""
    n, channels, height, width = relevance.shape
    found = np.zeros((n, 1, height, width))
    for i, y, x in np.ndindex(n, height, width):
        values = [abs(float(relevance[i, c, y, x])) for c in range(channels)]
        found[i, 0, y, x] = max(values) if norm == "max" else sum(v * v for v in values) ** 0.5
    return found


@pytest.mark.parametrize("name", NETWORKS)
def test_the_gradients_norm(name: str) -> None:
    """Of the gradient by torch in float64."""
    module, model, x = network(name)
    for norm in ("l2", "max"):
        result = Explainer(model, "sensitivity", norm=norm)(x)
        images = double(x).requires_grad_()
        chosen = module(images).gather(1, torch.from_numpy(result.target)[:, None]).sum()
        (gradient,) = torch.autograd.grad(chosen, images)
        assert np.median(errors(result.relevance, norm_of_channels(gradient.numpy(), norm))) <= 1e-5


@pytest.mark.parametrize("norm", ["l2", "max"])
@pytest.mark.parametrize("preset", ["gradient", "deconvnet", "guided_backprop"])
def test_a_norm_of_its_own_relevance(preset: str, norm: str) -> None:
    _, model, x = network("branches")
    plain, normed = (Explainer(model, preset, norm=n)(x, 2).relevance for n in (None, norm))
    np.testing.assert_allclose(normed, norm_of_channels(plain, norm), rtol=1e-6)


def test_sensitivity_is_the_gradient_under_a_norm() -> None:
    _, model, x = network("branches")
    sensitivity = Explainer(model, "sensitivity")(x).relevance
    np.testing.assert_array_equal(sensitivity, Explainer(model, "gradient", norm="l2")(x).relevance)


def test_large_and_tiny_gradients() -> None:
    from relprop.methods import ChannelNorm

    relevance = np.float32([3e30, 4e30, 3e-30, 4e-30]).reshape(1, 2, 1, 2, order="F")
    found = ChannelNorm("l2").read(relevance, relevance)
    np.testing.assert_allclose(found.ravel(), [5e30, 5e-30], rtol=1e-6)


@pytest.mark.parametrize("name", NETWORKS)
def test_gradient_x_input_is_captums(name: str) -> None:
    attr = peer("captum.attr")
    module, model, x = network(name)
    result = Explainer(model, "gradient_x_input")(x)
    target = torch.from_numpy(result.target)
    truth = quietly(attr.InputXGradient(module).attribute, double(x), target=target)
    assert np.median(errors(result.relevance, truth)) <= 1e-5


@pytest.mark.parametrize("norm", ["l1", "", None, 2])
def test_unknown_norms(norm: object) -> None:
    with pytest.raises(ValueError, match='norm must be "l2" or "max", not'):
        Explainer(network("branches")[1], "sensitivity", norm=norm)
