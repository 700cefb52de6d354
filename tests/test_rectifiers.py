"""Deconvolution and guided backpropagation: at every activation, in graphs, beside autograd."""

from __future__ import annotations

import math
import warnings
from typing import Any, get_args

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

import relprop
from agreement import assert_agrees, assert_every_node_agrees
from cases import BATCHES, SEEDS, numbers
from networks import initialise
from peers import peer
from relprop import Explainer, rules
from relprop import graph as g
from relprop.composites import rectifier
from test_pointwise import BOUNDS, PARAMETER, SHAPES
from test_whole_graphs import graphs

RULES: tuple[rules.Rule, ...] = (rules.Deconvolution(), rules.GuidedBackprop())
PRESETS = ("deconvnet", "guided_backprop")

# --- Activations ---------------------------------------------------------------------------------


@pytest.mark.parametrize("rule", RULES, ids=repr)
@pytest.mark.parametrize("function", get_args(g.Function))
def test_activations(function: g.Function, rule: rules.Rule) -> None:
    rng = np.random.default_rng(0)
    x, r = 3 * numbers(rng, (3, 5, 4, 3)), numbers(rng, (3, 5, 4, 3))
    assert_agrees(g.Activation(function, PARAMETER.get(function, 0.0)), [x], rule, r)


@given(bounds=st.tuples(BOUNDS, BOUNDS).map(sorted), shape=SHAPES, n=BATCHES, seed=SEEDS)
@settings(max_examples=40, deadline=None)
def test_any_clip(bounds, shape, n, seed) -> None:
    low, high = bounds
    if math.isinf(low) and low == high:
        return
    rng = np.random.default_rng(seed)
    x, r = 3 * numbers(rng, (n, *shape)), numbers(rng, (n, *shape))
    for rule in RULES:
        assert_agrees(g.Clip(low, high), [x], rule, r)


@given(shape=SHAPES, one=st.booleans(), n=BATCHES, seed=SEEDS)
@settings(max_examples=40, deadline=None)
def test_any_prelu(shape, one, n, seed) -> None:
    rng = np.random.default_rng(seed)
    x, r = (numbers(rng, (n, *shape)) for _ in range(2))
    operator = g.PReLU(numbers(rng, (1 if one else shape[0],)))
    for rule in RULES:
        assert_agrees(operator, [x], rule, r)


# --- Graphs --------------------------------------------------------------------------------------


@pytest.mark.parametrize("preset", PRESETS)
@given(drawn=graphs(), seed=SEEDS)
@settings(max_examples=100, deadline=None)
def test_any_graph(preset, drawn, seed) -> None:
    """ReLUs that the layer before clamps, that several read, that share memory with their input."""
    graph, _ = drawn
    rng = np.random.default_rng(seed)
    x = {node.name: numbers(rng, (2, *node.shape)) for node in graph.inputs}
    if graph.output in x:
        return
    r = numbers(rng, (2, *graph[graph.output].shape))
    assert_every_node_agrees(Explainer(graph, preset), x, r)


@pytest.mark.parametrize("rule", RULES, ids=repr)
@given(drawn=graphs(), seed=SEEDS)
@settings(max_examples=50, deadline=None)
def test_any_graph_beside_other_rules(rule, drawn, seed) -> None:
    """Layers under z_plus, whose values may be clamped, around such activations."""
    graph, _ = drawn
    rng = np.random.default_rng(seed)
    x = {node.name: numbers(rng, (2, *node.shape)) for node in graph.inputs}
    if graph.output in x:
        return
    own = {node.name: rule for node in graph if rectifier(node)}
    r = np.abs(numbers(rng, (2, *graph[graph.output].shape)))
    explainer = Explainer(graph, "excitation_backprop", rules=own)
    result = assert_every_node_agrees(explainer, x, r)
    assert (result.ledger is None) == bool(own.keys() & explainer.rules.keys())


# --- Networks ------------------------------------------------------------------------------------


