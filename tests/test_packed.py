"""Packed weights: once for all Plans that read the same, and no longer than one of them lives.

Dense layers pack none: they read the Graph's.
"""

from __future__ import annotations

import gc
import weakref
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from agreement import assert_layer_agrees, build
from cases import LINEAR_RULES, dense, numbers
from relprop import Explainer, _core, rules
from relprop import graph as g
from relprop.compile import compile_plan
from relprop.rules import Rule

SHAPE = (24, 9, 9)
X = numbers(np.random.default_rng(1), (2, *SHAPE))


def network(seed: int = 0) -> g.Graph:
    """A 3 x 3 layer with a ReLU, a strided one and a dense one."""
    rng = np.random.default_rng(seed)
    graph = g.Graph()
    graph.add("input", g.Input(SHAPE))
    graph.add("conv", g.Conv(numbers(rng, (40, 24, 3, 3)), padding=((1, 1),) * 2), ["input"])
    graph.add("relu", g.Activation("relu"), ["conv"])
    graph.add("strided", g.Conv(numbers(rng, (20, 40, 3, 3)), None, (2, 2)), ["relu"])
    graph.add("flat", g.Reshape((320,)), ["strided"])
    graph.add("dense", g.Dense(numbers(rng, (33, 320))), ["flat"])
    return graph


@pytest.fixture(autouse=True, scope="module")
def older_objects_stay() -> Iterator[None]:
    """What other tests left behind is not gone through at every collection here."""
    gc.collect()
    gc.freeze()
    yield
    gc.unfreeze()


@pytest.fixture(autouse=True)
def nothing_left() -> Iterator[None]:
    """Whatever a test packs is gone when its Explainers are."""
    gc.collect()
    before = _core.packed_bytes()
    yield
    gc.collect()
    assert _core.packed_bytes() <= before


def test_equal_weights_are_packed_once() -> None:
    first = Explainer(network(), "epsilon_plus_flat")
    held = _core.packed_bytes()
    others = [Explainer(network(), "epsilon_plus_flat") for _ in range(3)]
    assert _core.packed_bytes() == held
    expected = first(X, 1).relevance
    del first
    gc.collect()
    assert _core.packed_bytes() == held
    for other in others:
        np.testing.assert_array_equal(other(X, 1).relevance, expected)


def test_presets_share_what_they_have_in_common() -> None:
    before = _core.packed_bytes()
    epsilon = Explainer(network(), "epsilon")
    alone = _core.packed_bytes() - before
    plus = Explainer(network(), "epsilon_plus")
    both = _core.packed_bytes() - before
    expected = plus(X, 1).relevance
    del epsilon
    gc.collect()
    plus_alone = _core.packed_bytes() - before
    assert alone < both < alone + plus_alone
    np.testing.assert_array_equal(plus(X, 1).relevance, expected)
    np.testing.assert_array_equal(Explainer(network(), "epsilon_plus")(X, 1).relevance, expected)


@pytest.mark.parametrize("node", ["conv", "strided"])
def test_one_weight_tells_layers_apart(node: str) -> None:
    graph, rng = network(), np.random.default_rng(2)
    first = Explainer(graph, "epsilon")
    held = _core.packed_bytes()
    weight = graph[node].operator.weight
    for _ in range(20):
        other = network()
        changed = other[node].operator.weight
        changed.flat[rng.integers(changed.size)] += np.float32(1)
        second = Explainer(other, "epsilon")
        assert held < _core.packed_bytes() < 2 * held
        assert not np.array_equal(second.forward(X), first.forward(X))
        del second
    a, b = rng.integers(weight.size, size=2)
    swapped = network()
    values = swapped[node].operator.weight
    values.flat[a], values.flat[b] = weight.flat[b], weight.flat[a]
    second = Explainer(swapped, "epsilon")
    assert _core.packed_bytes() > held
    del second


