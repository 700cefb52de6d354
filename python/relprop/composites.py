"""Composites map every node of a Graph to a rule; the first entry that matches wins.

The names and maps of the presets are zennit's where zennit has them, so that users can move.
Unlike there, a node that nothing matches raises.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Literal, TypeAlias, get_args

from relprop.errors import UnmatchedLayerError
from relprop.graph import (
    Activation,
    AdaptiveAvgPool,
    Add,
    AvgPool,
    BatchNorm,
    Clip,
    Concat,
    Constant,
    Conv,
    ConvTranspose,
    Dense,
    Embedding,
    Graph,
    Identity,
    Input,
    LocalResponseNorm,
    Maximum,
    MaxPool,
    Mean,
    Mul,
    Node,
    Operator,
    Pad,
    Permute,
    PReLU,
    Reshape,
    Slice,
    Softmax,
    UpsampleBilinear2d,
    UpsampleNearest2d,
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

_CONVOLUTIONS = (Conv, ConvTranspose)
_LAYERS = (*_CONVOLUTIONS, Dense)
"""The layers with weights: what "first linear layer" and integer positions count."""

_CONSTANT_WEIGHTS = (AvgPool, AdaptiveAvgPool, UpsampleBilinear2d, Mean, Add)
_MOVES = (Embedding, Identity, Reshape, Permute, Slice, Pad, Concat, UpsampleNearest2d)
_ACTIVATIONS = (Activation, Clip, PReLU)
_WITHOUT_RULE = (Input, Constant)

_OPERATORS: dict[str, type] = {operator.__name__: operator for operator in get_args(Operator)}

_APPLICABLE: dict[type, tuple[type, ...]] = {
    **dict.fromkeys(_LAYERS, (Epsilon, AlphaBeta, Gamma, ZBox, WSquare, Flat, Gradient, Zero)),
    **dict.fromkeys(_CONSTANT_WEIGHTS, (Epsilon, Gradient, Zero)),
    **dict.fromkeys(_ACTIVATIONS, (Pass, Gradient, Deconvolution, GuidedBackprop, Zero)),
    **dict.fromkeys(_MOVES, (Pass, Gradient, Zero)),
    Embedding: (Pass, Zero),
    BatchNorm: (Epsilon, Pass, Gradient, Zero),
    MaxPool: (WinnerTakesAll, Proportional, Gradient, Zero),
    LocalResponseNorm: (Pass, Taylor, Gradient, Zero),
    Maximum: (WinnerTakesAll, Gradient, Zero),
    Mul: (SignalTakesAll, HalfAndHalf, Gradient, Zero),
    Softmax: (),
}
"""Which rules an operator can have. A softmax has none: it is only supported at the end."""


@dataclass(frozen=True)
class First:
    """Matches the layers that touch an input: those reached without passing another layer.

    Behind an Embedding no layer touches the input: it reads learned vectors.
    """

    types: tuple[type, ...] = _LAYERS


Matcher = str | int | type | tuple[type, ...] | First | Callable[[Node], bool]
"""What selects nodes.

A node's name or an operator type's name; the position of a layer with weights (Conv, Dense)
in the graph's order, negative from the end; operator types, of which ``object`` is every one;
:class:`First`; a predicate.
"""

Initial: TypeAlias = Literal["value", "one"]
"""The relevance that a target starts with: its output value, or one."""


@dataclass(frozen=True)
class Entry:
    """One line of a composite: the nodes that ``matcher`` selects get ``rule``."""

    matcher: Matcher
    rule: Rule

    def __str__(self) -> str:
        return f"{describe(self.matcher)}: {self.rule}"


@dataclass(frozen=True)
class Composite:
    """A name and its entries in order; the first entry that matches a node gives its rule.

    ``initial`` is what targets start with where a run does not say otherwise. ``method`` is what
    is made of runs under these rules; where there is none, a run's relevance is the attribution.
    """

    name: str
    entries: tuple[Entry, ...]
    initial: Initial = "value"
    method: Method | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "entries", tuple(self.entries))
        for entry in self.entries:
            if not isinstance(entry, Entry):
                raise TypeError(f"entries must be relprop.composites.Entry, not {entry!r}.")

    def __str__(self) -> str:
        method = () if self.method is None else (f"  {self.method}",)
        return "\n".join([self.name, *(f"  {entry}" for entry in self.entries), *method])


def assign(
    composite: Composite,
    graph: Graph,
    overrides: Mapping[Matcher, Rule] | None = None,
    *,
    part: Graph | None = None,
) -> dict[str, Rule]:
    """Give every node but inputs and constants its rule.

    Parameters
    ----------
    composite
        The entries to match.
    graph
        The canonized graph.
    overrides
        Rules that come before the composite's, in the mapping's order.
    part
        Those nodes of the graph that need a rule, by default all. Names and positions are the
        whole graph's, so that they mean the same for each of its outputs.

    Raises
    ------
    UnmatchedLayerError
        If nothing matches a node, or the matching rule does not apply to its operator.
    ValueError
        If a name or a position selects no node.
    """
    rules, problems = match(composite, graph, overrides, part=part)
    if problems:
        raise UnmatchedLayerError(
            "\n".join(
                [
                    f"composite {composite.name!r} does not serve every node:",
                    *(f"  {problem}" for problem in problems.values()),
                    "its entries, the first match wins:",
                    *(f"  {entry}" for entry in _entries(composite, overrides)),
                    "give a node its rule by name, such as rules={'name': Pass()}, "
                    "or stop its relevance with Zero().",
                ]
            )
        )
    return rules


def match(
    composite: Composite,
    graph: Graph,
    overrides: Mapping[Matcher, Rule] | None = None,
    *,
    part: Graph | None = None,
) -> tuple[dict[str, Rule], dict[str, str]]:
    """Find rules as :func:`assign` does, and say of every node that has none why."""
    selected = [
        (_select(entry.matcher, graph), entry.rule) for entry in _entries(composite, overrides)
    ]
    rules: dict[str, Rule] = {}
    problems: dict[str, str] = {}
    for node in part or graph:
        if isinstance(node.operator, _WITHOUT_RULE):
            continue
        rule = next((rule for names, rule in selected if node.name in names), None)
        problem = _problem(node, rule)
        if problem:
            problems[node.name] = problem
        elif rule is not None:
            rules[node.name] = rule
    return rules, problems


def _entries(composite: Composite, overrides: Mapping[Matcher, Rule] | None) -> tuple[Entry, ...]:
    own = tuple(Entry(matcher, rule) for matcher, rule in (overrides or {}).items())
    return own + composite.entries


def _problem(node: Node, rule: Rule | None) -> str:
    """Say what is wrong with a node's rule; an empty string where nothing is."""
    applicable = _APPLICABLE[type(node.operator)]
    where = f"{node.name} ({node.type})"
    if not applicable:
        return f"{where}: no rule exists for it yet, except at the end of a model, where it is cut."
    if rule is None:
        return f"{where}: no entry matches."
    if not isinstance(rule, applicable):
        known = ", ".join(kind.__name__ for kind in applicable)
        return f"{where}: {rule} does not apply; its rules are {known}."
    if not isinstance(node.operator, _LAYERS) and getattr(rule, "bias", "absorb") != "absorb":
        return f"{where}: {rule} does not apply; bias must be 'absorb' there."
    return ""


