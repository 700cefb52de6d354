"""What is known of signs and of relevance's support, case by case and against real runs."""

from __future__ import annotations

import numpy as np
import pytest

import networks
import relprop
from relprop.composites import assign, preset
from relprop.graph import (
    Activation,
    Add,
    AvgPool,
    BatchNorm,
    Clip,
    Concat,
    Constant,
    Conv,
    Dense,
    Graph,
    Input,
    LocalResponseNorm,
    Maximum,
    MaxPool,
    Operator,
    Pad,
    PReLU,
    Reshape,
)
from relprop.rules import Epsilon, Flat, Pass, Proportional, Rule, Taylor, WSquare, Zero
from relprop.signs import nonnegative, supported


def conv(channels: int = 2) -> Conv:
    return conv_to(channels, channels)


def conv_to(outputs: int, inputs: int) -> Conv:
    return Conv(np.ones((outputs, inputs, 1, 1), np.float32))


def chain(*operators: Operator) -> Graph:
    """A graph of operators one behind the other, named n0, n1, ... after the input x."""
    graph = Graph()
    last = graph.add("x", Input((2, 4, 4)))
    for i, operator in enumerate(operators):
        last = graph.add(f"n{i}", operator, [last])
    return graph


def epsilon(graph: Graph, **rules: Rule) -> dict[str, Rule]:
    return assign(preset("epsilon"), graph, rules)


def test_nonnegative() -> None:
    graph = chain(
        conv(),
        Activation("relu"),
        MaxPool((2, 2), (2, 2)),
        LocalResponseNorm(3),
        Pad(((0, 0), (1, 1), (1, 1))),
        Activation("silu"),
        BatchNorm(np.ones(2, np.float32), np.ones(2, np.float32)),
        Activation("sigmoid"),
        Activation("power", -0.5),
        conv(),
        Activation("power", 0.5),
        Activation("power", 2),
        conv(),
        Activation("exp"),
        Pad(((0, 0), (1, 1), (1, 1)), value=-1.0),
    )
    assert nonnegative(graph) == {"n1", "n2", "n3", "n4", "n5", "n7", "n8", "n11", "n13"}


def test_constants_and_sums() -> None:
    graph = Graph()
    graph.add("x", Input((3,)))
    graph.add("relu", Activation("relu"), ["x"])
    graph.add("plus", Constant(np.array([0, 1, 2], np.float32)))
    graph.add("minus", Constant(np.array([0, 1, -2], np.float32)))
    graph.add("up", Add(), ["relu", "plus"])
    graph.add("down", Add(), ["relu", "minus"])
    graph.add("most", Maximum(), ["minus", "relu"])
    assert nonnegative(graph) == {"relu", "plus", "up", "most"}


def test_clips_and_slopes() -> None:
    minus = np.array([-1, -2], np.float32)
    operators = [Clip(-1, 2), PReLU(minus), Clip(0.5, 2), PReLU(minus), Clip(-1, 2), Clip(-3, -1)]
    assert nonnegative(chain(*operators)) == {"n2", "n3", "n4"}


@pytest.mark.parametrize(
    ("behind", "rules", "expected"),
    [
        ([conv()], {}, True),
        ([conv()], {"n2": Flat()}, False),
        ([conv()], {"n2": WSquare()}, False),
        ([conv()], {"n2": Epsilon(bias="distribute")}, False),
        ([conv()], {"n2": Zero()}, True),
        ([MaxPool((2, 2), (2, 2)), conv()], {}, True),
        ([MaxPool((2, 2), (2, 2)), conv()], {"n3": Flat()}, False),
        ([AvgPool((2, 2), (2, 2)), conv()], {"n3": Flat()}, True),
        ([LocalResponseNorm(3), conv()], {}, True),
        ([LocalResponseNorm(3), conv()], {"n3": Flat()}, False),
        ([LocalResponseNorm(3), conv()], {"n2": Taylor(), "n3": Flat()}, True),
        ([Activation("sigmoid"), conv()], {}, False),
        ([Activation("tanh"), conv()], {}, True),
        ([Activation("exp"), conv()], {}, False),
        ([Activation("power", -1.0), conv()], {}, False),
        ([Activation("power", 0.5), conv()], {}, True),
        ([PReLU(np.float32([1, -2])), conv()], {}, True),
        ([Clip(-1, 0), conv()], {}, True),
        ([Clip(0.5, 1), conv()], {}, False),
        ([BatchNorm(np.ones(2, np.float32), np.ones(2, np.float32))], {}, True),
        ([BatchNorm(np.ones(2, np.float32), np.ones(2, np.float32))], {"n2": Pass()}, False),
        ([Reshape((32,))], {}, False),  # the output: its relevance is the user's to choose
        ([Reshape((32,)), Dense(np.ones((1, 32), np.float32))], {}, True),
        ([], {}, False),
    ],
)
def test_supported_by_a_relu(
    behind: list[Operator], rules: dict[str, Rule], expected: bool
) -> None:
    graph = chain(conv(), Activation("relu"), *behind)
    if not any(isinstance(operator, Reshape) for operator in behind) and behind:
        graph.add("end", conv(), [graph.output])
    assert ("n0" in supported(graph, epsilon(graph, **rules))) is expected


def test_not_supported_before_a_residual_sum() -> None:
    graph = chain(conv(), Activation("relu"), conv())
    graph.add("sum", Add(), ["n2", "n1"])
    graph.add("relu", Activation("relu"), ["sum"])
    graph.add("last", conv(), ["relu"])
    assert supported(graph, epsilon(graph)) == {"n0", "sum"}


def test_supported_where_only_moves_lie_between() -> None:
    graph = Graph()
    graph.add("x", Input((2, 4, 4)))
    for name in ("left", "right", "outside"):
        graph.add(name, conv(), ["x"])
    graph.add("pool", MaxPool((3, 3), (1, 1), padding=((1, 1), (1, 1))), ["right"])
    graph.add("cat", Concat(), ["left", "pool"])
    graph.add("relu", Activation("relu"), ["cat"])
    graph.add("joined", conv(4), ["relu"])
    graph.add("reduced", conv_to(2, 4), ["joined"])
    graph.add("end", Concat(), ["reduced", "outside"])
    rules = epsilon(graph)
    assert supported(graph, rules) == {"left", "right", "pool", "cat"}
    assert supported(graph, {**rules, "pool": Proportional()}) == {"left", "pool", "cat"}
    assert not supported(graph, {**rules, "joined": Flat()})


@pytest.mark.parametrize("name", ["epsilon", "epsilon_plus_flat", "alpha2_beta1"])
@pytest.mark.parametrize("network", ["resnet20", "squeezenet", "googlenet"])
def test_facts_hold_in_real_runs(network: str, name: str) -> None:
    factory, shape = networks.NETWORKS[network]
    shape = shape if network == "resnet20" else (3, 64, 64)
    images = np.random.default_rng(0).standard_normal((2, *shape)).astype(np.float32)
    module = networks.initialise(factory()).eval()
    model = relprop.load(module, images[:1])
    explainer = relprop.Explainer(model, name)
    result = explainer(images, intermediate=list(model.graph.nodes))
    for node in nonnegative(model.graph) & set(result.activations):
        assert result.activations[node].min() >= 0, node
    found = 0
    for node in supported(model.graph, explainer.rules):
        if node in result.activations:
            silent = result.activations[node] <= 0
        else:  # fused with its ReLU
            (relu,) = (reader.name for reader in model.graph.consumers()[node])
            silent = result.activations[relu] == 0
        assert not result.intermediate[node][silent].any(), node
        found += int(silent.sum())
    assert found > 0
