"""Threads: any number inside the core, and any number of callers at once."""

from __future__ import annotations

import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

import relprop
from cases import numbers
from relprop import Explainer, Graph
from relprop import graph as g

IMAGES = np.random.default_rng(1).standard_normal((20, 3, 24, 24)).astype(np.float32)


def network() -> Graph:
    """Convolutions, pooling, a branch, a gate and a dense layer."""
    rng = np.random.default_rng(0)
    graph = Graph()
    graph.add("input", g.Input((3, 24, 24)))
    graph.add("first", g.Conv(numbers(rng, (24, 3, 3, 3)), padding=((1, 1),) * 2), ["input"])
    graph.add("relu", g.Activation("relu"), ["first"])
    graph.add("pool", g.MaxPool((2, 2), (2, 2)), ["relu"])
    graph.add("left", g.Conv(numbers(rng, (24, 24, 1, 1)), numbers(rng, (24,))), ["pool"])
    graph.add("right", g.Conv(numbers(rng, (24, 1, 3, 3)), None, (1, 1), ((1, 1),) * 2, groups=24),
              ["pool"])  # fmt: skip
    graph.add("gate", g.Activation("sigmoid"), ["right"])
    graph.add("product", g.Mul(), ["left", "gate"])
    graph.add("sum", g.Add(), ["product", "pool"])
    graph.add("mean", g.AvgPool((3, 3), (3, 3)), ["sum"])
    graph.add("flat", g.Reshape((24 * 16,)), ["mean"])
    graph.add("dense", g.Dense(numbers(rng, (10, 24 * 16)), numbers(rng, (10,))), ["flat"])
    return graph


@pytest.fixture(autouse=True)
def all_cores_afterwards() -> Iterator[None]:
    yield
    relprop.set_threads(os.cpu_count() or 1)


@pytest.mark.parametrize("composite", ["epsilon_plus_flat", "alpha2_beta1", "gradient"])
def test_the_number_of_threads_does_not_show(composite: str) -> None:
    explainer = Explainer(network(), composite)
    relprop.set_threads(1)
    expected = explainer(IMAGES).relevance
    for count in (2, 3, 8):
        relprop.set_threads(count)
        np.testing.assert_array_equal(explainer(IMAGES).relevance, expected)


@pytest.mark.parametrize("count", [1, 2, 3, 8])
def test_the_first_bad_sample_is_named_whoever_ran_it(count: int) -> None:
    relprop.set_threads(count)
    explainer = Explainer(network(), "epsilon")
    images = IMAGES.copy()
    images[[5, 6, 7, 13]] = 1e38
    with pytest.raises(ValueError, match=r"output is not finite for sample 5 "):
        explainer(images)
    assert np.isfinite(explainer(IMAGES).relevance).all()


def test_callers_share_an_explainer_while_the_number_of_threads_changes() -> None:
    explainer = Explainer(network(), "epsilon_plus_flat")
    expected = explainer(IMAGES).relevance

    def call(turn: int) -> bool:
        if turn % 5 == 0:
            relprop.set_threads(1 + turn % 4)
        return np.array_equal(explainer(IMAGES[: turn + 1]).relevance, expected[: turn + 1])

    with ThreadPoolExecutor(4) as pool:
        assert all(pool.map(call, range(len(IMAGES))))


def test_callers_compile_and_run_explainers_of_their_own() -> None:
    expected = Explainer(network(), "alpha2_beta1")(IMAGES[:2]).relevance

    def call(_: int) -> bool:
        return np.array_equal(Explainer(network(), "alpha2_beta1")(IMAGES[:2]).relevance, expected)

    with ThreadPoolExecutor(4) as pool:
        assert all(pool.map(call, range(8)))


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this platform does not fork")
@pytest.mark.filterwarnings("ignore:.*multi-threaded.*:DeprecationWarning")
def test_a_forked_child_explains_too() -> None:
    explainer = Explainer(network(), "epsilon_plus_flat")
    expected = explainer(IMAGES).relevance
    child = os.fork()
    if child == 0:
        same = np.array_equal(explainer(IMAGES).relevance, expected)
        os._exit(0 if same else 1)
    assert os.waitpid(child, 0)[1] == 0


@pytest.mark.parametrize("count", [0, -1, 10**6])
def test_numbers_of_threads_out_of_range(count: int) -> None:
    with pytest.raises(ValueError, match=f"between 1 and 4096, not {count}"):
        relprop.set_threads(count)
