"""The Explainer: arguments, array kinds, targets, results, and what it refuses."""

from __future__ import annotations

import copy
import pickle
import warnings

import numpy as np
import pytest
import torch
import torch.nn.functional as F

import relprop
from relprop import Explainer, Graph, Model, Preprocessing
from relprop.graph import Activation, Add, Conv, Dense, Input, MaxPool, Reshape
from relprop.rules import Epsilon, Flat, ZBox, Zero


def tiny() -> Graph:
    """Convolution, ReLU, pooling, a residual sum and a dense layer."""
    draw = np.random.default_rng(3)

    def normal(*shape: int) -> np.ndarray:
        return draw.standard_normal(shape).astype(np.float32)

    graph = Graph()
    graph.add("x", Input((2, 6, 5)))
    graph.add("conv", Conv(normal(4, 2, 3, 3), normal(4), padding=((1, 1), (1, 1))), ["x"])
    graph.add("relu", Activation("relu"), ["conv"])
    graph.add("conv2", Conv(normal(4, 4, 1, 1), normal(4)), ["relu"])
    graph.add("sum", Add(), ["conv2", "relu"])
    graph.add("pool", MaxPool((2, 2), (2, 2)), ["sum"])
    graph.add("flat", Reshape((24,)), ["pool"])
    graph.add("dense", Dense(normal(3, 24), normal(3)), ["flat"])
    return graph


@pytest.fixture(scope="module")
def explainer() -> Explainer:
    return Explainer(Model(tiny(), classes=("cat", "dog, hound", "fish")), "epsilon_plus")


@pytest.fixture(scope="module")
def images() -> np.ndarray:
    return np.random.default_rng(4).standard_normal((5, 2, 6, 5)).astype(np.float32)


def test_result_has_the_shapes_that_are_promised(explainer: Explainer, images: np.ndarray) -> None:
    result = explainer(images)
    assert result.relevance.shape == images.shape
    assert result.scores.shape == (5, 3)
    np.testing.assert_array_equal(result.target, result.scores.argmax(axis=1))
    np.testing.assert_array_equal(explainer.forward(images), result.scores)


def test_one_sample_without_the_batch_axis(explainer: Explainer, images: np.ndarray) -> None:
    one = explainer(images[2])
    assert one.relevance.shape == images[2].shape
    assert one.scores.shape == (1, 3)
    np.testing.assert_array_equal(one.relevance, explainer(images).relevance[2])


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda one: pickle.loads(pickle.dumps(one))])
@pytest.mark.parametrize("name", ["epsilon_plus_flat", "integrated_gradients"])
def test_copies_explain_alike(images: np.ndarray, name: str, copied) -> None:
    explainer = Explainer(tiny(), name)
    found, expected = copied(explainer)(images), explainer(images)
    np.testing.assert_array_equal(found.relevance, expected.relevance)
    np.testing.assert_array_equal(found.scores, expected.scores)


def test_empty_batch(explainer: Explainer, images: np.ndarray) -> None:
    result = explainer(images[:0], intermediate=["relu"])
    assert result.relevance.shape == (0, 2, 6, 5)
    assert result.scores.shape == (0, 3)
    assert result.intermediate["relu"].shape == (0, 4, 6, 5)
    assert result.ledger is not None
    assert result.ledger.closure_error.shape == (0,)
    assert explainer.forward(images[:0]).shape == (0, 3)
    for target in ([], (), np.zeros(0, int)):
        assert explainer(images[:0], target).scores.shape == (0, 3)


@pytest.mark.parametrize(
    "change",
    [
        np.asfortranarray,
        lambda a: np.repeat(a, 2, axis=3)[..., ::2],
        lambda a: a.astype(">f4"),
        lambda a: a.astype(np.float64),
        lambda a: a[::-1][::-1],
        lambda a: a.tolist(),
    ],
    ids=["fortran", "strided", "byte-swapped", "float64", "negative stride", "lists"],
)
def test_any_floating_layout(explainer: Explainer, images: np.ndarray, change) -> None:
    np.testing.assert_array_equal(explainer(change(images)).relevance, explainer(images).relevance)


def test_half_precision_is_converted(explainer: Explainer, images: np.ndarray) -> None:
    half = images.astype(np.float16)
    result = explainer(half)
    assert result.relevance.dtype == np.float32
    np.testing.assert_array_equal(result.relevance, explainer(half.astype(np.float32)).relevance)