class Rectified(torch.autograd.Function):
    """An elementwise function of which a deconvolution or guided backpropagation hands down."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, function: Any, guided: bool) -> Tensor:
        ctx.save_for_backward(x)
        ctx.function, ctx.guided = function, guided
        return function(x)

    @staticmethod
    def backward(ctx: Any, r: Tensor) -> tuple[Tensor, None, None]:
        r = torch.where(r > 0, r, torch.zeros_like(r))
        if not ctx.guided:
            return r, None, None
        (x,) = ctx.saved_tensors
        with torch.enable_grad():
            x = x.detach().requires_grad_()
            (found,) = torch.autograd.grad(ctx.function(x), x, r)
        return found, None, None


class Act(nn.Module):
    """An activation whose backward pass can be exchanged."""

    def __init__(self, function: Any) -> None:
        super().__init__()
        self.function, self.preset = function, "gradient"

    def forward(self, x: Tensor) -> Tensor:
        if self.preset == "gradient":
            return self.function(x)
        return Rectified.apply(x, self.function, self.preset == "guided_backprop")


class Network(nn.Module):
    """A residual sum, a concatenation, a gate, max pooling and rectifiers of many kinds."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, padding=1)
        self.left, self.right = nn.Conv2d(8, 8, 3, padding=1), nn.Conv2d(8, 4, 1)
        self.down, self.gate = nn.Conv2d(12, 12, 3, 2), nn.Conv2d(12, 12, 1)
        self.head = nn.Linear(12, 5)
        self.relu, self.relu6, self.silu = Act(F.relu), Act(F.relu6), Act(F.silu)
        self.gelu, self.leaky = Act(F.gelu), Act(lambda x: F.leaky_relu(x, 0.2))

    def forward(self, x: Tensor) -> Tensor:
        x = F.max_pool2d(self.relu(self.stem(x)), 2)  # read three times
        x = torch.cat([self.relu6(x + self.left(x)), self.silu(self.right(x))], 1)
        x = self.gelu(self.down(x))
        x = x * torch.sigmoid(self.gate(x.mean((2, 3), True)))
        return self.head(self.leaky(x).mean((2, 3)))


def autograd(module: nn.Module, preset: str, x: Tensor, classes: np.ndarray) -> np.ndarray:
    """The gradient in float64 with the backward passes of a preset."""
    for part in module.modules():
        if isinstance(part, Act):
            part.preset = preset
    x = x.double().requires_grad_()
    chosen = module.double()(x).gather(1, torch.from_numpy(classes)[:, None]).sum()
    (found,) = torch.autograd.grad(chosen, x)
    return found.numpy()


def errors(found: np.ndarray, truth: np.ndarray) -> list[float]:
    return [float(np.linalg.norm(a - b) / np.linalg.norm(b)) for a, b in zip(found, truth)]


@pytest.mark.parametrize("preset", ["gradient", *PRESETS])
def test_a_network_is_as_by_hand(preset: str) -> None:
    module = initialise(Network())
    x = torch.randn(9, 3, 14, 14, generator=torch.Generator().manual_seed(0))
    result = Explainer(relprop.load(module, x), preset)(x.numpy())
    truth = autograd(module, preset, x, result.target)
    assert np.median(errors(result.relevance, truth)) <= 1e-5
    assert result.ledger is None
    if preset != "gradient":  # it is another method
        plain = autograd(module, "gradient", x, result.target)
        assert min(errors(plain, truth)) > 0.1


class OnlyReLU(nn.Module):
    """What Captum and zennit define alike: modules of ReLU, each used once."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 8, 3, padding=1)
        self.third, self.head = nn.Conv2d(16, 12, 3), nn.Linear(12 * 25, 5)
        self.relus, self.pool = nn.ModuleList(nn.ReLU() for _ in range(3)), nn.MaxPool2d(2)

    def forward(self, x: Tensor) -> Tensor:
        x = self.pool(self.relus[0](self.first(x)))
        x = torch.cat([self.relus[1](x + self.second(x)), x], 1)
        return self.head(self.relus[2](self.third(x)).flatten(1))


@pytest.mark.parametrize("preset", PRESETS)
def test_a_network_is_captums(preset: str) -> None:
    attr = peer("captum.attr")
    module = initialise(OnlyReLU())
    x = torch.randn(9, 3, 14, 14, generator=torch.Generator().manual_seed(0))
    result = Explainer(relprop.load(module, x), preset)(x.numpy(), 2)
    method = attr.Deconvolution if preset == "deconvnet" else attr.GuidedBackprop
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it says that it sets hooks
        truth = method(module.double()).attribute(x.double().requires_grad_(), target=2)
    truth = truth.detach().numpy()
    assert np.median(errors(result.relevance, truth)) <= 1e-5


@pytest.mark.parametrize("preset", PRESETS)
def test_it_starts_with_one(preset: str) -> None:
    module = initialise(nn.Sequential(nn.Linear(6, 5), nn.ReLU(), nn.Linear(5, 3)))
    x = torch.randn(4, 6, generator=torch.Generator().manual_seed(0))
    explainer = Explainer(relprop.load(module, x), preset)
    one = np.zeros((4, 3), np.float32)
    one[:, 1] = 1
    np.testing.assert_array_equal(explainer(x.numpy(), 1).relevance,
                                  explainer(x.numpy(), one).relevance)  # fmt: skip


def test_gates_and_clamps_are_no_rectifiers() -> None:
    graph = g.Graph()
    graph.add("input", g.Input((4,)))
    operators = {
        **{name: g.Activation(name) for name in get_args(g.Function)},
        "clip from 0": g.Clip(0.0, 3.0),
        "clamp": g.Clip(-1.0, 1.0),
        "prelu": g.PReLU(np.float32([0.25])),
    }
    for name, operator in operators.items():
        graph.add(name, operator, ["input"])
    others = {name for name in operators if not rectifier(graph[name])}
    assert others == {"sigmoid", "hard_sigmoid", "tanh", "softplus", "exp", "power", "clamp"}
