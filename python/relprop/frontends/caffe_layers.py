"""One small function per type of Caffe's layers: what it is in the Graph.

:data:`TABLE` maps layer types to these functions. Each takes a :class:`Layer`, adds nodes to its
Graph and returns the name of the last (a list where the layer has several tops), or raises
:class:`Unsupported` with the reason.
"""

from __future__ import annotations

import math

import numpy as np

from relprop.frontends import caffe_channels, caffe_moves
from relprop.frontends.caffe_layer import Converter, Layer, finite, listed
from relprop.frontends.conversion import Unsupported, clipping, power, registering
from relprop.graph import (
    Activation,
    Add,
    Dense,
    Function,
    Maximum,
    Mean,
    Mul,
    Reshape,
    Shape,
    Softmax,
)

TABLE: dict[str, Converter] = {**caffe_channels.TABLE, **caffe_moves.TABLE}
_converts = registering(TABLE)


@_converts("InnerProduct")
def _inner_product(layer: Layer) -> str:
    layer.require_one_input()
    settings = layer.message.inner_product_param
    axis = layer.axis(settings.axis)
    kept, features, out = layer.shape[:axis], math.prod(layer.shape[axis:]), settings.num_output
    if out < 1:
        raise ValueError(f"num_output must be positive, not {out}.")
    shapes: list[Shape] = [(features, out) if settings.transpose else (out, features)]
    if settings.bias_term:
        shapes.append((out,))
    weight, *bias = layer.blobs(*shapes)
    if settings.transpose:
        weight = np.ascontiguousarray(weight.T)
    source = layer.inputs[0]
    if layer.shape != (*kept, features):
        source = layer.add(Reshape((*kept, features)), part="flatten")
    return layer.add(Dense(weight, bias[0] if bias else None), source)


@_converts("ReLU")
def _relu(layer: Layer) -> str:
    layer.require_one_input()
    slope = finite("negative_slope", layer.message.relu_param.negative_slope)
    return layer.add(Activation("leaky_relu", slope) if slope else Activation("relu"))


@_converts("ELU")
def _elu(layer: Layer) -> str:
    layer.require_one_input()
    return layer.add(Activation("elu", finite("alpha", layer.message.elu_param.alpha)))


@_converts("Swish")
def _swish(layer: Layer) -> str:
    layer.require_one_input()
    if layer.message.swish_param.beta != 1:
        raise Unsupported(f"beta is {layer.message.swish_param.beta}")
    return layer.add(Activation("silu"))


@_converts("Clip")
def _clip(layer: Layer) -> str:
    layer.require_one_input()
    return layer.add(clipping(layer.message.clip_param.min, layer.message.clip_param.max))


@_converts("AbsVal")
def _absolute(layer: Layer) -> str:
    layer.require_one_input()
    return _sizes(layer)


def _sizes(layer: Layer, part: str = "") -> str:
    """Values without their signs: the larger of each and its negative."""
    (source,) = layer.inputs
    return layer.add(Maximum(), source, layer.scaled(source, -1.0, "negative"), part=part)


@_converts("Power")
def _power(layer: Layer) -> str:
    layer.require_one_input()
    settings = layer.message.power_param
    exponent, scale, shift = (finite(n, getattr(settings, n)) for n in ("power", "scale", "shift"))
    if exponent == 1 and shift:
        return _shifted(layer, scale, shift)
    return layer.add(power(exponent), _shifted(layer, scale, shift, "sum"))


@_converts("Exp")
def _exponential(layer: Layer) -> str:
    layer.require_one_input()
    settings = layer.message.exp_param
    base, scale, shift = (finite(n, getattr(settings, n)) for n in ("base", "scale", "shift"))
    if base != -1 and base <= 0:
        raise ValueError(f"base must be positive, or -1 for e, not {base}.")
    steepness = 1.0 if base == -1 else math.log(base)
    return layer.add(
        Activation("exp"), _shifted(layer, steepness * scale, steepness * shift, "sum")
    )


def _shifted(layer: Layer, scale: float, shift: float, part: str = "") -> str:
    """The input times a number, plus another one; nothing is added for 1 and 0."""
    name = layer.inputs[0]
    if scale != 1:
        name = layer.scaled(name, scale, "scale")
    return layer.add(Add(), name, layer.constant(shift, "shift"), part=part) if shift else name


@_converts("Reduction")
def _reduction(layer: Layer) -> str:
    """Over all axes from one on."""
    layer.require_one_input()
    settings = layer.message.reduction_param
    axes = range(layer.axis(settings.axis), len(layer.shape))
    factor = finite("coeff", settings.coeff)
    if settings.operation != 4:
        factor *= math.prod(layer.shape[axes.start :])
    name = layer.inputs[0]
    if settings.operation == 2:
        name = _sizes(layer, "sizes")
    elif settings.operation == 3:
        name = layer.add(power(2), part="squares")
    mean = Mean(tuple(axes))
    if factor == 1:
        return layer.add(mean, name)
    return layer.add(Mul(), layer.add(mean, name, part="mean"), layer.constant(factor, "coeff"))


@_converts("Softmax")
def _softmax(layer: Layer) -> str:
    layer.require_one_input()
    return layer.add(Softmax(layer.axis(layer.message.softmax_param.axis)))


@_converts("Eltwise")
def _eltwise(layer: Layer) -> str:
    settings = layer.message.eltwise_param
    shapes = {layer.graph[name].shape for name in layer.inputs}
    if len(layer.inputs) < 2 or len(shapes) > 1:
        raise ValueError(f"it needs two or more bottoms of one shape, not {listed([*shapes])}.")
    if len(settings.coeff) not in (0, len(layer.inputs)):
        raise ValueError(f"it has {len(settings.coeff)} coefficients for its bottoms.")
    if settings.operation == 0:
        if settings.coeff:
            raise ValueError("it has coefficients for a product.")
        product, *rest = layer.inputs
        for index, factor in enumerate(rest):
            last = index == len(rest) - 1
            product = layer.add(Mul(), product, factor, part="" if last else str(index))
        return product
    if settings.operation == 2:
        return layer.add(Maximum())
    branches = [
        source if factor == 1 else layer.scaled(source, finite("coeff", factor), f"{index}")
        for index, (source, factor) in enumerate(
            zip(layer.inputs, settings.coeff or [1.0] * len(layer.inputs))
        )
    ]
    return layer.add(Add(), *branches)


_FUNCTIONS: dict[str, Function] = {"BNLL": "softplus", "Sigmoid": "sigmoid", "TanH": "tanh"}


@_converts(*_FUNCTIONS)
def _function(layer: Layer) -> str:
    layer.require_one_input()
    return layer.add(Activation(_FUNCTIONS[layer.type]))