def test_torch_in_torch_out(explainer: Explainer, images: np.ndarray) -> None:
    tensor = torch.from_numpy(images).requires_grad_()
    result = explainer(tensor, intermediate=["relu"])
    for array in (result.relevance, result.scores, result.intermediate["relu"]):
        assert isinstance(array, torch.Tensor)
        assert array.dtype == torch.float32
    np.testing.assert_array_equal(result.relevance.numpy(), explainer(images).relevance)
    assert tensor.grad is None


def test_targets(explainer: Explainer, images: np.ndarray) -> None:
    by_index = explainer(images, [0, 1, 2, 1, 0])
    for same in (
        ["cat", "hound", "fish", "Dog", "cat"],
        np.array([0, 1, 2, 1, 0]),
        torch.tensor([0, 1, 2, 1, 0]),
        ["cat", 1, 2, np.int64(1), 0],
    ):
        np.testing.assert_array_equal(explainer(images, same).relevance, by_index.relevance)
    np.testing.assert_array_equal(
        explainer(images, 1).relevance, explainer(images, "dog").relevance
    )


def test_target_given_as_relevance(explainer: Explainer, images: np.ndarray) -> None:
    first = explainer(images, 0)
    given = np.zeros((5, 3), np.float32)
    given[:, 0] = first.scores[:, 0]
    result = explainer(images, given)
    np.testing.assert_array_equal(result.relevance, first.relevance)
    assert (result.target == -1).all()


def test_target_given_as_a_mask(explainer: Explainer, images: np.ndarray) -> None:
    many = np.concatenate([images] * 8)  # more than the core takes at once
    rng = np.random.default_rng(0)
    mask = rng.random((40, 3)) < 0.5
    scores = explainer.forward(many)
    for initial, values in (("value", scores), ("one", np.ones_like(scores))):
        result = explainer(many, mask, initial=initial)
        given = explainer(many, np.where(mask, values, np.float32(0)))
        np.testing.assert_array_equal(result.relevance, given.relevance)
        np.testing.assert_allclose(result.ledger.initial, given.ledger.initial, rtol=1e-12)
        assert (result.target == -1).all()
    odd = np.where(mask, np.uint8(2), np.uint8(0)).view(bool)  # any byte but 0 is true
    np.testing.assert_array_equal(explainer(many, odd).relevance, explainer(many, mask).relevance)
    np.testing.assert_array_equal(
        explainer(torch.from_numpy(many), torch.from_numpy(mask.T.copy()).T).relevance.numpy(),
        explainer(many, mask).relevance,
    )
    assert not explainer(many, np.zeros((40, 3), bool)).relevance.any()


def test_initial_one(explainer: Explainer, images: np.ndarray) -> None:
    one = explainer(images, 0, initial="one")
    value = explainer(images, 0)
    np.testing.assert_allclose(
        one.relevance * value.scores[:, :1, None, None], value.relevance, rtol=2e-5, atol=1e-6
    )
    assert one.ledger is not None
    np.testing.assert_array_equal(one.ledger.initial, np.ones(5))


def test_intermediate_relevance_and_values(explainer: Explainer, images: np.ndarray) -> None:
    result = explainer(images, intermediate=["x", "conv", "relu", "pool", "dense"])
    np.testing.assert_array_equal(result.intermediate["x"], result.relevance)
    np.testing.assert_array_equal(result.activations["x"], images)
    np.testing.assert_array_equal(result.activations["dense"], result.scores)
    np.testing.assert_array_equal(result.intermediate["conv"], result.intermediate["relu"])
    assert "conv" not in result.activations  # only its value after the ReLU is kept
    assert (result.activations["relu"] >= 0).all()
    winners = (result.intermediate["dense"] != 0).sum(axis=1)
    np.testing.assert_array_equal(winners, np.ones(5))
    assert result.intermediate["pool"].shape == (5, 4, 3, 2)


