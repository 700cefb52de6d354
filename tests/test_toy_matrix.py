"""The matrix that must be all ones: sum R / f on bias-free toy networks under epsilon."""

from __future__ import annotations

import pytest

import relprop
from toy_networks import TOY_NETWORKS, toy


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("name", TOY_NETWORKS)
def test_relevance_sums_to_the_score(name: str, seed: int) -> None:
    module, x = toy(name, seed)
    explainer = relprop.Explainer(relprop.load(module, x), "epsilon", epsilon=1e-9)
    result = explainer(x.numpy(), "argmax")
    scores = result.scores[[0, 1], result.target]
    assert result.relevance.reshape(2, -1).sum(1) / scores == pytest.approx([1, 1], abs=5e-4)
