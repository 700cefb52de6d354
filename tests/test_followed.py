"""Curves of one class's score, computed alone, are those among all scores."""

from __future__ import annotations

import numpy as np
import pytest

from cases import numbers
from relprop import Explainer
from relprop import graph as g
from relprop.evaluation import CurveRequest, CurveTask, Perturbing, Uniform, grid
from relprop.evaluation.followed import KEPT, followed_in

CLASSES = KEPT + 3


def network(classes: int = CLASSES, side: int = 3) -> Explainer:
    """A network whose last convolution is most of it."""
    rng = np.random.default_rng(0)
    graph = g.Graph()
    graph.add("input", g.Input((2, 8, 8)))
    graph.add("conv", g.Conv(numbers(rng, (2, 2, side, side))), ["input"])
    graph.add("relu", g.Activation("relu"), ["conv"])
    graph.add("last", g.Conv(numbers(rng, (classes, 2, 1, 1))), ["relu"])
    graph.add("scores", g.Mean((1, 2)), ["last"])
    return Explainer(graph, "gradient")


def tasks(targets: list[int | None]) -> list[CurveTask]:
    rng = np.random.default_rng(1)
    labels, noise = grid(8, 8, 2), Uniform(-1.0, 1.0)
    return [
        CurveTask(
            f"image {i}",
            numbers(rng, (2, 8, 8)),
            [
                CurveRequest(labels, noise, "morf", numbers(rng, (8, 8))),
                CurveRequest(labels, noise, "random"),
            ],
            target,
        )
        for i, target in enumerate(targets)
    ]


TARGETS = [4, None, 4, 0, *range(CLASSES), None, 4]  # more classes than are kept, some twice


@pytest.mark.parametrize("batch", [1, 7, 64])
def test_curves_are_those_among_all_scores(batch: int) -> None:
    explainer = network()
    assert followed_in(explainer) is not None
    options = {"steps": 5, "repeats": 2, "batch": batch}
    found = list(Perturbing(explainer, **options)(tasks(TARGETS)))
    among_all = list(Perturbing(explainer.forward, **options)(tasks(TARGETS)))
    for one, other in zip(found, among_all, strict=True):
        assert (one.key, one.target, one.regions) == (other.key, other.target, other.regions)
        for curve, expected in zip(one.scores, other.scores, strict=True):
            np.testing.assert_allclose(curve, expected, rtol=1e-5, atol=1e-6)


def test_neither_batches_nor_other_images_show() -> None:
    explainer = network()
    together = list(Perturbing(explainer, steps=5, repeats=2, batch=7)(tasks(TARGETS)))
    for task, found in zip(tasks(TARGETS), together, strict=True):
        (alone,) = Perturbing(explainer, steps=5, repeats=2, batch=3)([task])
        for curve, expected in zip(found.scores, alone.scores, strict=True):
            np.testing.assert_array_equal(curve, expected)


def test_a_class_that_is_not_there_is_refused() -> None:
    with pytest.raises(ValueError, match=rf"image 0: target must lie in \[0, {CLASSES}\), not 99"):
        list(Perturbing(network(), steps=2)(tasks([99])))


def test_a_probability_needs_all_scores() -> None:
    explainer = network()
    options = {"steps": 3, "repeats": 1, "score": "probability"}
    (found,) = Perturbing(explainer, **options)(tasks([3]))
    (expected,) = Perturbing(explainer.forward, **options)(tasks([3]))
    np.testing.assert_array_equal(found.scores[0], expected.scores[0])


def test_passes_are_told_and_may_stop_the_work() -> None:
    told: list[int] = []

    def passed(count: int) -> None:
        told.append(count)
        if sum(told) > 12:
            raise KeyboardInterrupt

    perturbing = Perturbing(network(), steps=5, repeats=2, batch=4, passed=passed)
    with pytest.raises(KeyboardInterrupt):
        list(perturbing(tasks([1, 2])))
    assert told == [4, 4, 4, 4]


def test_little_is_not_worth_a_network_of_its_own() -> None:
    assert followed_in(network(classes=1, side=5)) is None