def _select(matcher: Matcher, graph: Graph) -> set[str]:
    """Names of the nodes that a matcher selects."""
    if isinstance(matcher, First):
        return {n.name for n in _touching_input(graph) if isinstance(n.operator, matcher.types)}
    if isinstance(matcher, (type, tuple)):
        return {node.name for node in graph if isinstance(node.operator, matcher)}
    if isinstance(matcher, str):
        return _select_by_name(matcher, graph)
    if isinstance(matcher, int):
        layers = [node.name for node in graph if isinstance(node.operator, _LAYERS)]
        if not -len(layers) <= matcher < len(layers):
            raise ValueError(
                f"position {matcher} selects nothing: the graph has {len(layers)} layers with "
                "weights (convolutions and Dense), counted from 0."
            )
        return {layers[matcher]}
    return {node.name for node in graph if matcher(node)}


def _select_by_name(name: str, graph: Graph) -> set[str]:
    if name in graph.nodes:
        return {name}
    if name in _OPERATORS:
        return _select(_OPERATORS[name], graph)
    close = get_close_matches(name, [*graph.nodes, *_OPERATORS], n=5)
    hint = f"did you mean {', '.join(close)}?" if close else "print(graph) lists the nodes."
    raise ValueError(f"{name!r} is neither a node's name nor an operator type; {hint}")


def _touching_input(graph: Graph) -> list[Node]:
    """Layers with weights that read an input, directly or through nodes without weights."""
    unweighted = {node.name for node in graph.inputs}  # reached without passing a layer
    touching = []
    for node in graph:
        if unweighted.isdisjoint(node.inputs):
            continue
        if isinstance(node.operator, _LAYERS):
            touching.append(node)
        elif not isinstance(node.operator, Embedding):
            unweighted.add(node.name)
    return touching


def describe(matcher: Matcher) -> str:
    """Say in words which nodes a matcher selects."""
    if isinstance(matcher, First):
        return f"first {describe(matcher.types)}"
    if isinstance(matcher, tuple):
        return ", ".join(kind.__name__ for kind in matcher)
    if isinstance(matcher, type):
        return "every node" if matcher is object else matcher.__name__
    if isinstance(matcher, str):
        return repr(matcher)
    if isinstance(matcher, int):
        return f"layer {matcher}"
    return f"predicate {getattr(matcher, '__name__', repr(matcher))}"


def _composite(
    name: str, convolution: Rule, dense: Rule, *first: Entry, epsilon: float = 1e-6
) -> Composite:
    # A preset's epsilon is for layers with weights: a large one must not swallow what sums and
    # average pools hand down, which is theirs at zennit's 1e-6. A smaller one is a wish for
    # exactness, and that is theirs as well.
    return Composite(
        name,
        (
            *first,
            Entry(_CONVOLUTIONS, convolution),
            Entry(Dense, dense),
            Entry((*_CONSTANT_WEIGHTS, BatchNorm), Epsilon(min(epsilon, 1e-6))),
            Entry((MaxPool, Maximum), WinnerTakesAll()),
            Entry(Mul, SignalTakesAll()),
            Entry((*_ACTIVATIONS, *_MOVES, LocalResponseNorm), Pass()),
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
    first, dense = Entry(First(_CONVOLUTIONS), ZBox(low, high)), Epsilon(epsilon, bias)
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
