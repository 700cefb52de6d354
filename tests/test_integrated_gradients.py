"""Integrated gradients: Captum, a plain loop, exact integrals, baselines, completeness."""

from __future__ import annotations

from typing import get_args

import numpy as np
import pytest
import torch

import relprop
from cases import numbers
from method_networks import NETWORKS, double, errors, network, quietly
from peers import peer
from relprop import Explainer
from relprop import graph as g
from relprop.methods import IntegratedGradients
from relprop.methods.integrated_gradients import Quadrature, points_and_weights

QUADRATURES = get_args(Quadrature)


@pytest.mark.parametrize("quadrature", QUADRATURES)
@pytest.mark.parametrize("name", NETWORKS)
def test_it_is_captums(name: str, quadrature: str) -> None:
    """Captum's trapezoids have weights that sum to (steps - 1) / steps, ours to one."""
    attr = peer("captum.attr")
    module, model, x = network(name)
    result = Explainer(model, "integrated_gradients", steps=8, quadrature=quadrature)(x)
    truth = attr.IntegratedGradients(module).attribute(
        double(x),
        target=torch.from_numpy(result.target),
        n_steps=8,
        method="gausslegendre" if quadrature == "gauss_legendre" else quadrature,
    )
    truth = truth * (8 / 7 if quadrature == "riemann_trapezoid" else 1)
    assert np.median(errors(result.relevance, truth)) <= 1e-5


def test_zennits_is_the_right_hand_sum() -> None:
    attribution = peer("zennit.attribution")
    module, model, x = network("branches")
    result = Explainer(model, "integrated_gradients", steps=6, quadrature="riemann_right")(x)
    one = torch.nn.functional.one_hot(torch.from_numpy(result.target), 5).double()
    with attribution.IntegratedGradients(module, n_iter=6) as attributor:
        _, truth = quietly(attributor, double(x), one)
    assert np.median(errors(result.relevance, truth)) <= 1e-5


@pytest.mark.parametrize("quadrature", QUADRATURES)
@pytest.mark.parametrize("baseline", ["number", "channels", "array"])
def test_a_plain_loop(baseline: str, quadrature: str) -> None:
    module, model, x = network("branches")
    rng = np.random.default_rng(0)
    given = {"number": -0.3, "channels": (0.5, -1.0, 0.25), "array": numbers(rng, x.shape[1:])}
    start = given[baseline]
    whole = np.zeros(x.shape[1:])
    for c in range(3):
        whole[c] = start[c] if baseline != "number" else start
    steps = 5
    if quadrature == "gauss_legendre":
        nodes, weights = np.polynomial.legendre.leggauss(steps)
        ways = [((node + 1) / 2, weight / 2) for node, weight in zip(nodes, weights)]
    elif quadrature == "riemann_trapezoid":
        ways = [(k / 4, 1 / 8 if k in (0, 4) else 1 / 4) for k in range(5)]
    else:
        first = {"riemann_left": 0.0, "riemann_middle": 0.1, "riemann_right": 0.2}[quadrature]
        ways = [(first + k / 5, 1 / 5) for k in range(5)]
    explainer = Explainer(
        model, "integrated_gradients", steps=steps, quadrature=quadrature, baseline=start
    )
    result = explainer(x)
    truth = np.zeros(x.shape)
    for i, image in enumerate(x.astype(np.float64)):
        for point, weight in ways:
            on_way = torch.from_numpy((whole + point * (image - whole))[None]).requires_grad_()
            (gradient,) = torch.autograd.grad(module(on_way)[0, result.target[i]], on_way)
            truth[i] += weight * gradient[0].numpy() * (image - whole)
        change = module(double(x[i : i + 1])) - module(torch.from_numpy(whole[None]))
        expected = truth[i].sum() - float(change.detach()[0, result.target[i]])
        assert result.completeness[i] == pytest.approx(expected, abs=1e-5)
    assert np.median(errors(result.relevance, truth)) <= 1e-5


@pytest.mark.parametrize("steps", [2, 5, 50])
@pytest.mark.parametrize("quadrature", QUADRATURES)
def test_weights_sum_to_one_and_points_ascend(quadrature: Quadrature, steps: int) -> None:
    points, weights = points_and_weights(quadrature, steps)
    assert len(points) == len(weights) == steps
    assert weights.sum() == pytest.approx(1, abs=1e-12)
    assert (np.diff(points) > 0).all()
    assert 0 <= points[0] < points[-1] <= 1


