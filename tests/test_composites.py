"""Composites: which node gets which rule, and what is refused."""

from __future__ import annotations

import numpy as np
import pytest

from relprop import methods
from relprop.composites import (
    PRESETS,
    RULES_ALONE,
    Composite,
    Entry,
    assign,
    parameters,
    preset,
    required,
)
from relprop.errors import UnmatchedLayerError
from relprop.graph import (
    Activation,
    AdaptiveAvgPool,
    Add,
    BatchNorm,
    Concat,
    Constant,
    Conv,
    Dense,
    Graph,
    Input,
    LocalResponseNorm,
    MaxPool,
    Mul,
    Operator,
    Reshape,
    Softmax,
)
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
    ZPlus,
)


def conv(out: int, into: int) -> Conv:
    return Conv(np.ones((out, into, 1, 1), np.float32))


def network() -> Graph:
    """Two convolutions touch the input, one through a batch norm; a residual, a gate, a head."""
    graph = Graph()
    graph.add("input", Input((3, 4, 4)))
    graph.add("norm", BatchNorm(np.ones(3, np.float32), np.zeros(3, np.float32)), ["input"])
    graph.add("left", conv(2, 3), ["norm"])
    graph.add("right", conv(2, 3), ["input"])
    graph.add("relu", Activation("relu"), ["left"])
    graph.add("lrn", LocalResponseNorm(5), ["relu"])
    graph.add("sum", Add(), ["lrn", "right"])
    graph.add("inner", conv(2, 2), ["sum"])
    graph.add("sigmoid", Activation("sigmoid"), ["inner"])
    graph.add("gate", Mul(), ["sum", "sigmoid"])
    graph.add("concat", Concat(), ["gate", "right"])
    graph.add("pool", MaxPool((2, 2), (2, 2)), ["concat"])
    graph.add("mean", AdaptiveAvgPool((1, 1)), ["pool"])
    graph.add("flatten", Reshape((4,)), ["mean"])
    graph.add("offset", Constant(np.ones(4, np.float32)))
    graph.add("shifted", Add(), ["flatten", "offset"])
    graph.add("head", Dense(np.ones((2, 4), np.float32)), ["shifted"])
    return graph


def dense_first() -> Graph:
    graph = Graph()
    graph.add("input", Input((3,)))
    graph.add("first", Dense(np.ones((2, 3), np.float32)), ["input"])
    graph.add("second", Dense(np.ones((2, 2), np.float32)), ["first"])
    return graph


EXPECTED: dict[str, tuple[Rule, Rule, Rule]] = {
    # preset: first convolution, other convolutions, dense
    "epsilon_plus": (ZPlus(), ZPlus(), Epsilon()),
    "epsilon_plus_flat": (Flat(), ZPlus(), Epsilon()),
    "epsilon_alpha2_beta1": (AlphaBeta(2, 1), AlphaBeta(2, 1), Epsilon()),
    "epsilon_alpha2_beta1_flat": (Flat(), AlphaBeta(2, 1), Epsilon()),
    "epsilon_gamma_box": (ZBox(-1, 1), Gamma(0.25), Epsilon()),
    "excitation_backprop": (ZPlus(), ZPlus(), ZPlus()),
    "deep_taylor": (ZBox(-1, 1), ZPlus(), ZPlus()),
    "alpha2_beta1": (AlphaBeta(2, 1), AlphaBeta(2, 1), AlphaBeta(2, 1)),
    "epsilon": (Epsilon(), Epsilon(), Epsilon()),
}

FIRST_DENSE: dict[str, Rule] = {
    "epsilon_plus": Epsilon(),
    "epsilon_plus_flat": Flat(),
    "epsilon_alpha2_beta1": Epsilon(),
    "epsilon_alpha2_beta1_flat": Flat(),
    "epsilon_gamma_box": Epsilon(),
    "excitation_backprop": ZPlus(),
    "deep_taylor": ZBox(-1, 1),
    "alpha2_beta1": AlphaBeta(2, 1),
    "epsilon": Epsilon(),
}


RECTIFIED: dict[str, Rule] = {
    "deconvnet": Deconvolution(),
    "guided_backprop": GuidedBackprop(),
}

METHODS: dict[str, methods.Method] = {
    "gradient_x_input": methods.GradientXInput(),
    "sensitivity": methods.ChannelNorm("l2"),
    "smoothgrad": methods.SmoothGrad(25, 0.15, 0),
    "integrated_gradients": methods.IntegratedGradients(50, "gauss_legendre", 0.0),
    "occlusion": methods.Occlusion(16, 8, 0.0),
    "random": methods.Random(0),
    "sobel": methods.Sobel(),
}


def boxed(name: str) -> Composite:
    return preset(name, **({"low": -1, "high": 1} if "low" in parameters(name) else {}))


def test_the_table_of_presets_is_complete_and_in_order() -> None:
    assert list(RULES_ALONE) == [*EXPECTED, "gradient", *RECTIFIED]
    assert list(PRESETS) == [*RULES_ALONE, *METHODS]
    assert list(EXPECTED) == list(FIRST_DENSE)


@pytest.mark.parametrize("name", RECTIFIED)
def test_another_rule_for_rectifiers_beside_the_gradient(name: str) -> None:
    assigned = assign(preset(name), network())
    assert {node for node, rule in assigned.items() if rule != Gradient()} == {"relu"}
    assert assigned["relu"] == RECTIFIED[name]
    assert preset(name).initial == "one"


