"""Composites: what their entries and overrides select, and what is refused."""

from __future__ import annotations

import numpy as np
import pytest

from composite_networks import dense_first, network
from relprop.composites import Composite, Entry, assign, preset
from relprop.errors import UnmatchedLayerError
from relprop.graph import Add, Conv, Dense
from relprop.rules import (
    AlphaBeta,
    Deconvolution,
    Epsilon,
    Flat,
    Gamma,
    Gradient,
    GuidedBackprop,
    HalfAndHalf,
    Pass,
    Proportional,
    Rule,
    SignalTakesAll,
    Taylor,
    WinnerTakesAll,
    WSquare,
    ZBox,
    Zero,
)


@pytest.mark.parametrize(
    ("matcher", "selected"),
    [
        ("inner", {"inner"}),
        ("Conv", {"left", "right", "inner"}),
        (Dense, {"head"}),
        ((Conv, Dense), {"left", "right", "inner", "head"}),
        (0, {"left"}),
        (2, {"inner"}),
        (-1, {"head"}),
        (
            lambda node: node.shape == (2, 4, 4) and node.type == "Conv",
            {"left", "right", "inner"},
        ),
    ],
)
def test_overrides(matcher: object, selected: set[str]) -> None:
    plain = assign(preset("epsilon"), network())
    rules = assign(preset("epsilon"), network(), {matcher: WSquare()})
    assert {name for name, rule in rules.items() if rule != plain[name]} == selected
    assert all(rules[name] == WSquare() for name in selected)


def test_the_first_override_wins() -> None:
    overrides = {"left": Flat(), "Conv": WSquare()}
    rules = assign(preset("epsilon"), network(), overrides)
    assert [rules[name] for name in ("left", "right", "inner")] == [Flat(), WSquare(), WSquare()]


def test_a_node_name_comes_before_an_operator_type() -> None:
    graph = dense_first()
    graph.add("Dense", Dense(np.ones((2, 2), np.float32)), ["second"])
    rules = assign(preset("epsilon"), graph, {"Dense": Flat()})
    assert list(rules.values()) == [Epsilon(), Epsilon(), Flat()]


def test_an_unmatched_node_raises_with_all_that_helps() -> None:
    composite = Composite("mine", (Entry((Conv, Dense), Epsilon()), Entry(Add, Epsilon())))
    with pytest.raises(UnmatchedLayerError) as caught:
        assign(composite, network())
    text = str(caught.value)
    for part in ("mine", "relu (Activation): no entry matches", "pool (MaxPool)", "Pass()"):
        assert part in text
    assert "Conv, Dense: Epsilon(epsilon=1e-06, bias='absorb')" in text
    assert "sum (Add)" not in text
    assert "input (Input)" not in text
    assert "offset" not in text


RULES: list[Rule] = [
    Epsilon(),
    AlphaBeta(),
    Gamma(),
    ZBox(0, 1),
    WSquare(),
    Flat(),
    Pass(),
    Zero(),
    WinnerTakesAll(),
    Proportional(),
    Taylor(),
    SignalTakesAll(),
    HalfAndHalf(),
    Gradient(),
    Deconvolution(),
    GuidedBackprop(),
]


@pytest.mark.parametrize(
    ("name", "applicable"),
    [
        ("left", {Epsilon, AlphaBeta, Gamma, ZBox, WSquare, Flat, Gradient, Zero}),
        ("head", {Epsilon, AlphaBeta, Gamma, ZBox, WSquare, Flat, Gradient, Zero}),
        ("sum", {Epsilon, Gradient, Zero}),
        ("mean", {Epsilon, Gradient, Zero}),
        ("norm", {Epsilon, Pass, Gradient, Zero}),
        ("pool", {WinnerTakesAll, Proportional, Gradient, Zero}),
        ("lrn", {Pass, Taylor, Gradient, Zero}),
        ("relu", {Pass, Gradient, Deconvolution, GuidedBackprop, Zero}),
        ("flatten", {Pass, Gradient, Zero}),
        ("concat", {Pass, Gradient, Zero}),
        ("gate", {SignalTakesAll, HalfAndHalf, Gradient, Zero}),
    ],
)
def test_a_rule_that_does_not_apply_is_refused(name: str, applicable: set[type]) -> None:
    for rule in RULES:
        if type(rule) in applicable:
            assert assign(preset("epsilon"), network(), {name: rule})[name] == rule
        else:
            with pytest.raises(UnmatchedLayerError, match=rf"  {name} \(\w+\): .*does not apply"):
                assign(preset("epsilon"), network(), {name: rule})


@pytest.mark.parametrize("name", ["sum", "mean", "norm"])
def test_only_layers_with_weights_take_a_bias_mode(name: str) -> None:
    with pytest.raises(UnmatchedLayerError, match=rf"{name} .*bias must be 'absorb' there"):
        assign(preset("epsilon"), network(), {name: Epsilon(1e-6, "exclude")})


@pytest.mark.parametrize(
    ("matcher", "text"),
    [
        ("iner", "'iner' is neither .* did you mean inner"),
        ("Conv2D", "did you mean Conv"),
        ("qqqq", r"print\(graph\)"),
        (4, "position 4 selects nothing: the graph has 4 layers"),
        (-5, "position -5 selects nothing"),
    ],
)
def test_an_override_that_selects_nothing_raises(matcher: object, text: str) -> None:
    with pytest.raises(ValueError, match=text):
        assign(preset("epsilon"), network(), {matcher: Epsilon()})


def test_entries_are_a_tuple_of_entries() -> None:
    entry = Entry("Conv", Flat())
    assert Composite("mine", [entry]) == Composite("mine", (entry,))  # type: ignore[arg-type]
    with pytest.raises(TypeError, match=r"must be relprop.composites.Entry, not \('Conv', Flat"):
        Composite("mine", (("Conv", Flat()),))  # type: ignore[arg-type]
