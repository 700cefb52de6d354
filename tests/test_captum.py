"""Captum where it is right: sequential networks, without biases and on inputs >= 0 for z_plus."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import relprop
from peers import peer
from relprop import Explainer, rules


@pytest.mark.parametrize(
    ("first", "rule", "expected"),
    [(2.0, rules.Epsilon(1e-9), [18, 36, 54]), (-2.0, rules.ZPlus(), [12, 33.6, 50.4])],
)
def test_the_exact_numbers_of_its_own_tests(first, rule, expected) -> None:
    """f = 108, and 96 with the first weight turned; worked out by hand there."""
    hidden, output = nn.Linear(3, 3, bias=False), nn.Linear(3, 1, bias=False)
    with torch.no_grad():
        hidden.weight.fill_(2.0)
        hidden.weight[0, 0] = first
        output.weight.fill_(3.0)
    model = relprop.load(nn.Sequential(hidden, nn.ReLU(), output).eval(), torch.zeros(1, 3))
    result = Explainer(model, "epsilon", rules={"Dense": rule})(np.float32([[1, 2, 3]]), 0)
    assert result.scores == pytest.approx(108 if first > 0 else 96)
    np.testing.assert_allclose(result.relevance, [expected], rtol=1e-6)


class Network(nn.Module):
    """Layers that Captum has rules for; it has none for nn.Flatten."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(3, 8, 3, padding=1, bias=False),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Conv2d(8, 16, 3, stride=2, bias=False),
            nn.ReLU(),
            nn.AvgPool2d(2),
        )
        self.head = nn.Sequential(
            nn.Linear(16 * 3 * 3, 20, bias=False), nn.ReLU(), nn.Linear(20, 5, bias=False)
        )
        generator = torch.Generator().manual_seed(0)
        for parameter in self.parameters():
            parameter.data.normal_(0, 0.2, generator=generator)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.features(x).flatten(1))


@pytest.mark.parametrize(
    ("name", "rule"),
    [
        ("EpsilonRule", rules.Epsilon(1e-9)),
        ("Alpha1_Beta0_Rule", rules.ZPlus()),
        ("GammaRule", rules.Gamma(0.25)),
    ],
)
def test_a_sequential_network(name: str, rule: rules.Rule) -> None:
    attr = peer("captum.attr")
    captum_rules = peer("captum.attr._utils.lrp_rules")
    module = Network().eval()
    x = np.random.default_rng(0).random((3, 3, 32, 32)).astype(np.float32)
    explainer = Explainer(
        relprop.load(module, torch.from_numpy(x)), "epsilon", rules={"Conv": rule, "Dense": rule}
    )
    result = explainer(x, "argmax")

    double = copy.deepcopy(module).double()
    for part in double.modules():
        if isinstance(part, (nn.Conv2d, nn.Linear)):
            part.rule = getattr(captum_rules, name)()
    lrp = attr.LRP(double)
    data = torch.from_numpy(x).double().requires_grad_()
    # Its z_plus starts from the score of the changed last layer; ours from f.
    truth = lrp.attribute(data, target=torch.from_numpy(result.target)).detach().numpy()
    scale = result.relevance.sum((1, 2, 3)) / truth.sum((1, 2, 3))
    if name == "EpsilonRule":
        assert scale == pytest.approx(1, abs=1e-4)
    truth *= scale[:, None, None, None]
    tolerance = 1e-4 if name == "EpsilonRule" else 1e-5
    assert np.linalg.norm(result.relevance - truth) <= tolerance * np.linalg.norm(truth)