@pytest.mark.parametrize("function", [torch.abs, F.selu, lambda x: F.celu(x, 0.5), F.logsigmoid])
def test_functions_of_several_nodes_pass_what_arrives(function) -> None:
    class Behind(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.dense = torch.nn.Linear(6, 3, bias=False)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.dense(function(x))

    torch.manual_seed(0)
    module, x = Behind().eval(), torch.randn(4, 6)
    result = Explainer(relprop.load(module, x[:1]), "epsilon", epsilon=1e-9)(x.numpy(), 2)
    with torch.no_grad():
        arrived = function(x) * module.dense.weight[2]
    np.testing.assert_allclose(result.relevance, arrived.numpy(), rtol=1e-4, atol=1e-6)


def test_ledger_closes_and_can_be_switched_off(images: np.ndarray) -> None:
    with_ledger = Explainer(tiny(), "epsilon")(images)
    assert with_ledger.ledger is not None
    assert (with_ledger.ledger.closure_error <= 1e-6).all()
    np.testing.assert_allclose(
        with_ledger.ledger.input, with_ledger.relevance.sum(axis=(1, 2, 3)), rtol=1e-4, atol=1e-5
    )
    without = Explainer(tiny(), "epsilon", ledger=False)(images)
    assert without.ledger is None
    np.testing.assert_array_equal(without.relevance, with_ledger.relevance)


def test_zero_rule_is_booked(images: np.ndarray) -> None:
    result = Explainer(tiny(), "epsilon", rules={"conv2": Zero()})(images)
    ledger = result.ledger
    assert ledger is not None
    at = ledger.nodes.index("conv2")
    np.testing.assert_allclose(ledger.zero[:, at], ledger.relevance[:, at], rtol=1e-12)
    assert np.abs(ledger.zero[:, at]).min() > 0
    assert (ledger.closure_error <= 1e-6).all()


def test_every_node_is_printed_with_its_rule() -> None:
    text = str(Explainer(tiny(), "epsilon_plus", rules={"conv": Flat(), 1: Epsilon(0.5)}))
    lines = {line.split()[0]: line for line in text.splitlines()[1:]}
    assert set(lines) == set(tiny().nodes)
    assert "Flat()" in lines["conv"]
    assert "epsilon=0.5" in lines["conv2"]


def test_box_defaults_to_what_preprocessing_implies(images: np.ndarray) -> None:
    graph = Graph()
    graph.add("x", Input((3, 4, 4)))
    graph.add("conv", Conv(np.ones((2, 3, 4, 4), np.float32)), ["x"])
    graph.add("flat", Reshape((2,)), ["conv"])
    preprocessing = Preprocessing((4, 4), (127.0,) * 3, (128.0,) * 3)
    explainer = Explainer(Model(graph, preprocessing), "epsilon_gamma_box")
    rule = explainer.rules["conv"]
    assert isinstance(rule, ZBox)
    assert rule.low == pytest.approx((-127 / 128,) * 3)
    explainer(np.full((1, 3, 4, 4), 1.0, np.float32))
    with pytest.raises(ValueError, match=r"images must lie in z_box's bounds .*'conv'"):
        explainer(np.full((1, 3, 4, 4), 1.1, np.float32))


with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # torch says that these are not what they will be
    NESTED = torch.nested.nested_tensor([torch.zeros(2, 6, 5)])
    QUANTIZED = torch.quantize_per_tensor(torch.zeros(1, 2, 6, 5), 0.1, 0, torch.qint8)


@pytest.mark.parametrize(
    ("bad", "error", "text"),
    [
        (np.zeros((1, 2, 6, 5), np.uint8), TypeError, "images must be floating point, not uint8"),
        (np.zeros((1, 3, 6, 5)), ValueError, r"not \(1, 3, 6, 5\)"),
        (np.zeros((1, 2, 6, 6)), ValueError, r"not \(1, 2, 6, 6\)"),
        (np.zeros(60), ValueError, r"not \(60,\)"),
        (np.full((2, 2, 6, 5), np.nan), ValueError, r"finite in float32; samples \[0, 1\]"),
        (np.full((1, 2, 6, 5), 1e300), ValueError, "finite in float32"),
        (np.array([["a"]]), TypeError, "array of numbers"),
        (np.zeros((1, 2, 6, 5), complex), TypeError, "array of numbers"),
        (torch.zeros(1, 2, 6, 5, dtype=torch.bfloat16), TypeError, "bfloat16"),
        (torch.zeros(1, 2, 6, 5).to_sparse(), TypeError, "images must be dense.* torch.sparse_coo"),
        (NESTED, TypeError, "images must be dense.* nested"),
        (QUANTIZED, TypeError, "images must be dense.* torch.qint8"),
        (np.ma.zeros((1, 2, 6, 5)), TypeError, "images must not be a masked array"),
        (torch.zeros(1, 2, 6, 5, device="meta"), TypeError, "must be on the CPU.*not on meta"),
    ],
)
def test_bad_images(explainer: Explainer, bad, error: type[Exception], text: str) -> None:
    with pytest.raises(error, match=text):
        explainer(bad)


@pytest.mark.parametrize(
    ("bad", "error", "text"),
    [
        (3, ValueError, r"target must be in \[0, 3\), not 3"),
        (-1, ValueError, r"target must be in \[0, 3\), not -1"),
        ([0, 1], ValueError, "one class for each of 5 samples, not 2"),
        ([], ValueError, "one class for each of 5 samples, not 0"),
        ("horse", ValueError, "horse"),
        (np.zeros((5, 4), np.float32), ValueError, r"shape \(5, 3\), not \(5, 4\)"),
        (np.full((5, 3), np.inf), ValueError, "must be finite"),
        (np.full((5, 3), 1e300), ValueError, "must be finite"),
        (np.zeros((5, 1, 1), int), ValueError, r"shape \(5,\), .* not \(5, 1, 1\)"),
        (np.zeros((1, 5), int), ValueError, r"shape \(5,\), .* not \(1, 5\)"),
        ([True] * 5, ValueError, r"as a mask must have shape \(5, 3\), not \(5,\)"),
        (["cat", True, 0, 1, 2], TypeError, "index or a class name, not True"),
    ],
)
def test_bad_targets(
    explainer: Explainer, images: np.ndarray, bad, error: type[Exception], text: str
) -> None:
    with pytest.raises(error, match=text):
        explainer(images, bad)


def test_other_bad_arguments(explainer: Explainer, images: np.ndarray) -> None:
    with pytest.raises(ValueError, match='initial must be "value" or "one", not \'two\''):
        explainer(images, initial="two")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="did you mean conv"):
        explainer(images, intermediate=["comv"])
    with pytest.raises(TypeError, match="intermediate must be names of nodes, not 0"):
        explainer(images, intermediate=[0])  # type: ignore[list-item]
    with pytest.raises(TypeError, match=r"relprop\.load"):
        Explainer(torch.nn.Linear(2, 2))  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="preset's name or a Composite, not int"):
        Explainer(tiny(), 3)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match='"cuda:1" and the like, not'):
        Explainer(tiny(), device="tpu")
    with pytest.raises(TypeError, match=r"device must be .*, not 0"):
        Explainer(tiny(), device=0)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="epsilon"):
        Explainer(tiny(), relprop.preset("epsilon"), epsilon=1e-3)


