"""SmoothGrad: a plain loop with the same noise, by torch in float64; its noise; Captum."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from method_networks import NETWORKS, double, errors, network, quietly
from peers import peer
from relprop import Explainer, methods


@pytest.mark.parametrize("name", NETWORKS)
def test_a_plain_loop_over_the_same_copies(name: str) -> None:
    module, model, x = network(name)
    explainer = Explainer(model, "smoothgrad", samples=7, noise=0.2, seed=3)
    result = explainer(x)
    method = explainer.composite.method
    plain = Explainer(model, "gradient")
    of_copies = []
    for i, image in enumerate(x):
        copies = np.stack(list(method.noisy_copies(image)))
        own = plain(copies, [int(result.target[i])] * 7).relevance
        assert max(errors(result.relevance[i : i + 1], own.mean(0, keepdims=True))) <= 1e-6
        for copy, found in zip(copies, own):
            noisy = double(copy[None]).requires_grad_()
            (gradient,) = torch.autograd.grad(module(noisy)[0, result.target[i]], noisy)
            of_copies += errors(found[None], gradient)
    # In float32 a ReLU may turn in one copy or another; which, is the instruction set's.
    assert np.median(of_copies) <= 1e-5


def test_captums_tunnel_with_the_same_noise(monkeypatch: pytest.MonkeyPatch) -> None:
    attr = peer("captum.attr")
    module, model, x = network("branches")
    explainer = Explainer(model, "smoothgrad", samples=4)
    result = explainer(x)
    copies = np.stack([list(explainer.composite.method.noisy_copies(image)) for image in x])
    noise = torch.from_numpy((copies - x[:, None]).reshape(-1, *x.shape[1:])).double()
    tunnel = attr.NoiseTunnel(attr.Saliency(module))
    monkeypatch.setattr(torch, "normal", lambda mean, std: noise)
    truth = quietly(tunnel.attribute, double(x), nt_type="smoothgrad", nt_samples=4, stdevs=1.0,
                    target=torch.from_numpy(result.target), abs=False)  # fmt: skip
    assert np.median(errors(result.relevance, truth)) <= 1e-5


def test_the_noise_is_normal_and_as_wide_as_it_should_be() -> None:
    rng = np.random.default_rng(0)
    image = rng.uniform(-3, 5, (3, 40, 40)).astype(np.float32)
    method = methods.SmoothGrad(50, 0.25)
    noise = np.stack(list(method.noisy_copies(image))) - image
    deviation = 0.25 * float(image.max() - image.min())
    assert noise.std() == pytest.approx(deviation, rel=0.01)
    assert abs(noise.mean()) < 0.01 * deviation
    assert np.quantile(noise, 0.975) == pytest.approx(1.96 * deviation, rel=0.02)
    one, other = noise[0].ravel(), noise[1].ravel()
    assert abs(np.corrcoef(one, other)[0, 1]) < 0.05


def test_noise_belongs_to_the_image_and_the_seed() -> None:
    x = network("branches")[2]
    method = methods.SmoothGrad(2, seed=1)
    first = np.stack(list(method.noisy_copies(x[0]))) - x[0]
    again = np.stack(list(method.noisy_copies(x[0].copy()))) - x[0]
    np.testing.assert_array_equal(first, again)
    other = np.stack(list(methods.SmoothGrad(2, seed=2).noisy_copies(x[0]))) - x[0]
    assert abs(np.corrcoef(first.ravel(), other.ravel())[0, 1]) < 0.1
    beside = np.stack(list(method.noisy_copies(x[1]))) - x[1]
    assert abs(np.corrcoef(first.ravel(), beside.ravel())[0, 1]) < 0.1


@pytest.mark.parametrize("constant", [False, True])
def test_without_noise_it_is_the_gradient(constant: bool) -> None:
    """With none, or on an image of one value, whose range is 0."""
    _, model, x = network("branches")
    x = np.full_like(x, 0.5) if constant else x
    smooth = Explainer(model, "smoothgrad", samples=3, noise=0.3 if constant else 0.0)
    np.testing.assert_allclose(
        smooth(x, 0).relevance, Explainer(model, "gradient")(x, 0).relevance, rtol=1e-6
    )


@pytest.mark.parametrize(
    ("parameters", "error", "text"),
    [
        ({"samples": 0}, ValueError, "samples must be at least 1, not 0"),
        ({"samples": 2.5}, TypeError, r"samples must be a whole number, not 2\.5"),
        ({"samples": True}, TypeError, "samples must be a whole number, not True"),
        ({"noise": -0.1}, ValueError, r"noise must be finite and >= 0, not -0\.1"),
        ({"noise": float("nan")}, ValueError, "noise must be finite and >= 0, not nan"),
        ({"noise": "much"}, TypeError, "noise must be a number, not 'much'"),
        ({"seed": -1}, ValueError, "seed must be at least 0, not -1"),
        ({"seed": 0.5}, TypeError, r"seed must be a whole number, not 0\.5"),
    ],
)
def test_parameters_that_are_refused(parameters, error, text) -> None:
    with pytest.raises(error, match=text):
        Explainer(network("branches")[1], "smoothgrad", **parameters)
