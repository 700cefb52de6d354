"""The rules of relevance propagation, as data.

A rule says what one node does with the relevance of its output; the core computes it. The
formulas, their sources and the choices made where the literature leaves one open are in
``docs/rules.md``. Rules are plain frozen values: equal when their parameters are equal.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from numbers import Real
from typing import Literal

Bias = Literal["absorb", "exclude", "distribute"]
"""What becomes of the bias's share of a denominator.

``"absorb"`` keeps it in the denominator and lets the ledger account for it; ``"exclude"``
leaves it out of the denominator; ``"distribute"`` hands it in equal parts to the real inputs
of the neuron.
"""

Bound = float | tuple[float, ...]


def _check_number(name: str, value: object) -> None:
    if not isinstance(value, Real):
        raise TypeError(f"{name} must be a number, not {value!r}.")


def _check_finite(name: str, value: float, *, low: float, inclusive: bool = True) -> None:
    _check_number(name, value)
    if not math.isfinite(value) or value < low or (value == low and not inclusive):
        sign = ">=" if inclusive else ">"
        raise ValueError(f"{name} must be finite and {sign} {low:g}, not {value!r}.")


def _check_bias(bias: str) -> None:
    if bias not in ("absorb", "exclude", "distribute"):
        raise ValueError(f'bias must be "absorb", "exclude" or "distribute", not {bias!r}.')


@dataclass(frozen=True)
class Epsilon:
    """Each input gets its share of the pre-activation (Bach et al. 2015, Eq. 58).

    Applies to every linear node: convolution, dense layer, average pooling, mean, sum of
    branches, batch norm that stands alone, and to layer and group norm, whose deviation is held
    constant (Achtibat et al. 2024). ``epsilon=1e-9`` is the customary LRP-0.
    """

    epsilon: float = 1e-6
    bias: Bias = "absorb"

    def __post_init__(self) -> None:
        _check_finite("epsilon", self.epsilon, low=0.0, inclusive=False)
        _check_bias(self.bias)


@dataclass(frozen=True)
class AlphaBeta:
    """Positive and negative contributions weighted apart, alpha - beta = 1 (Eq. 60)."""

    alpha: float = 2.0
    beta: float = 1.0
    bias: Bias = "absorb"

    def __post_init__(self) -> None:
        _check_finite("alpha", self.alpha, low=0.0)
        _check_finite("beta", self.beta, low=0.0)
        if abs(self.alpha - self.beta - 1.0) > 1e-6:
            raise ValueError(
                f"alpha - beta must equal 1, not {self.alpha - self.beta:g} "
                f"(alpha={self.alpha:g}, beta={self.beta:g})."
            )
        _check_bias(self.bias)


def ZPlus(bias: Bias = "absorb") -> AlphaBeta:
    """Only positive contributions count: alpha_beta with alpha 1 and beta 0."""
    return AlphaBeta(1.0, 0.0, bias)


@dataclass(frozen=True)
class Gamma:
    """Contributions of the pre-activation's sign are favoured by 1 + gamma.

    The generalised form for inputs and outputs of any sign (Andeol et al. 2021).
    """

    gamma: float = 0.25
    bias: Bias = "absorb"

    def __post_init__(self) -> None:
        _check_finite("gamma", self.gamma, low=0.0)
        _check_bias(self.bias)


@dataclass(frozen=True)
class ZBox:
    """For inputs in a box [low, high], such as pixels (Montavon et al. 2017).

    Bounds are in the units of the network's input: a number, or one per channel.
    """

    low: Bound
    high: Bound

    def __post_init__(self) -> None:
        for name in ("low", "high"):
            value = getattr(self, name)
            bounds = tuple(value) if isinstance(value, Iterable) else (value,)
            for v in bounds:
                _check_number(name, v)
                if not math.isfinite(v):
                    raise ValueError(f"{name} must be finite, not {v!r}.")
            if isinstance(value, Iterable):
                object.__setattr__(self, name, tuple(map(float, bounds)))
        lows = self.low if isinstance(self.low, tuple) else (self.low,)
        highs = self.high if isinstance(self.high, tuple) else (self.high,)
        if len(lows) != len(highs) and 1 not in (len(lows), len(highs)):
            raise ValueError(
                f"low and high must have as many channels, not {len(lows)} and {len(highs)}."
            )
        if any(a > b for a in lows for b in highs) and (len(lows) == 1 or len(highs) == 1):
            raise ValueError(f"low must be <= high, not {self.low} and {self.high}.")
        if len(lows) == len(highs) and any(a > b for a, b in zip(lows, highs)):
            raise ValueError(f"low must be <= high, not {self.low} and {self.high}.")


@dataclass(frozen=True)
class WSquare:
    """Shares by squared weight, whatever the input (Montavon et al. 2017)."""

    bias: Bias = "absorb"

    def __post_init__(self) -> None:
        _check_bias(self.bias)


@dataclass(frozen=True)
class Flat:
    """Every real input of a neuron gets the same share (Lapuschkin et al. 2019)."""


@dataclass(frozen=True)
class Pass:
    """Relevance goes through unchanged: activations, local response normalisation, batch norm."""


@dataclass(frozen=True)
class Zero:
    """Relevance stops here; the ledger books it under ``zero``."""


@dataclass(frozen=True)
class WinnerTakesAll:
    """Max pooling's default: the window's first maximum takes the relevance."""


@dataclass(frozen=True)
class Proportional:
    """Max pooling's other choice: the window shares relevance in proportion to its values.

    As average pooling does; the option of the seed paper's Caffe code.
    """

    epsilon: float = 1e-6

    def __post_init__(self) -> None:
        _check_finite("epsilon", self.epsilon, low=0.0, inclusive=False)


@dataclass(frozen=True)
class Taylor:
    """First-order Taylor expansion.

    Of local response normalisation around the point where a value's neighbours are gone (Binder
    et al. 2016); of a softmax around its input, whose constant term is booked as ``bias``
    (Achtibat et al. 2024, Proposition 3.1).
    """


@dataclass(frozen=True)
class SignalTakesAll:
    """A product of two branches: the signal takes the relevance, the gate none.

    ``signal`` is the signal's position among the inputs; None finds the gate as the operand
    that ends in a sigmoid or softmax and falls back to half and half. Each entry of a matrix
    product is a sum, of which the signal's values get their shares as under :class:`Epsilon`,
    with ``epsilon`` (Ali et al. 2022, attention weights held constant).
    """

    signal: Literal[0, 1] | None = None
    epsilon: float = 1e-6

    def __post_init__(self) -> None:
        _check_finite("epsilon", self.epsilon, low=0.0, inclusive=False)


@dataclass(frozen=True)
class HalfAndHalf:
    """A product of two branches: each takes half of the relevance.

    Of a matrix product's entries by their terms, with ``epsilon`` as under :class:`Epsilon`
    (Achtibat et al. 2024, Proposition 3.3).
    """

    epsilon: float = 1e-6

    def __post_init__(self) -> None:
        _check_finite("epsilon", self.epsilon, low=0.0, inclusive=False)


@dataclass(frozen=True)
class Gradient:
    """Relevance is multiplied with the derivative: the gradient of what is explained.

    Applies to every node but embeddings, whose ids have no derivative. At a kink the derivative
    is torch's for ReLU: 0 where a clip cuts off or just does. A gradient is not conserved:
    where any node has this rule there is no ledger.
    """


@dataclass(frozen=True)
class Deconvolution:
    """The positive part of the relevance goes on, whatever the input (Zeiler and Fergus 2014).

    Applies to activations, whose forward value takes no part. As :class:`Gradient` it conserves
    nothing.
    """


@dataclass(frozen=True)
class GuidedBackprop:
    """The positive part of the relevance times the derivative (Springenberg et al. 2015).

    Applies to activations: both the deconvolution's and the gradient's masks of a ReLU. As
    :class:`Gradient` it conserves nothing.
    """


Rule = (
    Epsilon
    | AlphaBeta
    | Gamma
    | ZBox
    | WSquare
    | Flat
    | Pass
    | Zero
    | WinnerTakesAll
    | Proportional
    | Taylor
    | SignalTakesAll
    | HalfAndHalf
    | Gradient
    | Deconvolution
    | GuidedBackprop
)
"""Any rule. This is the one list of them."""

UNCONSERVED = (Gradient, Deconvolution, GuidedBackprop)
"""Rules that conserve nothing: where any node has one there is no ledger."""
