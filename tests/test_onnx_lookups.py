"""ONNX's lookups by each sample's own number, and what only looks like them.

Masks and positions that torch exports so are in test_conditions.py and test_counting.py.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import relprop
from onnx_models import build, integers, random, write
from relprop import UnsupportedOperatorError

SHAPE = ("N", 4, 5)
# The batch's size, and each sample's own number.
NUMBERS = ("s = Shape(x)", "b = Gather(s, zero)", "n = Range(zero, b, one)")
SCALARS = {"zero": np.int64(0), "one": np.int64(1), "two": np.int64(2)}
# Both in the shape (N, 3, 1), and positions beside them.
BOTH = (
    *NUMBERS, "t = Unsqueeze(n, behind)", "m = Expand(t, three)", "o = Unsqueeze(m, last)",
    "u = Unsqueeze(b, first_axis)", "w = Concat<axis=0>(u, rest)", "q = Expand(places, w)",
    "i = Concat<axis=-1>(o, q)",
)  # fmt: skip
PLACES = {
    "behind": integers(1), "last": integers(2), "three": integers(1, 3), "rest": integers(3, 1),
    "first_axis": integers(0),
    "places": np.array([2, 0, -1]).reshape(1, 3, 1),
}  # fmt: skip


def loaded(*lines: str, folder: Path, **tensors) -> relprop.Model:
    return relprop.load(write(build(*lines, shape=SHAPE, **SCALARS, **tensors), folder))


def test_entries_of_each_sample(tmp_path: Path) -> None:
    model = loaded(*BOTH, "y = GatherND(x, i)", folder=tmp_path, **PLACES)
    x = random(3, 4, 5)
    result = relprop.Explainer(model, "epsilon")(x, np.ones((3, 3, 5), bool))
    np.testing.assert_array_equal(result.scores, x[:, [2, 0, -1]])


def test_entries_of_what_is_flattened(tmp_path: Path) -> None:
    lines = (
        *NUMBERS, "t = Unsqueeze(n, behind)", "m = Mul(t, four)", "i = Add(m, places)",
        "f = Reshape(x, flat)", "y = Gather<axis=0>(f, i)",
    )  # fmt: skip
    tensors = {"behind": integers(1), "four": np.int64(4), "flat": integers(-1, 5)}
    model = loaded(*lines, folder=tmp_path, places=np.array([[3, 1]]), **tensors)
    x = random(3, 4, 5)
    result = relprop.Explainer(model, "epsilon")(x, np.ones((3, 2, 5), bool))
    np.testing.assert_array_equal(result.scores, x[:, [3, 1]])


OTHERS = {
    "in another order": (
        ("r = Sub(b, n)", "t = Sub(r, one)", "i = Unsqueeze(t, behind)", "y = GatherND(x, i)"),
        "other samples",
    ),
    "the first one": (("i = Mul(zero, n)", "y = GatherND(x, first)"), "other samples"),
    "beyond the axis": (
        ("t = Unsqueeze(n, behind)", "u = Unsqueeze(b, none)", "w = Concat<axis=0>(u, each)",
         "q = Expand(far, w)", "i = Concat<axis=1>(t, q)", "y = GatherND(x, i)"),
        "do not fit axes",
    ),
    "batches of its own": (("y = GatherND<batch_dims=1>(x, first)",), "batches of its own"),
    "a signal's largest": (
        ("a = ArgMax<axis=1>(x)", "t = Unsqueeze(n, both)", "m = Expand(t, each5)",
         "o = Unsqueeze(m, last3)", "p = Unsqueeze(a, last3)", "i = Concat<axis=-1>(o, p)",
         "y = GatherND(x, i)"),
        "where a signal is largest",
    ),
    "numbers that do not begin at 0": (
        ("r = Range(two, b, one)", "t = ReduceSum(r, none)", "f = Cast<to=1>(t)", "y = Add(x, f)"),
        "depends on the size of the batch",
    ),
    "their sum": (
        ("t = ReduceSum(n, none)", "f = Cast<to=1>(t)", "y = Add(x, f)"),
        "depends on the size of the batch",
    ),
    "their shape": (
        ("t = Shape(n)", "f = Cast<to=1>(t)", "y = Add(x, f)"), "depends on the size of the batch"
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", OTHERS)
def test_refused(name: str, tmp_path: Path) -> None:
    lines, reason = OTHERS[name]
    tensors = {
        "behind": integers(1), "both": integers(1, 2), "first": np.array([[0, 1], [0, 2]]),
        "far": np.array([[4]]), "each": integers(1), "each5": integers(1, 1, 5),
        "last3": integers(3), "none": integers(0),
    }  # fmt: skip
    with pytest.raises(UnsupportedOperatorError, match=reason):
        loaded(*NUMBERS, *lines, folder=tmp_path, **tensors)


def test_indices_that_something_else_reads(tmp_path: Path) -> None:
    """Positions alone stand for indices that nothing but lookups read."""
    lines = (
        *NUMBERS, "c = Greater(x, zero)", "k = Cast<to=7>(c)", "a = ReduceSum(k, behind)",
        "o = Unsqueeze(n, behind)", "i = Concat<axis=1>(o, a)", "e = Gather(w, x)",
        "y = GatherND(e, i)", "f = Cast<to=1>(i)", "z = Add(y, f)",
    )  # fmt: skip
    given = {"shape": ("N", 5), "kind": 7, "w": random(9, 2), "behind": integers(1), **SCALARS}
    relprop.load(write(build(*lines[:-2], **given), tmp_path))
    with pytest.raises(UnsupportedOperatorError, match=r"Concat at node 'i'.* the batch"):
        relprop.load(write(build(*lines, outputs=("z",), **given), tmp_path))
