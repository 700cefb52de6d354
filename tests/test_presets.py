"""Presets: which node each gives which rule or method, and what is refused."""

from __future__ import annotations

import pytest

from composite_networks import conv, dense_first, network
from relprop import methods
from relprop.composites import PRESETS, RULES_ALONE, Composite, assign, parameters, preset, required
from relprop.graph import Concat, Graph, Input
from relprop.rules import (
    AlphaBeta,
    Deconvolution,
    Epsilon,
    Flat,
    Gamma,
    Gradient,
    GuidedBackprop,
    Pass,
    Rule,
    SignalTakesAll,
    WinnerTakesAll,
    ZBox,
    ZPlus,
)

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
