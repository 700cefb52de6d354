"""Stability under noise, against plain loops and against a map that is known in closed form."""

from __future__ import annotations

import math

import numpy as np
import pytest

from relprop import Explainer, Graph, Model, Preprocessing
from relprop import graph as g
from relprop.evaluation import noise_stability
from relprop.evaluation.streams import Stream

RNG = np.random.default_rng(11)
KEYS = ["a.jpg", "b.jpg", "c.jpg", "d.jpg"]
IMAGES = RNG.standard_normal((4, 3, 6, 5)).astype(np.float32)


def small() -> Graph:
    graph = Graph()
    graph.add("x", g.Input((3, 6, 5)))
    weight = RNG.standard_normal((6, 3, 3, 3)).astype(np.float32)
    graph.add("conv", g.Conv(weight, np.float32([0.1] * 6)), ["x"])
    graph.add("relu", g.Activation("relu"), ["conv"])
    graph.add("flat", g.Reshape((72,)), ["relu"])
    graph.add("dense", g.Dense(RNG.standard_normal((4, 72)).astype(np.float32)), ["flat"])
    return graph


def linear() -> tuple[Graph, np.ndarray]:
    """One dense layer without bias, whose relevance is x times w."""
    weight = RNG.standard_normal((3, 90)).astype(np.float32)
    graph = Graph()
    graph.add("x", g.Input((3, 6, 5)))
    graph.add("flat", g.Reshape((90,)), ["x"])
    graph.add("dense", g.Dense(weight.copy()), ["flat"])
    return graph, weight.astype(np.float64)


def noisy(image: np.ndarray, key: str, repeat: int, noise: float, seed: int = 0) -> np.ndarray:
    """The documented draw, a second time."""
    random = Stream(seed, ("stability", key, repeat)).generator()
    deviation = noise * (float(image.max()) - float(image.min()))
    return (image + random.normal(0, deviation, image.shape)).astype(np.float32)


def norm(values: np.ndarray) -> float:
    return math.sqrt(math.fsum(float(value) ** 2 for value in values.ravel()))


@pytest.mark.parametrize("method", ["gradient", "epsilon", "epsilon_plus_flat"])
def test_distances_are_what_loops_find(method: str) -> None:
    explainer = Explainer(small(), method)
    found = noise_stability(explainer, IMAGES, KEYS, noise=0.1, repeats=3, batch_size=5)
    for i, (image, key) in enumerate(zip(IMAGES, KEYS)):
        result = explainer(image[None])
        (target,) = result.target
        assert found.target[i] == target
        own = result.relevance[0].astype(np.float64).sum(0)
        distances, slopes = [], []
        for repeat in range(3):
            other = noisy(image, key, repeat, 0.1)
            moved = explainer(other[None], int(target)).relevance[0].astype(np.float64).sum(0)
            distances.append(norm(moved - own) / norm(own))
            slopes.append(norm(moved - own) / norm(other.astype(np.float64) - image))
        assert found.distance[i] == pytest.approx(distances, rel=1e-9)
        assert found.slope[i] == pytest.approx(slopes, rel=1e-9)
        assert found.largest_distance[i] == pytest.approx(max(distances))
        assert found.mean_distance[i] == pytest.approx(math.fsum(distances) / 3)
        assert found.lipschitz[i] == pytest.approx(max(slopes))


def test_a_linear_model_is_known_in_closed_form() -> None:
    graph, weight = linear()
    found = noise_stability(Explainer(graph, "epsilon", epsilon=1e-9), IMAGES, KEYS, 1, noise=0.5)
    for i, (image, key) in enumerate(zip(IMAGES, KEYS)):
        for repeat in range(10):
            added = (noisy(image, key, repeat, 0.5).astype(np.float64) - image).ravel()
            moved = (added * weight[1]).reshape(3, 30).sum(0)
            own = (image.ravel() * weight[1]).reshape(3, 30).sum(0)
            assert found.distance[i, repeat] == pytest.approx(norm(moved) / norm(own), rel=1e-4)
            assert found.slope[i, repeat] == pytest.approx(norm(moved) / norm(added), rel=1e-4)
    still = noise_stability(Explainer(graph, "gradient"), IMAGES, KEYS, 1)
    assert (still.distance == 0).all() and (still.lipschitz == 0).all()


