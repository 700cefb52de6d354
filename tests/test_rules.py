"""Rules as values: what they accept, equality and repr."""

from __future__ import annotations

import math
import pickle

import numpy as np
import pytest

from relprop.rules import (
    AlphaBeta,
    Epsilon,
    Flat,
    Gamma,
    Proportional,
    SignalTakesAll,
    WSquare,
    ZBox,
    ZPlus,
)


@pytest.mark.parametrize(
    ("make", "text"),
    [
        (lambda: Epsilon(0.0), "epsilon must be finite and > 0, not 0.0"),
        (lambda: Epsilon(-1.0), "epsilon must be finite and > 0, not -1.0"),
        (lambda: Epsilon(math.nan), "epsilon must be finite"),
        (lambda: Epsilon(math.inf), "epsilon must be finite"),
        (lambda: Epsilon(bias="ignore"), 'bias must be "absorb", "exclude" or "distribute"'),
        (lambda: AlphaBeta(2, 0), "alpha - beta must equal 1, not 2"),
        (lambda: AlphaBeta(0, -1), "beta must be finite and >= 0"),
        (lambda: AlphaBeta(math.inf, math.inf), "alpha must be finite"),
        (lambda: ZPlus("no"), "bias must be"),
        (lambda: Gamma(-0.1), "gamma must be finite and >= 0, not -0.1"),
        (lambda: Gamma(math.nan), "gamma must be finite"),
        (lambda: WSquare("no"), "bias must be"),
        (lambda: ZBox(1.0, 0.0), "low must be <= high"),
        (lambda: ZBox((0, 2), (1, 1)), "low must be <= high"),
        (lambda: ZBox((0, 0), (1, 1, 1)), "as many channels, not 2 and 3"),
        (lambda: ZBox((0, 0), -1.0), "low must be <= high"),
        (lambda: ZBox(-math.inf, 0.0), "low must be finite"),
        (lambda: Proportional(0.0), "epsilon must be finite and > 0"),
    ],
)
def test_bad_parameters_are_named(make, text: str) -> None:
    with pytest.raises(ValueError, match=text.replace("(", r"\(")):
        make()


@pytest.mark.parametrize(
    ("make", "text"),
    [
        (lambda: Epsilon("small"), "epsilon must be a number, not 'small'"),
        (lambda: Gamma((1, 2)), r"gamma must be a number, not \(1, 2\)"),
        (lambda: ZBox("low", 1.0), "low must be a number, not 'l'"),
        (lambda: ZBox(0.0, None), "high must be a number, not None"),
    ],
)
def test_parameters_are_numbers(make, text: str) -> None:
    with pytest.raises(TypeError, match=text):
        make()


def test_rules_are_values() -> None:
    assert Epsilon(0.1) == Epsilon(epsilon=0.1)
    assert Epsilon(0.1) != Epsilon(0.1, "exclude")
    assert ZPlus() == AlphaBeta(1, 0)
    assert ZBox(np.zeros(2, np.float32), 1) == ZBox((0.0, 0.0), 1.0)
    assert ZBox([0, 1], (2, 3)) == ZBox((0.0, 1.0), (2.0, 3.0))
    assert len({Gamma(), Gamma(0.25), Flat(), Flat(), SignalTakesAll(), SignalTakesAll(1)}) == 4
    for rule in (Epsilon(), AlphaBeta(), ZBox((0, 1), 2.0), Flat()):
        assert pickle.loads(pickle.dumps(rule)) == rule
        assert eval(repr(rule)) == rule


def test_defaults_are_the_literatures() -> None:
    assert repr(Epsilon()) == "Epsilon(epsilon=1e-06, bias='absorb')"
    assert repr(AlphaBeta()) == "AlphaBeta(alpha=2.0, beta=1.0, bias='absorb')"
    assert repr(Gamma()) == "Gamma(gamma=0.25, bias='absorb')"


def test_rules_do_not_change() -> None:
    with pytest.raises(AttributeError):
        Epsilon().epsilon = 1.0  # type: ignore[misc]
