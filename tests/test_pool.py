"""Pooling in the core against plain windows."""

from __future__ import annotations

import re
from contextlib import suppress

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agreement import assert_agrees, build
from cases import BATCHES, KINDS, POOL, SEEDS, Case, numbers, pools
from relprop import Explainer, rules
from relprop import graph as g
from relprop.compile import compile_plan

MAX_RULES = [rules.WinnerTakesAll(), rules.Proportional(0.1), rules.Proportional(), rules.Zero()]
AVERAGE_RULES = [rules.Epsilon(0.1), rules.Epsilon(), rules.Zero()]


@pytest.mark.parametrize("after_relu", [False, True], ids=["any signs", "after relu"])
@pytest.mark.parametrize("case", POOL, ids=str)
def test_listed_cases(case: Case, after_relu: bool) -> None:
    rng = np.random.default_rng(len(case.name))
    operator = case.layer(rng)
    for kind in ("normal", "grid"):
        x = numbers(rng, (2, *case.shape), kind)
        r = numbers(rng, (2, *operator.infer_shape(case.shape)))
        for rule in MAX_RULES if isinstance(operator, g.MaxPool) else AVERAGE_RULES:
            assert_agrees(operator, [x], rule, r, after_relu=after_relu)


@given(layer=pools("max"), n=BATCHES, seed=SEEDS, kind=KINDS, rule=st.sampled_from(MAX_RULES))
@settings(max_examples=80, deadline=None)
def test_any_max_pool(layer, n, seed, kind, rule) -> None:
    operator, shape = layer
    rng = np.random.default_rng(seed)
    x = numbers(rng, (n, *shape), kind)
    assert_agrees(operator, [x], rule, numbers(rng, (n, *operator.infer_shape(shape))))


@given(
    layer=pools("average"), n=BATCHES, seed=SEEDS, kind=KINDS, rule=st.sampled_from(AVERAGE_RULES)
)
@settings(max_examples=80, deadline=None)
def test_any_average_pool(layer, n, seed, kind, rule) -> None:
    operator, shape = layer
    rng = np.random.default_rng(seed)
    x = numbers(rng, (n, *shape), kind)
    assert_agrees(operator, [x], rule, numbers(rng, (n, *operator.infer_shape(shape))))


@given(
    channels=st.integers(1, 9),
    axes=st.lists(st.tuples(st.integers(1, 9), st.integers(1, 9)), min_size=1, max_size=3),
    seed=SEEDS,
)
@settings(max_examples=40, deadline=None)
def test_any_adaptive_average(channels, axes, seed) -> None:
    rng = np.random.default_rng(seed)
    sizes, output = zip(*axes)
    x = numbers(rng, (2, channels, *sizes))
    operator = g.AdaptiveAvgPool(output)
    assert_agrees(operator, [x], rules.Epsilon(0.1), numbers(rng, (2, channels, *output)))


@given(data=st.data(), shape=st.lists(st.integers(1, 5), min_size=1, max_size=4), seed=SEEDS)
@settings(max_examples=40, deadline=None)
def test_any_mean(data, shape, seed) -> None:
    axes = data.draw(st.sets(st.integers(0, len(shape) - 1), min_size=1))
    operator = g.Mean(
        tuple(sorted(axes)), keepdims=len(axes) == len(shape) or data.draw(st.booleans())
    )
    rng = np.random.default_rng(seed)
    x = numbers(rng, (2, *shape))
    r = numbers(rng, (2, *operator.infer_shape(tuple(shape))))
    assert_agrees(operator, [x], rules.Epsilon(0.1), r)


def test_the_first_of_equal_maxima_wins() -> None:
    x = np.zeros((1, 1, 4, 4), np.float32)
    assert_agrees(
        g.MaxPool((3, 3), (1, 1), ((1, 1), (1, 1))),
        [x],
        rules.WinnerTakesAll(),
        np.arange(1, 17, dtype=np.float32).reshape(1, 1, 4, 4),
    )


@pytest.mark.parametrize("kernel", [(4,), (2, 3), (2, 2, 2)], ids=str)
@pytest.mark.parametrize("channels", [1, 3, 5, 17, 64, 135])  # vectors, runs of them, what is left
def test_a_nan_anywhere_in_a_window_is_its_maximum(channels: int, kernel: tuple[int, ...]) -> None:
    """Every second channel stays without; infinities and ties are around."""
    graph = build(g.MaxPool(kernel, (1,) * len(kernel)), [(channels, *kernel)])
    plan = compile_plan(graph, {"layer": rules.WinnerTakesAll()}).plan
    taps = int(np.prod(kernel))
    noise = np.random.default_rng(0).standard_normal((channels, taps)).astype(np.float32)
    for around in (noise, 0 * noise, np.inf + noise, -np.inf + noise, np.inf * noise):
        for places in ([], *([place] for place in range(taps)), [0, taps - 1], [1, 2]):
            window = around.copy()
            window[::2, places] = np.nan
            best = np.empty((1, channels), np.float32)
            with suppress(ValueError):  # once they are written, outputs that are not finite raise
                plan.run([window.reshape(1, -1)], best)
            np.testing.assert_array_equal(best[0], window.max(axis=1))


