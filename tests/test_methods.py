"""What all methods have in common: shapes, kinds of arrays, batches, targets, what is refused."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import pytest
import torch
from torch import nn

import relprop
from branching_networks import BRANCHING
from cases import numbers
from method_networks import network
from networks import initialise
from relprop import Explainer, methods
from relprop import graph as g
from relprop.composites import RULES_ALONE, Composite, Entry
from relprop.methods import runs
from relprop.rules import Gradient
from test_real_networks import network as real_network

ONE_RUN = ("gradient_x_input", "sensitivity")
MANY_RUNS = ("smoothgrad", "integrated_gradients", "occlusion", "random", "sobel")
FEW = {
    "smoothgrad": {"samples": 3},
    "integrated_gradients": {"steps": 3},
    "occlusion": {"window": 5, "stride": 4},
}
ONE_MAP = ("sensitivity", "occlusion", "random", "sobel")


@lru_cache
def explainer(name: str) -> Explainer:
    return Explainer(network("branches")[1], name, **FEW.get(name, {}))


def images() -> np.ndarray:
    return network("branches")[2]


@pytest.mark.parametrize("name", [*ONE_RUN, *MANY_RUNS])
def test_shapes_and_kinds_of_arrays(name: str) -> None:
    x = images()
    result = explainer(name)(x, 1)
    shape = (1, 14, 14) if name in ONE_MAP else (3, 14, 14)
    assert explainer(name).attribution_shape == shape
    assert result.relevance.shape == (len(x), *shape)
    assert result.relevance.dtype == np.float32
    assert np.isfinite(result.relevance).all()
    assert (result.ledger, result.target.tolist()) == (None, [1] * len(x))
    np.testing.assert_array_equal(result.scores, explainer(name).forward(x))
    assert (result.completeness is not None) == (name == "integrated_gradients")
    by_torch = explainer(name)(torch.from_numpy(x), 1)
    assert isinstance(by_torch.relevance, torch.Tensor)
    assert isinstance(by_torch.scores, torch.Tensor)
    np.testing.assert_array_equal(by_torch.relevance.numpy(), result.relevance)
    alone = explainer(name)(x[0], 1).relevance
    np.testing.assert_array_equal(alone, result.relevance[0])
    by_name = explainer(name)({"input": x}, 1).relevance
    np.testing.assert_array_equal(by_name["input"], result.relevance)
    assert explainer(name)(x[:0], 1).relevance.shape == (0, *shape)


@pytest.mark.parametrize("name", [*ONE_RUN, *MANY_RUNS])
def test_batches_change_nothing(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    x = images()
    whole = explainer(name)(x)
    order = [3, 0, 4]
    part = explainer(name)(x[order])
    np.testing.assert_array_equal(part.relevance, whole.relevance[order])
    np.testing.assert_array_equal(part.target, whole.target[order])
    for at_once in (1, 7):
        monkeypatch.setattr(runs, "AT_ONCE", at_once)
        np.testing.assert_array_equal(explainer(name)(x).relevance, whole.relevance)


@pytest.mark.parametrize("name", MANY_RUNS)
def test_no_run_is_larger_than_it_may_be(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runs, "AT_ONCE", 4)
    seen: list[int] = []
    inner = runs.Runs._batches

    def watched(self, given):
        for of, batch in inner(self, given):
            seen.append(len(batch))
            yield of, batch

    monkeypatch.setattr(runs.Runs, "_batches", watched)
    explainer(name)(images())
    assert all(count <= 4 for count in seen)
    assert (not seen) == (name in ("random", "sobel"))
    monkeypatch.setattr(runs, "BYTES_AT_ONCE", 2 * images()[0].nbytes)
    seen.clear()
    explainer(name)(images())
    assert all(count <= 2 for count in seen)


@pytest.mark.parametrize("name", ["smoothgrad", "integrated_gradients", "occlusion"])
def test_the_target_is_that_of_the_clean_images(name: str) -> None:
    """Images on the way have other predictions; what is explained stays."""
    x = images()
    found = explainer(name)(x)
    np.testing.assert_array_equal(found.target, found.scores.argmax(1))
    given = explainer(name)(x, found.target.tolist())
    np.testing.assert_array_equal(found.relevance, given.relevance)


@pytest.mark.parametrize("name", ["gradient_x_input", *MANY_RUNS[:3]])
def test_masks_and_given_relevance(name: str) -> None:
    """A mask explains a sum, relevance a weighed one; all methods but a norm are linear in f."""
    x = images()
    mask, weights = np.zeros((5, 5), bool), np.zeros((5, 5), np.float32)
    mask[:, 1] = mask[:, 3] = True
    weights[:, 1], weights[:, 3] = 2.0, -0.5
    one, other = (explainer(name)(x, k) for k in (1, 3))
    for target, by_hand in ((mask, (1, 1)), (weights, (2.0, -0.5))):
        found = explainer(name)(x, target)
        expected = by_hand[0] * one.relevance + by_hand[1] * other.relevance
        np.testing.assert_allclose(found.relevance, expected, atol=1e-5 * np.abs(expected).max())
        assert (found.target == -1).all()
        if found.completeness is not None:
            sums = by_hand[0] * one.completeness + by_hand[1] * other.completeness
            np.testing.assert_allclose(found.completeness, sums, atol=1e-4)


def test_a_map_as_output() -> None:
    """Of a U-Net, where f is what a mask of its map selects."""
    network = BRANCHING["u-net"]
    (x,) = network.example(2).values()
    made = Explainer(relprop.load(network.module(), x), "integrated_gradients", steps=30)
    mask = np.zeros(made.forward(x).shape, bool)
    mask[:, 1, 2:5] = True
    result = made(x.numpy(), mask)
    zero = made.forward(np.zeros_like(x.numpy()))
    expected = np.where(mask, result.scores - zero, 0).sum((1, 2, 3), dtype=np.float64)
    sums = result.relevance.sum((1, 2, 3), dtype=np.float64)
    np.testing.assert_allclose(sums - expected, result.completeness, atol=1e-4)


def test_any_rules_may_lie_under_a_method() -> None:
    """SmoothGrad of relevance: the mean over runs under the composite's rules."""
    model = network("branches")[1]
    smooth = methods.SmoothGrad(3, 0.1, seed=4)
    base = relprop.preset("epsilon")
    composite = Composite("smooth", base.entries, base.initial, smooth)
    x = images()[:2]
    found = Explainer(model, composite)(x, 2).relevance
    copies = [np.stack(list(smooth.noisy_copies(image))) for image in x]
    plain = Explainer(model, base)
    expected = [plain(copy, 2).relevance.mean(0, dtype=np.float64) for copy in copies]
    np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-12)