@pytest.mark.parametrize(
    "rule", [rules.Gamma(0.25), rules.ZPlus(), rules.AlphaBeta(2, 1), rules.WSquare()]
)
def test_versions_are_told_apart(rule: Rule) -> None:
    """What a rule gives does not depend on what was packed for another before it."""
    chosen: dict[object, Rule] = dict.fromkeys(("conv", "strided", "dense"), rule)
    expected = Explainer(network(), "epsilon", rules=chosen)(X, 1).relevance
    others = [Explainer(network(), "epsilon", rules=dict.fromkeys(chosen, other))
              for other in (rules.Gamma(0.5), rules.Epsilon(), rules.AlphaBeta(3, 2))]  # fmt: skip
    again = Explainer(network(), "epsilon", rules=chosen)
    np.testing.assert_array_equal(again(X, 1).relevance, expected)
    del others


def test_geometries_are_told_apart() -> None:
    """The same numbers as a kernel of 3 x 3, of 1 x 9, transposed, and under other rules."""
    rng = np.random.default_rng(3)
    weight = numbers(rng, (20, 20, 3, 3))
    layers = [
        g.Conv(weight),
        g.Conv(weight.reshape(20, 20, 1, 9)),
        g.Conv(weight.reshape(40, 10, 3, 3), groups=2),
        g.Conv(weight, stride=(2, 2)),
        g.ConvTranspose(weight),
    ]
    held = []
    for layer in layers:
        held.append(Explainer(build(layer, [(20, 12, 12)]), "epsilon"))
        assert_layer_agrees(layer, (20, 12, 12), rules.Epsilon(), rng, form="products")


def test_threads_that_compile_at_once_share_too() -> None:
    with ThreadPoolExecutor(4) as pool:
        explainers = list(pool.map(lambda _: Explainer(network(), "epsilon_plus"), range(8)))
    held = _core.packed_bytes()
    one = explainers[0](X, 1).relevance
    for explainer in explainers[1:]:
        np.testing.assert_array_equal(explainer(X, 1).relevance, one)
    del explainers[1:], explainer
    gc.collect()
    assert _core.packed_bytes() == held


@pytest.mark.parametrize("rule", LINEAR_RULES, ids=str)
def test_dense_layers_pack_nothing(rule: Rule) -> None:
    before = _core.packed_bytes()
    for layer in (g.Dense(np.ones((40, 30), np.float32)), g.Dense(np.ones((3, 30), np.float32))):
        explainer = Explainer(build(layer, [(30,)]), rules={"layer": rule})
        assert _core.packed_bytes() == before
        del explainer


def test_weights_that_are_read_in_place_cannot_be_written() -> None:
    graph = network()
    Explainer(graph, "epsilon")
    for name in ("dense", "conv"):
        with pytest.raises(ValueError, match="read-only"):
            graph[name].operator.weight[0, 0] = 1
    flat = numbers(np.random.default_rng(0), (60,))
    Explainer(build(g.Dense(flat.reshape(20, 3)), [(3,)]), "epsilon")
    with pytest.raises(ValueError, match="read-only"):
        flat[0] = 1


@pytest.mark.parametrize(
    "view",
    [lambda w: w[:, :30], lambda w: w[1:], lambda w: w.T, lambda w: w.astype(np.float64)],
    ids=["columns", "rows", "transposed", "float64"],
)
def test_others_are_copied(view: Callable[[g.Array], g.Array]) -> None:
    weight = numbers(np.random.default_rng(0), (40, 31))
    layer = g.Dense(view(weight))
    features = layer.weight.shape[1]
    explainer = Explainer(build(layer, [(features,)]), "epsilon")
    x = numbers(np.random.default_rng(1), (2, features))
    expected = explainer(x, 1).relevance
    weight[:] = 0
    layer.weight[:] = 0
    np.testing.assert_array_equal(explainer(x, 1).relevance, expected)


def test_a_plan_keeps_the_weights_that_it_reads() -> None:
    graph = build(dense(300, 40)(np.random.default_rng(0)), [(300,)])
    compiled = compile_plan(graph, {"input": rules.Pass(), "layer": rules.Epsilon()})
    weight = weakref.ref(graph["layer"].operator.weight)
    del graph
    gc.collect()
    assert weight() is not None
    x, scores = np.ones((1, 300), np.float32), np.empty((1, 40), np.float32)
    compiled.plan.run([x], scores)
    np.testing.assert_allclose(scores[0], weight().sum(axis=1), atol=1)
    del compiled
    gc.collect()
    assert weight() is None
