"""Transposed convolution in the core against the matrix form: every geometry, rule, bias mode."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import relprop
from agreement import assert_case_agrees, assert_layer_agrees
from cases import (
    BATCHES,
    KINDS,
    SEEDS,
    TRANSPOSED_CONVOLUTIONS,
    Case,
    linear_rules,
    transposed_convolutions,
)
from relprop import graph as g


@pytest.mark.parametrize("after_relu", [False, True], ids=["any signs", "after relu"])
@pytest.mark.parametrize("case", TRANSPOSED_CONVOLUTIONS, ids=str)
def test_listed_cases_under_every_rule(case: Case, after_relu: bool) -> None:
    assert_case_agrees(case, after_relu)


@given(
    layer=transposed_convolutions(), data=st.data(), n=BATCHES, seed=SEEDS, after_relu=st.booleans()
)
@settings(max_examples=80, deadline=None)
def test_any_transposed_convolution(layer, data, n, seed, after_relu) -> None:
    operator, shape = layer
    rule, kinds = data.draw(linear_rules(shape[0])), (data.draw(KINDS), data.draw(KINDS))
    rng = np.random.default_rng(seed)
    assert_layer_agrees(operator, shape, rule, rng, n=n, kinds=kinds, after_relu=after_relu)


def test_same_as_torch() -> None:
    torch.manual_seed(0)
    module = torch.nn.ConvTranspose2d(
        6, 8, (3, 4), (2, 3), (1, 0), (1, 2), groups=2, dilation=(2, 1)
    ).eval()
    x = torch.randn(2, 6, 5, 4)
    model = relprop.load(torch.nn.Sequential(module, torch.nn.Flatten()).eval(), x)
    with torch.no_grad():
        expected = module(x).flatten(1)
    scores = relprop.Explainer(model, "epsilon").forward(x)
    torch.testing.assert_close(scores, expected, rtol=1e-5, atol=1e-6)


def test_shapes_that_do_not_fit() -> None:
    weight = np.ones((4, 3, 3, 3), np.float32)
    with pytest.raises(ValueError, match="does not fit 5 channels"):
        g.ConvTranspose(weight).infer_shape((5, 4, 4))
    with pytest.raises(ValueError, match="output_padding must be smaller than stride"):
        g.ConvTranspose(weight, output_padding=(1, 0)).infer_shape((4, 4, 4))
    with pytest.raises(ValueError, match=r"bias must have shape \(3,\)"):
        g.ConvTranspose(weight, np.ones(4, np.float32)).infer_shape((4, 4, 4))