def test_a_reading_of_one_run_keeps_what_the_run_gives() -> None:
    names = ["down", "left"]
    plain = explainer("gradient")(images(), 0, intermediate=names)
    for name in ONE_RUN:
        result = explainer(name)(images(), 0, intermediate=names)
        for node in names:
            np.testing.assert_array_equal(result.intermediate[node], plain.intermediate[node])


def test_attribute_in_one_call() -> None:
    module = initialise(
        nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(64, 3))
    )
    x = torch.randn(2, 3, 6, 6, generator=torch.Generator().manual_seed(0))
    found = relprop.torch.attribute(module, x, 1, "sensitivity", norm="max")
    gradient = relprop.torch.attribute(module, x, 1, "gradient")
    torch.testing.assert_close(found, gradient.abs().amax(1, keepdim=True))


def test_squeezenet_on_photos() -> None:
    """Sums over single gradients, which test_real_networks.py holds against the reference."""
    graph, x = real_network("squeezenet")
    plain = Explainer(graph, "gradient")
    smooth = Explainer(graph, "smoothgrad", samples=3)
    integrated = Explainer(graph, "integrated_gradients", steps=3, quadrature="riemann_right")
    found, integral = smooth(x[:2]), integrated(x[:2])
    for i, image in enumerate(x[:2]):
        target = int(found.target[i])
        noisy = [plain(c, target).relevance for c in smooth.composite.method.noisy_copies(image)]
        np.testing.assert_allclose(found.relevance[i], np.mean(noisy, 0, np.float64), rtol=1e-5)
        ways = [(k / 3 * image.astype(np.float64)).astype(np.float32) for k in (1, 2, 3)]
        on_way = [plain(way, target).relevance for way in ways]
        expected = np.mean(on_way, 0, np.float64) * image
        error = np.linalg.norm(integral.relevance[i] - expected)
        assert error <= 1e-5 * np.linalg.norm(expected)
        assert integral.completeness[i] == pytest.approx(
            expected.sum() - float(found.scores[i, target] - plain.forward(0 * image)[0, target]),
            abs=1e-3,
        )