@pytest.mark.parametrize("place", range(4))
def test_a_nan_before_a_pool_is_refused(place: int) -> None:
    """With a number in its place, a wrong explanation would look right."""
    graph = g.Graph()
    graph.add("image", g.Input((1, 2, 2)))
    weight = np.full((1, 1, 1, 1), 1e38, np.float32)
    graph.add("large", g.Conv(weight, None), ["image"])
    graph.add("opposite", g.Conv(-weight, None), ["image"])
    graph.add("difference", g.Add(), ["large", "opposite"])
    graph.add("layer", g.MaxPool((2, 2), (2, 2)), ["difference"])
    graph.add("vector", g.Reshape((1,)), ["layer"])
    image = np.zeros((1, 1, 2, 2), np.float32)
    image.flat[place] = 10  # inf - inf
    with pytest.raises(ValueError, match="the output is not finite"):
        Explainer(graph, "gradient")(image)


@pytest.mark.parametrize(("after", "ceil_mode"), [(2, False), (0, True)])
def test_windows_of_padding_alone_are_refused(after: int, ceil_mode: bool) -> None:
    """Their maximum is -inf for torch."""
    operator = g.MaxPool((2,), (4,), ((1, after),), (3,), ceil_mode)
    graph = build(operator, [(5, 1)])
    with pytest.raises(ValueError, match="every window a real input"):
        Explainer(graph, "gradient")


@pytest.mark.parametrize("shape", [(3, 10), (3, 6, 5)])
def test_the_dilation_of_single_inputs_counts_for_nothing(shape: g.Shape) -> None:
    axes = len(shape) - 1
    operator = g.MaxPool((1,) * axes, (2,) * axes, dilation=(2**31 - 1,) * axes)
    rng = np.random.default_rng(0)
    r = numbers(rng, (2, *operator.infer_shape(shape)))
    assert_agrees(operator, [numbers(rng, (2, *shape))], rules.WinnerTakesAll(), r)


@pytest.mark.parametrize("before", [0, 1])
def test_a_window_may_be_as_large_as_an_integer(before: int) -> None:
    most = 2**31 - 1
    operator = g.MaxPool((most,), (most,), ((before, 0),), ceil_mode=True)
    x, r = np.arange(1, 101, dtype=np.float32), np.ones((1, 1, 1), np.float32)
    scores, relevance = explain(operator, rules.WinnerTakesAll(), x.reshape(1, 1, -1), r)
    assert scores.item() == 100
    np.testing.assert_array_equal(relevance.ravel(), x == 100)


@pytest.mark.parametrize(
    ("operator", "message"),
    [
        (g.MaxPool((2,), (2**29,), dilation=(2**28,), ceil_mode=True), "dilation must be < 2^28"),
        (
            g.AvgPool((2**31 - 60,), (60,), ((0, 2**31 - 101),), ceil_mode=True),
            "the last window must end before 2^31",
        ),
    ],
)
def test_windows_beyond_integers_are_refused(operator: g.Operator, message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        Explainer(build(operator, [(1, 100)]), "gradient")


PADDED = ((1, 1), (1, 1))
BETWEEN_TASKS: list[tuple[g.Operator, g.Shape]] = [
    (g.MaxPool((2, 2), (2, 2)), (615, 19, 16)),
    (g.MaxPool((3, 3), (1, 1), PADDED), (615, 20, 16)),
    (g.MaxPool((3, 3), (2, 2), PADDED, ceil_mode=True), (615, 20, 16)),
    (g.MaxPool((3, 2), (2, 1), dilation=(4, 3)), (615, 25, 13)),
    (g.MaxPool((9, 1), (1, 1)), (2100, 20, 5)),
    (g.MaxPool((3,), (1,), ((1, 1),)), (615, 250)),
    (g.MaxPool((2, 3, 3), (1, 2, 1)), (203, 3, 31, 12)),
    (g.AvgPool((3, 3), (1, 1), PADDED), (615, 20, 16)),
    (g.AvgPool((2, 2, 2), (2, 2, 2)), (203, 4, 30, 12)),
    (g.AdaptiveAvgPool((7, 5)), (615, 20, 16)),
]


@pytest.mark.parametrize(("operator", "shape"), BETWEEN_TASKS)
def test_no_border_between_tasks_shows(operator: g.Operator, shape: g.Shape) -> None:
    """Many channels are cut into rows that several tasks own; few are one task's alone."""
    rng = np.random.default_rng(0)
    x = numbers(rng, (2, *shape), "grid")
    r = numbers(rng, (2, *operator.infer_shape(shape)))
    rule = rules.WinnerTakesAll() if isinstance(operator, g.MaxPool) else rules.Epsilon()
    found = explain(operator, rule, x, r)
    for first in range(0, shape[0], 64):
        few = slice(first, first + 64)
        expected = explain(operator, rule, x[:, few], r[:, few])
        for one, other in zip(found, expected, strict=True):
            np.testing.assert_array_equal(one[:, few], other)


def explain(operator: g.Operator, rule: rules.Rule, x: g.Array, r: g.Array) -> list[g.Array]:
    """The layer's value and the relevance of its input."""
    result = Explainer(build(operator, [x.shape[1:]]), rules={"layer": rule})(x, target=r)
    return [result.scores.reshape(r.shape), result.relevance]
