"""LXT's functions, which are autograd functions that carry relevance, on a gated residual net."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

import relprop
from peers import peer
from relprop import Explainer, rules


class Gated(nn.Module):
    """A residual sum, a product of two signals and a mean."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(6, 8)
        self.second = nn.Linear(8, 8)
        self.third = nn.Linear(8, 8)
        self.last = nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:  # (N, 5, 6)
        x = torch.relu(self.first(x))
        x = x + self.second(x)
        x = x * torch.tanh(self.third(x))
        return self.last(x.mean(1))


def lxt_relevance(module: Gated, x: Tensor, target: Tensor) -> np.ndarray:
    functional, lxt_rules = peer("lxt.explicit.functional"), peer("lxt.explicit.rules")

    def linear(part: nn.Linear, x: Tensor) -> Tensor:
        return functional.linear_epsilon(x, part.weight, part.bias, 1e-9)

    x = x.requires_grad_()
    h = lxt_rules.identity(torch.relu, linear(module.first, x))
    h = functional.add2(h, linear(module.second, h), epsilon=1e-9)
    h = functional.mul2(h, lxt_rules.identity(torch.tanh, linear(module.third, h)))
    out = linear(module.last, functional.mean(h, 1, False, 1e-9))
    chosen = out.gather(1, target[:, None])
    chosen.backward(chosen.detach())
    return x.grad.numpy()


def test_a_gated_residual_network() -> None:
    torch.manual_seed(0)
    module = Gated().eval()
    x = torch.randn(4, 5, 6)
    epsilon = rules.Epsilon(1e-9)
    explainer = Explainer(
        relprop.load(module, x),
        "epsilon",
        epsilon=1e-9,
        rules={"Mul": rules.HalfAndHalf(), "Add": epsilon, "Mean": epsilon},
    )
    result = explainer(x.numpy(), "argmax")
    truth = lxt_relevance(module.double(), x.double(), torch.from_numpy(result.target))
    assert np.linalg.norm(result.relevance - truth) <= 1e-4 * np.linalg.norm(truth)


class Encoder(nn.Module):
    """A layer norm, attention of two heads, and a residual sum."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(6)
        self.queries, self.keys, self.values = (nn.Linear(6, 6) for _ in range(3))
        self.last = nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:  # (N, 5, 6)
        h = self.norm(x)
        q, k, v = (heads(part(h)) for part in (self.queries, self.keys, self.values))
        weights = torch.softmax(q @ k.transpose(-1, -2), dim=-1)
        x = x + (weights @ v).transpose(1, 2).flatten(2)
        return self.last(x.mean(1))


def heads(x: Tensor) -> Tensor:
    return x.unflatten(2, (2, 3)).transpose(1, 2)


def attn_lrp(module: Encoder, x: Tensor, target: Tensor) -> np.ndarray:
    functional = peer("lxt.explicit.functional")

    def linear(part: nn.Linear, x: Tensor) -> Tensor:
        return functional.linear_epsilon(x, part.weight, part.bias, 1e-9)

    x = x.requires_grad_()
    norm = module.norm
    h = functional.layer_norm(x, norm.weight, norm.bias, norm.eps)
    q, k, v = (heads(linear(part, h)) for part in (module.queries, module.keys, module.values))
    weights = functional.softmax(functional.matmul(q, k.transpose(-1, -2), epsilon=1e-9), -1)
    mixed = functional.matmul(weights, v, epsilon=1e-9).transpose(1, 2).flatten(2)
    out = linear(module.last, functional.mean(functional.add2(x, mixed, epsilon=1e-9), 1, False))
    chosen = out.gather(1, target[:, None])
    chosen.backward(chosen.detach())
    return x.grad.numpy()


def test_an_encoder_under_attn_lrp() -> None:
    torch.manual_seed(1)
    module = Encoder().eval()
    with torch.no_grad():
        module.norm.weight.uniform_(0.5, 1.5)
        module.norm.bias.uniform_(-0.5, 0.5)
    x = torch.randn(4, 5, 6)
    explainer = Explainer(
        relprop.load(module, x),
        "epsilon",
        epsilon=1e-9,
        rules={"MatMul": rules.HalfAndHalf(1e-9), "LayerNorm": rules.Epsilon(1e-6)},
    )
    result = explainer(x.numpy(), "argmax")
    truth = attn_lrp(module.double(), x.double(), torch.from_numpy(result.target))
    assert np.linalg.norm(result.relevance - truth) <= 1e-4 * np.linalg.norm(truth)
    assert np.abs(result.ledger.closure_error).max() <= 1e-6