def test_neither_batches_nor_other_images_show() -> None:
    explainer = Explainer(small(), "epsilon")
    whole = noise_stability(explainer, IMAGES, KEYS, repeats=4)
    for batch_size in (1, 3, 16):
        again = noise_stability(explainer, IMAGES, KEYS, repeats=4, batch_size=batch_size)
        assert np.array_equal(whole.distance, again.distance)
        assert np.array_equal(whole.slope, again.slope)
    turned = noise_stability(explainer, IMAGES[::-1], KEYS[::-1], repeats=2)
    assert np.array_equal(turned.distance[::-1], whole.distance[:, :2])
    other = noise_stability(explainer, IMAGES, KEYS, repeats=4, seed=1)
    assert not np.isin(other.distance, whole.distance).any()
    assert len(np.unique(whole.distance)) == 16


def test_the_class_is_the_one_without_noise() -> None:
    """Under much noise the prediction changes, what is explained does not."""
    explainer = Explainer(small(), "gradient")
    found = noise_stability(explainer, IMAGES, KEYS, noise=5.0)
    assert np.array_equal(found.target, explainer.forward(IMAGES).argmax(1))
    given = noise_stability(explainer, IMAGES, KEYS, found.target.tolist(), noise=5.0)
    assert np.array_equal(found.distance, given.distance)


def photos() -> tuple[Model, np.ndarray]:
    """A model of photos, and black and white ones, at the bounds of its z_box."""
    preprocessing = Preprocessing(size=(6, 5), mean=(100, 120, 90), std=(50, 60, 70))
    low, high = (np.float32(bound)[:, None, None] for bound in preprocessing.bounds())
    return Model(small(), preprocessing), np.where(RNG.random((4, 3, 6, 5)) < 0.5, low, high)


def test_noise_stays_within_black_and_white() -> None:
    model, images = photos()
    found = noise_stability(Explainer(model, "epsilon_gamma_box"), images, KEYS, noise=0.3)
    assert np.isfinite(found.distance).all() and (found.distance > 0).all()
    free = Explainer(Model(model.graph), "gradient")
    low, high = model.preprocessing.bounds()
    cut = noise_stability(free, images, KEYS, noise=0.3, bounds=(low, high))
    known = noise_stability(Explainer(model, "gradient"), images, KEYS, noise=0.3)
    assert np.array_equal(cut.slope, known.slope)
    uncut = noise_stability(free, images, KEYS, noise=0.3)
    assert not np.array_equal(cut.slope, uncut.slope)
    rounded = noise_stability(Explainer(model, "gradient"), images * np.float32(1 + 1e-6), KEYS)
    assert np.isfinite(rounded.distance).all()
    with pytest.raises(ValueError, match="must lie in the bounds"):
        noise_stability(Explainer(model, "gradient"), images * 2, KEYS)


def test_what_is_not_defined_is_no_number() -> None:
    graph, _ = linear()
    black = np.zeros((1, 3, 6, 5), np.float32)
    found = noise_stability(Explainer(graph, "epsilon"), black, ["black"])
    assert np.isnan(found.distance).all()  # its map is zero
    assert np.isnan(found.slope).all()  # noise is a share of its range, which is zero
    grey = noise_stability(Explainer(graph, "epsilon"), black + 1, ["grey"])
    assert (grey.distance == 0).all() and np.isnan(grey.lipschitz).all()


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ({"images": IMAGES[0]}, r"floats \(N, C, H, W\), not float32 of shape \(3, 6, 5\)"),
        ({"images": IMAGES.astype(int)}, "must be floats"),
        ({"keys": KEYS[:3]}, "one for each of 4 images, not 3"),
        ({"noise": 0}, "noise must be above 0, not 0"),
        ({"noise": math.nan}, "noise must be above 0, not nan"),
        ({"repeats": 0}, "repeats must be at least 1, not 0"),
        ({"batch_size": 0}, "batch_size must be at least 1, not 0"),
        ({"target": np.ones((4, 4), bool)}, "not a mask or relevance"),
    ],
)
def test_what_does_not_fit_is_refused(arguments, text: str) -> None:
    with pytest.raises(ValueError, match=text):
        noise_stability(
            **{"explainer": Explainer(small()), "images": IMAGES, "keys": KEYS, **arguments}
        )