def test_gauss_legendre_is_exact_where_the_gradient_is_a_polynomial() -> None:
    """f = (w . x)^2 has a linear gradient: one point in the middle is enough."""
    rng = np.random.default_rng(0)
    graph = g.Graph()
    graph.add("input", g.Input((6,)))
    graph.add("sum", g.Dense(numbers(rng, (1, 6))), ["input"])
    graph.add("square", g.Mul(), ["sum", "sum"])
    x = numbers(rng, (4, 6))
    for parameters in ({"steps": 1}, {"steps": 1, "quadrature": "riemann_middle"}, {"steps": 9},
                       {"steps": 2, "quadrature": "riemann_trapezoid"}):  # fmt: skip
        result = Explainer(graph, "integrated_gradients", **parameters)(x, 0)
        np.testing.assert_allclose(result.completeness, 0, atol=1e-5)
        product = graph["sum"].operator.weight * x
        expected = product * product.sum(1, keepdims=True)
        np.testing.assert_allclose(result.relevance, expected, rtol=1e-4, atol=1e-5)


def test_completeness_gets_better_with_steps() -> None:
    """With smooth activations alone, whose gradient Gauss and Legendre fit fast."""
    module = torch.nn.Sequential(
        torch.nn.Linear(10, 20), torch.nn.SiLU(), torch.nn.Linear(20, 20), torch.nn.Tanh(),
        torch.nn.Linear(20, 3),
    ).eval()  # fmt: skip
    for number, parameter in enumerate(module.parameters()):
        parameter.data.normal_(0, 0.4, generator=torch.Generator().manual_seed(number))
    x = torch.randn(6, 10, generator=torch.Generator().manual_seed(9)).numpy()
    model = relprop.load(module, torch.from_numpy(x))
    worst = []
    for steps in (2, 4, 8, 32):
        result = Explainer(model, "integrated_gradients", steps=steps)(x)
        worst.append(np.abs(result.completeness).max())
        change = result.scores - Explainer(model, "gradient").forward(np.zeros_like(x))
        expected = change[np.arange(6), result.target]
        sums = result.relevance.sum(1, dtype=np.float64)
        np.testing.assert_allclose(sums - expected, result.completeness, atol=1e-5)
    assert worst[0] > 10 * worst[1] > 100 * worst[2]
    assert worst[3] < 1e-5


@pytest.mark.parametrize("baseline", [0.5, (0.1, 0.2, 0.3)])
def test_an_image_that_is_its_own_baseline_has_nothing_to_explain(baseline) -> None:
    model = network("branches")[1]
    x = np.broadcast_to(np.float32(baseline).reshape(-1, 1, 1), (2, 3, 14, 14))
    result = Explainer(model, "integrated_gradients", steps=2, baseline=baseline)(x)
    assert not result.relevance.any()
    assert not result.completeness.any()


def test_baselines_compare_and_read_as_values() -> None:
    array = np.arange(6, dtype=np.float32).reshape(1, 2, 3)
    one, same, other = (IntegratedGradients(baseline=b) for b in (array, array.copy(), array + 1))
    assert one == same
    assert hash(one) == hash(same)
    assert one != other
    assert str(one) == str(same) != str(other)
    assert "baseline=0)" in str(IntegratedGradients())
    assert "baseline=(1, 2, 0.5)" in str(IntegratedGradients(baseline=[1, 2, 0.5]))


@pytest.mark.parametrize(
    ("parameters", "error", "text"),
    [
        ({"steps": 0}, ValueError, "steps must be at least 1, not 0"),
        ({"steps": 1.5}, TypeError, r"steps must be a whole number, not 1\.5"),
        ({"quadrature": "simpson"}, ValueError, "quadrature must be one of gauss_legendre, rie"),
        ({"steps": 1, "quadrature": "riemann_trapezoid"}, ValueError, "steps must be at least 2"),
        ({"baseline": float("inf")}, ValueError, "baseline must be finite"),
        ({"baseline": "black"}, TypeError, "baseline must be an array of numbers"),
        ({"baseline": (1, 2)}, ValueError, r"one for each of 3 channels or .* not of shape \(2,\)"),
        ({"baseline": np.zeros((3, 5, 5))}, ValueError, r"baseline must be .* shape \(3, 5, 5\)"),
    ],
)
def test_parameters_that_are_refused(parameters, error, text) -> None:
    with pytest.raises(error, match=text):
        Explainer(network("branches")[1], "integrated_gradients", **parameters)
