"""Whole transformers: their values, their gradients and what rules make of attention."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import relprop
from reference import forward
from relprop import Explainer, rules
from relprop.canonizers import canonize
from relprop.frontends.torch import convert
from relprop.graph import Graph, MatMul
from transformer_networks import TRANSFORMERS, Decoder, VisionTransformer, encoder, transformer


def weights_like(scores: Tensor) -> np.ndarray:
    """Relevance of an output of any shape, of which none adds up to nothing."""
    return np.random.default_rng(0).normal(size=tuple(scores.shape)).astype(np.float32)


def assert_close(found: np.ndarray, expected: np.ndarray, tolerance: float = 1e-5) -> None:
    assert found.shape == expected.shape
    assert abs(found - expected).max() <= tolerance * abs(expected).max()


@pytest.mark.parametrize("name", TRANSFORMERS)
def test_values_are_torchs_for_any_batch(name: str) -> None:
    module, x = transformer(name)
    graph = convert(module, x[:1])
    explainer = Explainer(canonize(graph))
    with torch.no_grad():
        expected = module(x).numpy()
    for samples in (1, 3):
        given = x[:samples].numpy()
        assert_close(forward(graph, given)[graph.output], expected[:samples])
        assert_close(explainer.forward(given), expected[:samples])


@pytest.mark.parametrize("name", TRANSFORMERS)
def test_gradients_are_torchs(name: str) -> None:
    module, x = transformer(name)
    explainer = Explainer(relprop.load(module, x), "gradient")
    given = x.double().requires_grad_()
    scores = module.double()(given)
    weights = weights_like(scores)
    (truth,) = torch.autograd.grad(scores, given, torch.from_numpy(weights).double())
    assert_close(explainer(x.numpy(), weights).relevance, truth.numpy())


@pytest.mark.parametrize("spelling", ["fill", "where", "add", "causal"])
def test_a_decoder_sees_only_what_comes_before(spelling: str) -> None:
    torch.manual_seed(0)
    module = Decoder(spelling).eval()
    ids = torch.randint(0, 10, (3, 6))
    graph = convert(module, ids)
    expected = module(ids).detach().numpy()
    assert_close(forward(graph, ids.numpy())[graph.output], expected)
    result = Explainer(canonize(graph), "epsilon")(ids.numpy(), 2)
    assert_close(result.scores, expected)
    masked = [
        node for node in graph if node.type == "Constant" and node.operator.value.min() < -1e9
    ]
    assert len(masked) == 1
    assert np.isfinite(masked[0].operator.value).all()


def without_biases(name: str) -> nn.Module:
    """Where all that softmax makes are gates, every layer hands down what it is given."""
    torch.manual_seed(0)
    module = VisionTransformer(bias=False) if name == "vit" else encoder(bias=False)
    return nn.Sequential(module, nn.Flatten(), nn.Linear(4 if name == "vit" else 40, 4, bias=False))


@pytest.mark.parametrize("name", ["vit", "encoder"])
@pytest.mark.parametrize("given", [{}, {MatMul: rules.HalfAndHalf()}], ids=["gates", "halves"])
def test_relevance_sums_to_the_score(name: str, given: dict[type, rules.Rule]) -> None:
    module = without_biases(name).eval()
    for norm in (part for part in module.modules() if isinstance(part, nn.LayerNorm)):
        norm.eps = 0.0
    x = torch.randn(3, *TRANSFORMERS[name][1], generator=torch.Generator().manual_seed(1))
    explainer = Explainer(relprop.load(module, x), "epsilon", epsilon=1e-9, rules=given)
    result = explainer(x.numpy(), "argmax")
    assert np.isfinite(result.relevance).all()
    if not given:  # Taylor's softmax keeps what it is given only up to a constant
        total = result.relevance.reshape(3, -1).sum(1)
        scores = result.scores[np.arange(3), result.target]
        np.testing.assert_allclose(total, scores, rtol=1e-3)


def test_a_softmax_is_the_gate_of_its_product() -> None:
    module, x = transformer("vit")
    graph = relprop.load(module, x).graph
    products = [node for node in graph if isinstance(node.operator, MatMul)]
    assert [node.operator.transposed for node in products] == [True, False] * 2
    result = Explainer(graph, "epsilon")(x.numpy(), 1, intermediate=[n.name for n in graph])
    for node in products[1::2]:
        weights, values = node.inputs
        assert not result.intermediate[weights].any()
        assert result.intermediate[values].any()


def test_torchs_own_layers_are_the_same_by_any_way() -> None:
    """With the batch first or second, with or without weights, the Graph is that of heads."""

    class Heads(nn.Module):
        def __init__(self, batch_first: bool, need_weights: bool) -> None:
            super().__init__()
            torch.manual_seed(0)
            self.heads = nn.MultiheadAttention(8, 2, batch_first=batch_first)
            self.batch_first, self.need_weights = batch_first, need_weights

        def forward(self, x: Tensor) -> Tensor:
            x = x if self.batch_first else x.transpose(0, 1)
            y, _ = self.heads(x, x, x, need_weights=self.need_weights)
            return y if self.batch_first else y.transpose(0, 1)

    x = torch.randn(3, 5, 8, generator=torch.Generator().manual_seed(0))
    graphs: list[Graph] = []
    for batch_first in (True, False):
        for need_weights in (True, False):
            module = Heads(batch_first, need_weights).eval()
            graphs.append(convert(module, x))
            expected = module(x).detach().numpy()
            assert_close(forward(graphs[-1], x.numpy())[graphs[-1].output], expected)
    found = [Explainer(canonize(g), "epsilon")(x.numpy(), weights_like(x)) for g in graphs]
    for result in found[1:]:
        assert_close(result.relevance, found[0].relevance)
