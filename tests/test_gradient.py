"""The gradient: every operator and whole networks against torch's autograd in float64."""

from __future__ import annotations

from functools import reduce
from typing import get_args

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

import reference
import relprop
from agreement import assert_agrees, assert_every_node_agrees
from branching_networks import BRANCHING
from cases import (
    BATCHES,
    CASES,
    KINDS,
    LAYER_NORM,
    SEEDS,
    TRANSPOSED_CONVOLUTIONS,
    Case,
    convolutions,
    dense_layers,
    fixed,
    numbers,
    pools,
    torch_pools,
    transposed_convolutions,
)
from networks import NETWORKS, initialise, with_small_head
from relprop import Explainer, UnmatchedLayerError, rules
from relprop import graph as g
from test_pointwise import EXPONENTS, PARAMETER, within_float32
from test_whole_graphs import any_operator, graphs

# --- Operators -----------------------------------------------------------------------------------

OTHERS = [
    *(
        Case(name, (3, 5, 4), fixed(g.Activation(name, PARAMETER.get(name, 0.0))))
        for name in get_args(g.Function)
    ),
    Case("clip", (40,), fixed(g.Clip(-0.5, 0.75))),
    Case("clip on one side", (40,), fixed(g.Clip(-np.inf, 0.25))),
    Case("prelu", (3, 5, 4), lambda rng: g.PReLU(numbers(rng, (3,)))),
    Case("prelu of one slope", (3, 5, 4), lambda rng: g.PReLU(numbers(rng, (1,)))),
    Case("nearest", (3, 4, 5), fixed(g.UpsampleNearest2d((7, 10), (4 / 7, 5 / 10)))),
    Case("bilinear", (3, 4, 5), fixed(g.UpsampleBilinear2d((7, 3), (4 / 7, 5 / 3)))),
    Case("bilinear, corners", (3, 4, 5), fixed(g.UpsampleBilinear2d((7, 9), (3 / 6, 4 / 8), True))),
    Case("slice", (3, 7), fixed(g.Slice(1, 1, 6, 2))),
    Case("pad", (3, 4), fixed(g.Pad(((0, 1), (2, 0)), 0.5))),
    Case("reshape", (3, 4), fixed(g.Reshape((2, 6)))),
    Case("permute", (3, 4, 2), fixed(g.Permute((2, 0, 1)))),
    Case("identity", (3, 4), fixed(g.Identity())),
    Case("softmax", (3, 4, 9), fixed(g.Softmax(2))),
    Case("softmax of channels", (5, 3, 4), fixed(g.Softmax(0))),
]
MERGES = [
    (g.Add(), [(3, 4, 5)] * 3),
    (g.Add(), [(3, 4, 5), (4, 1)]),
    (g.Mul(), [(3, 4, 5)] * 2),
    (g.Mul(), [(3, 4, 5), (3, 1, 1)]),
    (g.Maximum(), [(3, 4, 5)] * 3),
    (g.Maximum(), [(4, 5), (3, 1, 5)]),
    (g.Concat(1), [(3, 4), (3, 1), (3, 2)]),
    (g.MatMul(), [(3, 4, 5), (3, 5, 2)]),
    (g.MatMul(transposed=True), [(2, 3, 9, 4), (2, 3, 7, 4)]),
]