def test_output_that_is_no_vector_needs_its_relevance() -> None:
    graph = Graph()
    graph.add("x", Input((1, 3, 3)))
    graph.add("conv", Conv(np.ones((2, 1, 2, 2), np.float32)), ["x"])
    explainer = Explainer(graph, "epsilon")
    image = np.arange(9, dtype=np.float32).reshape(1, 1, 3, 3)
    with pytest.raises(ValueError, match="only where the output is a vector"):
        explainer(image)
    given = np.zeros((1, 2, 2, 2), np.float32)
    given[0, 1, 0, 0] = 8.0  # inputs 0, 1, 3, 4 sum to 8
    expected = np.array([[0, 1, 0], [3, 4, 0], [0, 0, 0]], np.float32)
    np.testing.assert_allclose(explainer(image, given).relevance[0, 0], expected, rtol=1e-6)


def test_output_that_overflows_is_refused() -> None:
    graph = Graph()
    graph.add("x", Input((2,)))
    graph.add("dense", Dense(np.full((1, 2), 1e38, np.float32)), ["x"])
    with pytest.raises(ValueError, match="the output is not finite for sample 1"):
        Explainer(graph, "epsilon")(np.array([[1, 1], [9, 9]], np.float32))


def test_nodes_behind_the_output_are_left_out(images: np.ndarray) -> None:
    graph = tiny()
    graph.add("beside", Activation("relu"), ["conv2"])
    graph.outputs = {"dense": "dense"}
    np.testing.assert_array_equal(
        Explainer(graph, "epsilon")(images).relevance,
        Explainer(tiny(), "epsilon")(images).relevance,
    )


def test_drop_in_for_torch() -> None:
    module = torch.nn.Sequential(
        torch.nn.Conv2d(1, 2, 3), torch.nn.ReLU(), torch.nn.Flatten(), torch.nn.Linear(8, 2)
    ).eval()
    images = torch.randn(3, 1, 4, 4, generator=torch.Generator().manual_seed(0))
    relevance = relprop.torch.attribute(module, images, 1, "epsilon", epsilon=1e-9)
    expected = Explainer(relprop.load(module, images), "epsilon", epsilon=1e-9)(images, 1)
    assert isinstance(relevance, torch.Tensor)
    assert torch.equal(relevance, expected.relevance)
