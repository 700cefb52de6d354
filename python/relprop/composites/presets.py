"""Presets: composites by name.

Names and maps are zennit's where zennit has them, so that users can move.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from difflib import get_close_matches

from relprop.composites.applicable import (
    ACTIVATIONS,
    CONSTANT_WEIGHTS,
    CONVOLUTIONS,
    MOVES,
    NORMS,
    PRODUCTS,
)
from relprop.composites.composite import Composite, Entry
from relprop.composites.matchers import First
from relprop.graph import (
    Activation,
    BatchNorm,
    Dense,
    LocalResponseNorm,
    Maximum,
    MaxPool,
    Node,
    PReLU,
    Softmax,
    clip_bounds,
)
from relprop.methods import (
    ChannelNorm,
    GradientXInput,
    IntegratedGradients,
    Method,
    Occlusion,
    Random,
    SmoothGrad,
    Sobel,
)
from relprop.methods.channel_norm import Norm
from relprop.methods.integrated_gradients import Quadrature
from relprop.methods.occlusion import Sides
from relprop.methods.replacement import Values
from relprop.rules import (
    AlphaBeta,
    Bias,
    Bound,
    Deconvolution,
    Epsilon,
    Flat,
    Gamma,
    Gradient,
    GuidedBackprop,
    Pass,
    Rule,
    SignalTakesAll,
    Taylor,
    WinnerTakesAll,
    ZBox,
    ZPlus,
)


def _composite(
    name: str, convolution: Rule, dense: Rule, *first: Entry, epsilon: float = 1e-6
) -> Composite:
    # A preset's epsilon is for layers with weights: a large one must not swallow what sums and
    # average pools hand down, which is theirs at zennit's 1e-6. A smaller one is a wish for
    # exactness, and that is theirs as well.
    small = min(epsilon, 1e-6)
    return Composite(
        name,
        (
            *first,
            Entry(CONVOLUTIONS, convolution),
            Entry(Dense, dense),
            Entry((*CONSTANT_WEIGHTS, BatchNorm, *NORMS), Epsilon(small)),
            Entry((MaxPool, Maximum), WinnerTakesAll()),
            Entry(PRODUCTS, SignalTakesAll(epsilon=small)),
            Entry(Softmax, Taylor()),
            Entry((*ACTIVATIONS, *MOVES, LocalResponseNorm), Pass()),
        ),
    )


def _epsilon_plus(epsilon: float = 1e-6, bias: Bias = "absorb") -> Composite:
    dense = Epsilon(epsilon, bias)
    return _composite("epsilon_plus", ZPlus(bias), dense, epsilon=epsilon)


def _epsilon_plus_flat(epsilon: float = 1e-6, bias: Bias = "absorb") -> Composite:
    first, dense = Entry(First(), Flat()), Epsilon(epsilon, bias)
    return _composite("epsilon_plus_flat", ZPlus(bias), dense, first, epsilon=epsilon)


def _epsilon_alpha2_beta1(epsilon: float = 1e-6, bias: Bias = "absorb") -> Composite:
    rule, dense = AlphaBeta(2.0, 1.0, bias), Epsilon(epsilon, bias)
    return _composite("epsilon_alpha2_beta1", rule, dense, epsilon=epsilon)


def _epsilon_alpha2_beta1_flat(epsilon: float = 1e-6, bias: Bias = "absorb") -> Composite:
    first, rule, dense = Entry(First(), Flat()), AlphaBeta(2.0, 1.0, bias), Epsilon(epsilon, bias)
    return _composite("epsilon_alpha2_beta1_flat", rule, dense, first, epsilon=epsilon)


def _epsilon_gamma_box(
    low: Bound, high: Bound, epsilon: float = 1e-6, gamma: float = 0.25, bias: Bias = "absorb"
) -> Composite:
    first, dense = Entry(First(CONVOLUTIONS), ZBox(low, high)), Epsilon(epsilon, bias)
    return _composite("epsilon_gamma_box", Gamma(gamma, bias), dense, first, epsilon=epsilon)


def _excitation_backprop(bias: Bias = "absorb") -> Composite:
    return _composite("excitation_backprop", ZPlus(bias), ZPlus(bias))


def _deep_taylor(low: Bound, high: Bound, bias: Bias = "absorb") -> Composite:
    first = Entry(First(), ZBox(low, high))
    return _composite("deep_taylor", ZPlus(bias), ZPlus(bias), first)


def _alpha2_beta1(bias: Bias = "absorb") -> Composite:
    return _composite("alpha2_beta1", AlphaBeta(2.0, 1.0, bias), AlphaBeta(2.0, 1.0, bias))


def _epsilon(epsilon: float = 1e-6, bias: Bias = "absorb") -> Composite:
    rule = Epsilon(epsilon, bias)
    return _composite("epsilon", rule, rule, epsilon=epsilon)


def rectifier(node: Node) -> bool:
    """Tell whether a node is a ReLU or one of its smooth and leaky kin, not a gate or a clamp."""
    bounds = clip_bounds(node.operator)
    if bounds is not None:
        return bounds[0] == 0
    if isinstance(node.operator, Activation):
        return node.operator.function in _RECTIFIERS
    return isinstance(node.operator, PReLU)


_RECTIFIERS = ("leaky_relu", "elu", "silu", "gelu", "gelu_tanh", "hard_swish")


def _gradients(name: str, *first: Entry, method: Method | None = None) -> Composite:
    """The gradient but at the nodes of other entries, and what is made of it."""
    return Composite(name, (*first, Entry(object, Gradient())), initial="one", method=method)


def _of_channels(norm: Norm | None) -> Method | None:
    return None if norm is None else ChannelNorm(norm)


def _gradient(norm: Norm | None = None) -> Composite:
    return _gradients("gradient", method=_of_channels(norm))


def _deconvnet(norm: Norm | None = None) -> Composite:
    first = Entry(rectifier, Deconvolution())
    return _gradients("deconvnet", first, method=_of_channels(norm))


def _guided_backprop(norm: Norm | None = None) -> Composite:
    first = Entry(rectifier, GuidedBackprop())
    return _gradients("guided_backprop", first, method=_of_channels(norm))


def _sensitivity(norm: Norm = "l2") -> Composite:
    return _gradients("sensitivity", method=ChannelNorm(norm))


def _gradient_x_input() -> Composite:
    return _gradients("gradient_x_input", method=GradientXInput())


def _smoothgrad(samples: int = 25, noise: float = 0.15, seed: int = 0) -> Composite:
    return _gradients("smoothgrad", method=SmoothGrad(samples, noise, seed))


def _integrated_gradients(
    steps: int = 50, quadrature: Quadrature = "gauss_legendre", baseline: Values = 0.0
) -> Composite:
    method = IntegratedGradients(steps, quadrature, baseline)
    return _gradients("integrated_gradients", method=method)


def _occlusion(window: Sides = 16, stride: Sides = 8, value: Values = 0.0) -> Composite:
    return _gradients("occlusion", method=Occlusion(window, stride, value))


def _random(seed: int = 0) -> Composite:
    return _gradients("random", method=Random(seed))


def _sobel() -> Composite:
    return _gradients("sobel", method=Sobel())


RULES_ALONE: dict[str, Callable[..., Composite]] = {
    "epsilon_plus": _epsilon_plus,
    "epsilon_plus_flat": _epsilon_plus_flat,
    "epsilon_alpha2_beta1": _epsilon_alpha2_beta1,
    "epsilon_alpha2_beta1_flat": _epsilon_alpha2_beta1_flat,
    "epsilon_gamma_box": _epsilon_gamma_box,
    "excitation_backprop": _excitation_backprop,
    "deep_taylor": _deep_taylor,
    "alpha2_beta1": _alpha2_beta1,
    "epsilon": _epsilon,
    "gradient": _gradient,
    "deconvnet": _deconvnet,
    "guided_backprop": _guided_backprop,
}
"""The presets of which one run under their rules is the attribution, by default at least."""

PRESETS: dict[str, Callable[..., Composite]] = {
    **RULES_ALONE,
    "gradient_x_input": _gradient_x_input,
    "sensitivity": _sensitivity,
    "smoothgrad": _smoothgrad,
    "integrated_gradients": _integrated_gradients,
    "occlusion": _occlusion,
    "random": _random,
    "sobel": _sobel,
}
"""The presets: name to factory. This is the one list of them."""


def parameters(name: str) -> dict[str, object]:
    """Names of a preset's parameters with their defaults, ``None`` where one must be given."""
    signature = inspect.signature(_factory(name)).parameters
    return {
        key: None if value.default is inspect.Parameter.empty else value.default
        for key, value in signature.items()
    }


