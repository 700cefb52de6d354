"""Any number in any field of an operator: it runs, or it is refused in words."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from cases import CASES, Case, fixed
from relprop import graph as g
from relprop.explain import Explainer

LAYERS = [
    *CASES,
    Case("nearest", (3, 4, 5), fixed(g.UpsampleNearest2d((8, 9), (0.5, 0.6)))),
    Case("bilinear", (3, 4, 5), fixed(g.UpsampleBilinear2d((8, 9), (0.5, 0.6)))),
    Case("slice", (3, 8), fixed(g.Slice(1, 1, 7, 2))),
    Case("pad", (3, 8), fixed(g.Pad(((0, 1), (2, 3)), 0.5))),
    Case("reshape", (3, 8), fixed(g.Reshape((6, 4)))),
    Case("permute", (3, 8), fixed(g.Permute((1, 0)))),
    Case("leaky relu", (3, 8), fixed(g.Activation("leaky_relu", 0.1))),
    Case("elu", (3, 8), fixed(g.Activation("elu", 1.0))),
]
WHOLE = (-1, 0, 2, 7, 100, 2**30, 2**31 - 1)
REAL = (-1.0, 0.0, 1e-30, 1e30, math.inf, math.nan)


def changed(value: Any) -> Iterator[Any]:
    """The same value with another number in it."""
    if isinstance(value, tuple):
        for i, part in enumerate(value):
            yield from ((*value[:i], one, *value[i + 1 :]) for one in changed(part))
    elif isinstance(value, float):
        yield from REAL
    elif isinstance(value, int) and not isinstance(value, bool):
        yield from WHOLE


@pytest.mark.parametrize("case", LAYERS, ids=str)
def test_extreme_numbers_run_or_are_refused(case: Case) -> None:
    operator = case.layer(np.random.default_rng(0))
    x = np.ones((1, *case.shape), np.float32)
    for field in dataclasses.fields(operator):
        for value in changed(getattr(operator, field.name)):
            graph = g.Graph()
            graph.add("x", g.Input(case.shape))
            try:
                graph.add("layer", dataclasses.replace(operator, **{field.name: value}), ["x"])
                shape = graph["layer"].shape
                if math.prod(shape) < 10**6:
                    relevance = np.ones((1, *shape), np.float32)
                    Explainer(graph, "epsilon")(x, target=relevance)
            except ValueError:
                continue