def in_torch(operator: g.Operator, xs: list[Tensor]) -> Tensor | None:
    """The operator as torch computes it, None where it has no such thing."""
    x = xs[0]
    axes = x.ndim - 2
    if isinstance(operator, g.Conv | g.ConvTranspose):
        weight = torch.from_numpy(operator.weight).double()
        rest = {"stride": operator.stride, "dilation": operator.dilation, "groups": operator.groups}
        if isinstance(operator, g.Conv):
            return getattr(F, f"conv{axes}d")(padded(x, operator.padding, 0.0), weight, **rest)
        extra = {"output_padding": operator.output_padding}
        whole = getattr(F, f"conv_transpose{axes}d")(x, weight, **rest, **extra)
        return whole[reference.inner(operator, operator.infer_shape(tuple(x.shape[1:])))]
    if isinstance(operator, g.Dense):
        return x @ torch.from_numpy(operator.weight).double().T
    if isinstance(operator, g.MaxPool | g.AvgPool):
        return pool_in_torch(operator, x)
    if isinstance(operator, g.AdaptiveAvgPool):
        return getattr(F, f"adaptive_avg_pool{axes}d")(x, operator.output)
    if isinstance(operator, g.Mean):
        return x.mean(tuple(a + 1 for a in operator.axes), operator.keepdims)
    if isinstance(operator, g.BatchNorm):
        return x * torch.from_numpy(operator.scale).double().reshape(-1, *(1,) * axes)
    if isinstance(operator, g.LayerNorm | g.GroupNorm):
        return normed(operator, x)
    if isinstance(operator, g.Softmax):
        return x.softmax(operator.axis + 1)
    if isinstance(operator, g.MatMul):
        return x @ (xs[1].transpose(-1, -2) if operator.transposed else xs[1])
    if isinstance(operator, g.LocalResponseNorm):
        n, alpha, beta, k = operator.size, operator.alpha, operator.beta, operator.k
        if not operator.within_channel:
            return F.local_response_norm(x, n, alpha, beta, k)
        around = (n // 2, (n - 1) // 2)
        return x * (k + alpha * F.avg_pool2d(padded(x**2, (around,) * 2, 0.0), n, 1)) ** -beta
    if isinstance(operator, g.Activation):
        return activated(operator, x)
    if isinstance(operator, g.Clip):
        return F.hardtanh(x, operator.low, operator.high)
    if isinstance(operator, g.PReLU):
        return F.prelu(x, torch.from_numpy(operator.slope).double())
    if isinstance(operator, g.UpsampleNearest2d):
        return F.interpolate(x, operator.size)
    if isinstance(operator, g.UpsampleBilinear2d):
        corners = operator.align_corners
        return F.interpolate(x, operator.size, mode="bilinear", align_corners=corners)
    if isinstance(operator, g.Slice):
        cut = slice(operator.start, operator.stop, operator.step)
        return x[(slice(None),) * (operator.axis + 1) + (cut,)]
    if isinstance(operator, g.Pad):
        return padded(x, operator.pads, operator.value)
    if isinstance(operator, g.Reshape):
        return x.reshape(len(x), *operator.shape)
    if isinstance(operator, g.Permute):
        return x.permute(0, *(axis + 1 for axis in operator.axes))
    if isinstance(operator, g.Concat):
        return torch.cat(xs, operator.axis + 1)
    if isinstance(operator, g.Identity):
        return x.clone()
    most = max(x.ndim for x in xs)
    xs = [x.reshape(len(x), *(1,) * (most - x.ndim), *x.shape[1:]) for x in xs]
    merge = {g.Add: torch.add, g.Mul: torch.mul, g.Maximum: torch.maximum}[type(operator)]
    return reduce(merge, xs)


def normed(operator: g.LayerNorm | g.GroupNorm, x: Tensor) -> Tensor | None:
    weight = torch.from_numpy(operator.weight).double()
    bias = None if operator.bias is None else torch.from_numpy(operator.bias).double()
    epsilon = float(np.float32(operator.epsilon))
    if isinstance(operator, g.GroupNorm):
        if np.prod(x.shape[1:]) == operator.groups:
            return None  # torch wants more than one value in each
        return F.group_norm(x, operator.groups, weight, bias, epsilon)
    if operator.centred:
        return F.layer_norm(x, weight.shape, weight, bias, epsilon)
    return F.rms_norm(x, weight.shape, weight, epsilon) + (0 if bias is None else bias)


def padded(x: Tensor, pads: g.Padding, value: float) -> Tensor:
    return F.pad(x, [n for pair in reversed(pads) for n in pair], value=value)


def pool_in_torch(operator: g.MaxPool | g.AvgPool, x: Tensor) -> Tensor | None:
    axes, pads = x.ndim - 2, tuple(before for before, _ in operator.padding)
    if not torch_pools(operator, tuple(x.shape[1:])):
        return None
    where = (x, operator.kernel, operator.stride, pads)
    if isinstance(operator, g.MaxPool):
        rest = (operator.dilation, operator.ceil_mode)
        return getattr(F, f"max_pool{axes}d")(*where, *rest)
    rest = (operator.ceil_mode, operator.count_include_pad)
    if axes > 1:
        return getattr(F, f"avg_pool{axes}d")(*where, *rest, operator.divisor)
    return None if operator.divisor else F.avg_pool1d(*where, *rest)


def activated(operator: g.Activation, x: Tensor) -> Tensor:
    name, parameter = operator.function, operator.parameter
    if name in ("exp", "power"):
        return x.exp() if name == "exp" else x**parameter
    if name in PARAMETER:
        return getattr(F, name)(x, parameter)
    if name == "gelu_tanh":
        return F.gelu(x, approximate="tanh")
    if name == "softplus":
        return F.softplus(x, threshold=1000)
    spelled = {"hard_sigmoid": "hardsigmoid", "hard_swish": "hardswish"}
    return getattr(F, spelled.get(name, name))(x)


def assert_is_torchs(operator: g.Operator, xs: list[g.Array], r: g.Array) -> None:
    """The reference agrees with torch where it has the operator, the core with the reference."""
    inputs = [torch.from_numpy(x).double().requires_grad_() for x in xs]
    value = in_torch(operator, inputs)
    if value is not None and len(r):
        truth = torch.autograd.grad(value, inputs, torch.from_numpy(r).double())
        shares, ledger = reference.propagate(
            operator, rules.Gradient(), [x.astype(np.float64) for x in xs], r.astype(np.float64)
        )
        assert not ledger
        for share, expected in zip(shares, truth, strict=True):
            # torch's hard sigmoid takes a sixth from float32
            np.testing.assert_allclose(share, expected.numpy(), rtol=1e-7, atol=1e-12)
    assert_agrees(operator, xs, rules.Gradient(), r)


def draw_and_assert(
    operator: g.Operator, shapes: list[g.Shape], rng: np.random.Generator, n: int = 2, *kinds: str
) -> None:
    of_x, of_r = kinds or ("normal", "normal")
    xs = [numbers(rng, (n, *shape), of_x) for shape in shapes]
    assert_is_torchs(operator, xs, numbers(rng, (n, *operator.infer_shape(*shapes)), of_r))


@pytest.mark.parametrize("case", [*CASES, *TRANSPOSED_CONVOLUTIONS, *LAYER_NORM, *OTHERS], ids=str)
def test_listed_cases(case: Case) -> None:
    rng = np.random.default_rng(len(case.name))
    draw_and_assert(case.layer(rng), [case.shape], rng)


@pytest.mark.parametrize(("operator", "shapes"), MERGES)
def test_merges(operator: g.Operator, shapes: list[g.Shape]) -> None:
    draw_and_assert(operator, shapes, np.random.default_rng(len(shapes)))


@given(
    layer=convolutions() | transposed_convolutions() | dense_layers(),
    n=BATCHES,
    seed=SEEDS,
    kinds=st.tuples(KINDS, KINDS),
)
@settings(max_examples=150, deadline=None)
def test_any_layer_with_weights(layer, n, seed, kinds) -> None:
    draw_and_assert(layer[0], [layer[1]], np.random.default_rng(seed), n, *kinds)


@given(layer=pools("max") | pools("average"), n=BATCHES, seed=SEEDS, kinds=st.tuples(KINDS, KINDS))
@settings(max_examples=100, deadline=None)
def test_any_pool(layer, n, seed, kinds) -> None:
    draw_and_assert(layer[0], [layer[1]], np.random.default_rng(seed), n, *kinds)


@given(data=st.data(), n=BATCHES, seed=SEEDS)
@settings(max_examples=150, deadline=None)
def test_any_other_operator(data, n, seed) -> None:
    rng = np.random.default_rng(seed)
    shape = tuple(data.draw(st.lists(st.integers(1, 6), min_size=1, max_size=4)))
    operator = data.draw(any_operator(shape, rng))
    twice = isinstance(operator, g.Add | g.Mul | g.MatMul | g.Concat)
    draw_and_assert(operator, [shape, shape] if twice else [shape], rng, n)


@given(
    shape=st.tuples(st.integers(1, 300), *[st.integers(1, 5)] * 2),
    size=st.integers(1, 20),
    beta=st.sampled_from([0.5, 0.75, 1.0]),
    within=st.booleans(),
    seed=SEEDS,
)
@settings(max_examples=100, deadline=None)
def test_any_response_norm(shape, size, beta, within, seed) -> None:
    operator = g.LocalResponseNorm(min(size, 7) if within else size, 0.7, beta, 1.5, within)
    draw_and_assert(operator, [(min(shape[0], 5) if within else shape[0], *shape[1:])],
                    np.random.default_rng(seed))  # fmt: skip


@pytest.mark.parametrize("function", get_args(g.Function))
def test_large_tiny_and_special_inputs(function: g.Function) -> None:
    x = np.float32([-1e15, -100, -20, -3, -1e-30, 0, 1e-30, 3, 6, 20, 100, 1e15]).reshape(1, -1)
    x = within_float32(function, x)
    operator = g.Activation(function, PARAMETER.get(function, 0.0))
    assert_is_torchs(operator, [x], np.ones_like(x))


@pytest.mark.parametrize("exponent", EXPONENTS)
def test_powers(exponent: float) -> None:
    rng = np.random.default_rng(0)
    x = 10 ** rng.uniform(-3, 3, (3, 1000)).astype(np.float32)
    if exponent == int(exponent):
        x[:, ::2] *= -1
    assert_is_torchs(g.Activation("power", exponent), [x], numbers(rng, x.shape))


def test_ties_go_to_the_first() -> None:
    x = np.zeros((1, 1, 2, 2), np.float32)
    graph = g.Graph()
    graph.add("input", g.Input((1, 2, 2)))
    graph.add("pool", g.MaxPool((2, 2), (2, 2)), ["input"])
    graph.add("most", g.Maximum(), ["pool", "pool"])
    found = Explainer(graph, "gradient")(x, np.ones((1, 1, 1, 1), np.float32)).relevance
    assert found.ravel().tolist() == [1, 0, 0, 0]


# --- Graphs --------------------------------------------------------------------------------------


@given(drawn=graphs(), seed=SEEDS)
@settings(max_examples=200, deadline=None)
def test_any_graph(drawn, seed) -> None:
    """ReLUs fused or alone, branches, inputs that are read twice."""
    graph, _ = drawn
    rng = np.random.default_rng(seed)
    x = {node.name: numbers(rng, (2, *node.shape)) for node in graph.inputs}
    if graph.output in x:
        return
    r = numbers(rng, (2, *graph[graph.output].shape))
    assert_every_node_agrees(Explainer(graph, "gradient"), x, r)


class Zoo(nn.Module):
    """What the networks of the other tests lack."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.gate = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 8, 1)
        self.norm, self.prelu = nn.BatchNorm2d(8), nn.PReLU(8)
        self.down, self.head = nn.Conv2d(8, 8, 3, 2, 1), nn.Linear(8, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu6(self.stem(x))
        x = F.local_response_norm(x, 5, 0.1) * torch.sigmoid(self.gate(x.mean((2, 3), True)))
        x = x * x + F.silu(x)
        x = F.interpolate(self.prelu(self.norm(x)), scale_factor=2, mode="bilinear")
        x = torch.maximum(F.gelu(self.down(x)), F.avg_pool2d(x, 2))
        return self.head(F.pad(x, (1, 0, 0, 0)).amax(3).mean(2))


def small(name: str) -> nn.Module:
    module = NETWORKS[name][0]()
    module = with_small_head(module) if name in ("alexnet", "vgg16") else module
    for part in module.modules():
        if isinstance(part, nn.ReLU):
            part.inplace = False  # autograd needs what it would overwrite
    return initialise(module)


WHOLE = {
    **{
        name: (lambda name=name: small(name), 64)
        for name in ("resnet18", "googlenet", "squeezenet", "mobilenet_v2", "efficientnet_lite0")
    },
    "vgg16": (lambda: small("vgg16"), 32),
    "alexnet": (lambda: small("alexnet"), 64),
    "zoo": (lambda: initialise(Zoo()), 10),
}


def autograd(module: nn.Module, x: Tensor, classes: np.ndarray) -> np.ndarray:
    """The gradient of one score of each sample, in float64."""
    x = x.double().requires_grad_()
    scores = module.double()(x)
    chosen = scores.gather(1, torch.from_numpy(classes)[:, None]).sum()
    (found,) = torch.autograd.grad(chosen, x)
    module.float()
    return found.numpy()


def errors(found: np.ndarray, truth: np.ndarray) -> list[float]:
    return [float(np.linalg.norm(a - b) / np.linalg.norm(b)) for a, b in zip(found, truth)]


@pytest.mark.parametrize("name", WHOLE)
def test_networks_are_torchs(name: str) -> None:
    """In the median over images: where a gate flips in float32, its gradient is another."""
    make, size = WHOLE[name]
    module = make()
    x = torch.randn(5, 3, size, size, generator=torch.Generator().manual_seed(3))
    result = Explainer(relprop.load(module, x[:1]), "gradient")(x.numpy())
    truth = autograd(module, x, result.target)
    assert np.median(errors(result.relevance, truth)) <= 1e-5
    assert result.ledger is None


def test_a_map_and_the_relevance_of_an_output() -> None:
    """Of a U-Net: a mask's gradient is that of the sum, a given relevance a product with it."""
    module = BRANCHING["u-net"].module()
    (x,) = BRANCHING["u-net"].example(3).values()
    explainer = Explainer(relprop.load(module, x), "gradient")
    image = x.double().requires_grad_()
    scores = module.double()(image)
    rng = np.random.default_rng(0)
    mask = rng.random(scores.shape) < 0.2
    weights = numbers(rng, tuple(scores.shape))
    for target, value in ((mask, mask.astype(np.float32)), (weights, weights)):
        given = torch.from_numpy(value).double()
        (truth,) = torch.autograd.grad(scores, image, given, retain_graph=True)
        found = explainer(x.numpy(), target).relevance
        assert np.median(errors(found, truth.numpy())) <= 1e-5
    by_score = explainer(x.numpy(), mask, initial="value").relevance
    (truth,) = torch.autograd.grad(scores, image, scores * torch.from_numpy(mask))
    assert np.median(errors(by_score, truth.numpy())) <= 1e-5


def test_several_inputs() -> None:
    network = BRANCHING["siamese"]
    module, x = network.module(), network.example(3)
    result = Explainer(relprop.load(module, x), "gradient")(x, 1)
    given = {name: value.double().requires_grad_() for name, value in x.items()}
    score = module.double()(**given)[:, 1].sum()
    for name, truth in zip(given, torch.autograd.grad(score, list(given.values()))):
        assert np.median(errors(result.relevance[name].numpy(), truth.numpy())) <= 1e-5


def test_intermediate_nodes_have_their_own_gradients() -> None:
    """A layer and the ReLU that is fused into it share their value, not their gradient."""
    module = initialise(nn.Sequential(nn.Conv2d(2, 4, 3), nn.ReLU(), nn.Conv2d(4, 3, 3),
                                      nn.ReLU6(), nn.Flatten(), nn.Linear(12, 3)))  # fmt: skip
    x = torch.randn(4, 2, 6, 6, generator=torch.Generator().manual_seed(0))
    graph = relprop.load(module, x).graph
    names = [node.name for node in graph if node.type in ("Conv", "Activation")]
    result = Explainer(graph, "gradient")(x, 0, intermediate=names)
    values = [x.double().requires_grad_()]
    for layer in module.double():
        values.append(layer(values[-1]))
    truth = torch.autograd.grad(values[-1][:, 0].sum(), values[1:5])
    assert len(names) == 4
    for name, expected in zip(names, truth):
        assert max(errors(result.intermediate[name].numpy(), expected.numpy())) <= 1e-5, name


def test_a_sum_before_another_clip_than_a_relu() -> None:
    """The sum's step can clamp as a ReLU does, and at no other bounds."""
    graph = g.Graph()
    graph.add("input", g.Input((5,)))
    graph.add("twice", g.Add(), ["input", "input"])
    graph.add("clip", g.Clip(0.0, 6.0), ["twice"])
    graph.add("scores", g.Dense(np.ones((1, 5), np.float32)), ["clip"])
    result = Explainer(graph, "gradient")(np.float32([[-1, 1, 2, 4, 8]]), 0)
    assert result.scores.tolist() == [[0 + 2 + 4 + 6 + 6]]
    assert result.relevance.tolist() == [[0, 2, 2, 0, 0]]


# --- What is asked for ---------------------------------------------------------------------------


def simple() -> g.Graph:
    rng = np.random.default_rng(0)
    graph = g.Graph()
    graph.add("input", g.Input((6,)))
    graph.add("hidden", g.Dense(numbers(rng, (8, 6)), numbers(rng, (8,))), ["input"])
    graph.add("relu", g.Activation("relu"), ["hidden"])
    graph.add("scores", g.Dense(numbers(rng, (3, 8))), ["relu"])
    return graph


def test_it_starts_with_one_unless_told_otherwise() -> None:
    x = numbers(np.random.default_rng(1), (4, 6))
    explainer = Explainer(simple(), "gradient")
    result = explainer(x, 2)
    np.testing.assert_array_equal(explainer(x, 2, initial="one").relevance, result.relevance)
    one = np.zeros((4, 3), np.float32)
    one[:, 2] = 1
    np.testing.assert_array_equal(explainer(x, one).relevance, result.relevance)
    scaled = explainer(x, 2, initial="value").relevance
    np.testing.assert_allclose(scaled, result.relevance * result.scores[:, 2:], rtol=1e-5)
    epsilon = Explainer(simple(), "epsilon")
    np.testing.assert_array_equal(epsilon(x, 2).relevance, epsilon(x, 2, initial="value").relevance)


def test_attribute_is_the_gradient_too() -> None:
    module = initialise(nn.Sequential(nn.Linear(6, 5), nn.ReLU(), nn.Linear(5, 3)))
    x = torch.randn(4, 6, generator=torch.Generator().manual_seed(0))
    found = relprop.torch.attribute(module, x, 1, "gradient")
    assert max(errors(found.numpy(), autograd(module, x, np.ones(4, np.int64)))) <= 1e-6


def test_one_node_under_the_gradient_leaves_no_ledger() -> None:
    x = numbers(np.random.default_rng(1), (2, 6))
    explainer = Explainer(simple(), "epsilon", rules={"hidden": rules.Gradient()})
    assert explainer(x).ledger is None
    assert Explainer(simple(), "epsilon")(x).ledger is not None


def test_the_preset_has_no_epsilon() -> None:
    with pytest.raises(TypeError, match=r"'gradient' has no parameter 'epsilon'; it has norm\."):
        Explainer(simple(), "gradient", epsilon=0.1)


def test_ids_have_no_gradient() -> None:
    graph = g.Graph()
    graph.add("words", g.Input((4,), "ids"))
    rng = np.random.default_rng(0)
    graph.add("vectors", g.Embedding(numbers(rng, (9, 3))), ["words"])
    graph.add("flat", g.Reshape((12,)), ["vectors"])
    weight = numbers(rng, (2, 12))
    graph.add("scores", g.Dense(weight), ["flat"])
    with pytest.raises(UnmatchedLayerError, match=r"vectors \(Embedding\): Gradient\(\) does not"):
        Explainer(graph, "gradient")
    explainer = Explainer(graph, "gradient", rules={"Embedding": rules.Zero()})
    result = explainer(np.array([[1, 2, 3, 8]]), 1, intermediate=["vectors"])
    assert not result.relevance.any()
    np.testing.assert_allclose(result.intermediate["vectors"].ravel(), weight[1])
