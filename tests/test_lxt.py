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