@pytest.mark.parametrize("name", METHODS)
def test_a_method_of_gradients(name: str) -> None:
    made = preset(name)
    assert made.method == METHODS[name]
    assert (made.entries, made.initial) == (preset("gradient").entries, "one")
    assert str(made.method) in str(made)
    assert required(name) == []


@pytest.mark.parametrize("name", ["gradient", *RECTIFIED])
def test_a_norm_on_request(name: str) -> None:
    assert preset(name).method is None
    assert preset(name, norm="max").method == methods.ChannelNorm("max")
    assert preset(name, norm="l2").entries == preset(name).entries
    with pytest.raises(ValueError, match=r'norm must be "l2" or "max", not \'l1\'\.'):
        preset(name, norm="l1")


def test_bounds_must_be_given() -> None:
    assert required("deep_taylor") == required("epsilon_gamma_box") == ["low", "high"]


def test_the_gradient_is_one_rule() -> None:
    assert set(assign(preset("gradient"), network()).values()) == {Gradient()}
    assert preset("gradient").initial == "one"
    assert str(preset("gradient")) == "gradient\n  every node: Gradient()"


@pytest.mark.parametrize("name", EXPECTED)
def test_preset(name: str) -> None:
    first, convolution, dense = EXPECTED[name]
    assert (boxed(name).name, boxed(name).initial) == (name, "value")
    assert assign(boxed(name), network()) == {
        "norm": Epsilon(),
        "left": first,
        "right": first,
        "relu": Pass(),
        "lrn": Pass(),
        "sum": Epsilon(),
        "inner": convolution,
        "sigmoid": Pass(),
        "gate": SignalTakesAll(),
        "concat": Pass(),
        "pool": WinnerTakesAll(),
        "mean": Epsilon(),
        "flatten": Pass(),
        "shifted": Epsilon(),
        "head": dense,
    }


@pytest.mark.parametrize("name", EXPECTED)
def test_preset_on_a_first_dense_layer(name: str) -> None:
    assert assign(boxed(name), dense_first()) == {
        "first": FIRST_DENSE[name],
        "second": EXPECTED[name][2],
    }


def test_a_layer_that_reads_the_input_beside_another_one_is_a_first_layer_too() -> None:
    graph = Graph()
    graph.add("input", Input((2, 4, 4)))
    graph.add("conv", conv(2, 2), ["input"])
    graph.add("both", Concat(), ["input", "conv"])
    graph.add("next", conv(2, 4), ["both"])
    graph.add("last", conv(2, 2), ["next"])
    rules = assign(preset("epsilon_plus_flat"), graph)
    assert [rules[n] for n in ("conv", "next", "last")] == [Flat(), Flat(), ZPlus()]


def test_parameters_reach_the_layers_with_weights_only() -> None:
    rules = assign(preset("epsilon", epsilon=0.1, bias="distribute"), network())
    assert rules["head"] == rules["left"] == Epsilon(0.1, "distribute")
    assert rules["sum"] == rules["norm"] == rules["mean"] == Epsilon(1e-6)
    box = preset("epsilon_gamma_box", low=(-1, -2, -3), high=(1, 2, 3), gamma=0.5, epsilon=1e-4)
    rules = assign(box, network())
    assert rules["left"] == ZBox((-1, -2, -3), (1, 2, 3))
    assert (rules["inner"], rules["head"]) == (Gamma(0.5), Epsilon(1e-4))


@pytest.mark.parametrize("name", EXPECTED)
def test_every_preset_has_bias_modes(name: str) -> None:
    box = {"low": 0, "high": 1} if "low" in parameters(name) else {}
    assert assign(preset(name, bias="exclude", **box), network())["head"].bias == "exclude"


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


@pytest.mark.parametrize("rule", [Pass(), Zero(), Epsilon()])
def test_a_softmax_inside_has_no_rule(rule: Rule) -> None:
    graph = dense_first()
    softmax: Operator = Softmax(0)
    graph.add("softmax", softmax, ["second"])
    graph.add("last", Dense(np.ones((2, 2), np.float32)), ["softmax"])
    with pytest.raises(UnmatchedLayerError, match=r"softmax \(Softmax\): no rule exists"):
        assign(preset("epsilon"), graph, {"softmax": rule})


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


def test_preset_errors() -> None:
    with pytest.raises(
        ValueError, match="no preset 'epsilon_plus_fla'; did you mean epsilon_plus_"
    ):
        preset("epsilon_plus_fla")
    with pytest.raises(TypeError, match="'epsilon_plus' has no parameter 'gamma'; it has epsilon"):
        preset("epsilon_plus", gamma=1.0)
    with pytest.raises(TypeError, match="'deep_taylor' needs low and high"):
        preset("deep_taylor")
    with pytest.raises(TypeError, match="'epsilon_gamma_box' needs high"):
        preset("epsilon_gamma_box", low=0)
    with pytest.raises(ValueError, match="epsilon must be finite and > 0"):
        preset("epsilon", epsilon=0.0)


def test_parameters_are_listed_with_defaults() -> None:
    assert parameters("epsilon_gamma_box") == {
        "low": None,
        "high": None,
        "epsilon": 1e-6,
        "gamma": 0.25,
        "bias": "absorb",
    }