def required(name: str) -> list[str]:
    """Names of a preset's parameters that must be given."""
    signature = inspect.signature(_factory(name)).parameters
    return [key for key, value in signature.items() if value.default is inspect.Parameter.empty]


def preset(name: str, **values: object) -> Composite:
    """Make a preset, such as ``preset("epsilon_gamma_box", low=-2.1, high=2.6)``.

    Raises
    ------
    ValueError
        If there is no such preset, or a parameter's value is out of range.
    TypeError
        If a parameter is unknown or missing.
    """
    factory = _factory(name)
    known = parameters(name)
    for key in values:
        if key not in known:
            has = f"it has {', '.join(known)}" if known else "it has none"
            raise TypeError(f"preset {name!r} has no parameter {key!r}; {has}.")
    missing = [key for key in required(name) if key not in values]
    if missing:
        raise TypeError(
            f"preset {name!r} needs {' and '.join(missing)}: the bounds of the network's input, "
            "a number or one per channel."
        )
    return factory(**values)


def _factory(name: str) -> Callable[..., Composite]:
    if name not in PRESETS:
        close = get_close_matches(name, PRESETS, n=3)
        hint = f"did you mean {', '.join(close)}? " if close else ""
        raise ValueError(f"there is no preset {name!r}; {hint}known are {', '.join(PRESETS)}.")
    return PRESETS[name]
