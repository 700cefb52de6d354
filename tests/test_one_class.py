"""One score of a classifier, computed alone, is the one among all."""

from __future__ import annotations

import numpy as np
import pytest

from cases import numbers
from relprop import Explainer, Model
from relprop import graph as g
from relprop.one_class import for_class, share_of_classes


def classifier(ending: str) -> g.Graph:
    """A convolution, then five scores made in one way or another."""
    rng = np.random.default_rng(0)
    graph = g.Graph()
    graph.add("input", g.Input((3, 6, 8)))
    graph.add("conv", g.Conv(numbers(rng, (4, 3, 3, 3)), numbers(rng, (4,))), ["input"])
    graph.add("relu", g.Activation("relu"), ["conv"])
    if ending == "dense":
        graph.add("flat", g.Reshape((96,)), ["relu"])
        graph.add("scores", g.Dense(numbers(rng, (5, 96)), numbers(rng, (5,))), ["flat"])
        return graph
    groups = 2 if ending == "groups" else 1
    classes = 6 if groups == 2 else 5
    weight = numbers(rng, (classes, 4 // groups, 1, 1))
    graph.add("last", g.Conv(weight, numbers(rng, (classes,)), groups=groups), ["relu"])
    if ending == "squeezenet":
        graph.add("last_relu", g.Activation("relu"), ["last"])
        graph.add("pool", g.AdaptiveAvgPool((1, 1)), ["last_relu"])
        graph.add("flat", g.Reshape((5,)), ["pool"])
    elif ending == "across":  # the layers' channels do not stay apart
        graph.add("flat", g.Reshape((5 * 24,)), ["last"])
        graph.add("pairs", g.Reshape((24, 5)), ["flat"])
        graph.add("mean", g.Mean((1,)), ["pairs"])
    elif ending == "read twice":
        graph.add("clip", g.Clip(0.0, 6.0), ["last"])
        graph.add("sum", g.Add(), ["last", "clip"])
        graph.add("mean", g.Mean((1, 2)), ["sum"])
    else:
        graph.add("pooled", g.MaxPool((2, 2), (2, 2)), ["last"])
        graph.add("mean", g.Mean((1, 2)), ["pooled"])
    return graph


@pytest.mark.parametrize("ending", ["dense", "squeezenet", "pools"])
def test_a_score_alone_is_the_one_among_all(ending: str) -> None:
    graph = classifier(ending)
    x = np.random.default_rng(1).standard_normal((3, 3, 6, 8)).astype(np.float32)
    whole = Explainer(graph, "gradient")
    scores = whole.forward(x)
    for index in range(scores.shape[1]):
        part = for_class(whole.graph, index)
        assert part is not None
        alone = Explainer(Model(part), "gradient")
        np.testing.assert_allclose(alone.forward(x)[:, 0], scores[:, index], rtol=1e-5, atol=1e-5)
        np.testing.assert_allclose(
            alone(x, 0).relevance, whole(x, index).relevance, rtol=1e-4, atol=1e-5
        )


@pytest.mark.parametrize("ending", ["groups", "across", "read twice"])
def test_where_channels_cannot_be_left_out_there_is_none(ending: str) -> None:
    graph = classifier(ending)
    assert for_class(graph, 0) is None
    assert share_of_classes(graph) == 0.0


def test_what_is_spared() -> None:
    conv, last = 4 * 3 * 9 * 4 * 6, 5 * 4 * 4 * 6
    assert share_of_classes(classifier("squeezenet")) == pytest.approx(last / (conv + last))


@pytest.mark.parametrize("index", [-1, 5])
def test_a_score_that_is_not_there_is_refused(index: int) -> None:
    with pytest.raises(ValueError, match=rf"output of \(5,\), not {index}"):
        for_class(classifier("dense"), index)