# --- What is refused -----------------------------------------------------------------------------


@pytest.mark.parametrize("name", MANY_RUNS)
def test_many_runs_have_no_nodes_between(name: str) -> None:
    with pytest.raises(ValueError, match=f"{name} is made of many runs: intermediate must be emp"):
        explainer(name)(images(), intermediate=["down"])
    with pytest.raises(ValueError, match="initial 'one', not 'value'"):
        explainer(name)(images(), initial="value")


def vectors() -> g.Graph:
    graph = g.Graph()
    graph.add("input", g.Input((4,)))
    graph.add("scores", g.Dense(np.eye(3, 4, dtype=np.float32)), ["input"])
    return graph


@pytest.mark.parametrize("name", ONE_MAP)
def test_one_map_needs_images(name: str) -> None:
    with pytest.raises(
        ValueError, match=r"needs images \(channels, height, width\), not inputs \(4,"
    ):
        Explainer(vectors(), name)


@pytest.mark.parametrize("name", ["gradient", "deconvnet", "guided_backprop"])
def test_a_norm_needs_images(name: str) -> None:
    assert Explainer(vectors(), name).attribution_shape == (4,)
    with pytest.raises(ValueError, match="a norm over channels needs images"):
        Explainer(vectors(), name, norm="l2")


@pytest.mark.parametrize("name", ["gradient_x_input", "smoothgrad", "integrated_gradients"])
def test_others_take_vectors(name: str) -> None:
    """A linear model's weights, and times the input its shares."""
    x = numbers(np.random.default_rng(0), (2, 4))
    found = Explainer(vectors(), name)(x, 1).relevance
    one = np.eye(1, 4, 1)
    np.testing.assert_allclose(found, one.repeat(2, 0) if name == "smoothgrad" else one * x)


@pytest.mark.parametrize("name", MANY_RUNS)
def test_many_runs_need_one_input(name: str) -> None:
    siamese = BRANCHING["siamese"]
    model = relprop.load(siamese.module(), siamese.example(1))
    with pytest.raises(ValueError, match=f"{name} needs a model of one input, not of "):
        Explainer(model, name)


def test_one_run_takes_several_inputs() -> None:
    siamese = BRANCHING["siamese"]
    x = siamese.example(2)
    model = relprop.load(siamese.module(), x)
    gradient = Explainer(model, "gradient")(x, 1).relevance
    made = Explainer(model, "gradient_x_input")
    for name, relevance in made(x, 1).relevance.items():
        torch.testing.assert_close(relevance, gradient[name] * x[name])
    with pytest.raises(ValueError, match="a model of several inputs has an attribution for each"):
        _ = made.attribution_shape


@pytest.mark.parametrize("name", [*ONE_RUN, *MANY_RUNS])
def test_ids_are_refused(name: str) -> None:
    graph = g.Graph()
    graph.add("words", g.Input((4,), "ids"))
    graph.add("vectors", g.Embedding(np.ones((9, 3), np.float32)), ["words"])
    graph.add("flat", g.Reshape((12,)), ["vectors"])
    graph.add("scores", g.Dense(np.ones((2, 12), np.float32)), ["flat"])
    with pytest.raises(ValueError, match=rf"{name} needs numbers, not ids \(words\)"):
        Explainer(graph, name, rules={"Embedding": relprop.rules.Zero()})


def test_presets_of_methods_are_described() -> None:
    for name in set(relprop.PRESETS) - set(RULES_ALONE):
        assert str(explainer(name).composite.method) in str(explainer(name)).splitlines()[0]


def test_a_composite_of_ones_own() -> None:
    composite = Composite("edges", (Entry(object, Gradient()),), method=methods.Sobel())
    np.testing.assert_array_equal(
        Explainer(network("branches")[1], composite)(images()).relevance,
        explainer("sobel")(images()).relevance,
    )
