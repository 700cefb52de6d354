"""Who takes part: relprop, torch's two passes, and the other libraries where they can."""

from __future__ import annotations

import copy
from collections.abc import Callable
from importlib import import_module
from typing import Any

import torch
from torch import Tensor, nn

import relprop
from relprop import composites
from relprop.benchmark import peers

BOX = {"low": -3.0, "high": 3.0}
"""What the images are drawn within, for the presets that need to know."""

Run = Callable[[], Any]
"""One forward pass, or one with the pass back that returns what arrives at the input."""


def torch_forward(module: nn.Module, images: Tensor, preset: str, memory: Any) -> Run:
    """Torch's forward pass."""
    model = in_format(module, memory)
    data = images.clone(memory_format=memory)

    def run() -> Tensor:
        with torch.inference_mode():
            return model(data)

    return run


def torch_gradient(module: nn.Module, images: Tensor, preset: str, memory: Any) -> Run:
    """Torch's forward pass and its backward pass to the input."""
    model = in_format(module, memory)
    data = images.clone(memory_format=memory).requires_grad_()

    def run() -> Tensor:
        scores = model(data)
        return torch.autograd.grad(scores.max(dim=1).values.sum(), data)[0]

    return run


def in_format(module: nn.Module, memory: Any) -> nn.Module:
    """The module as it is, or a copy that is channels last."""
    if memory == torch.contiguous_format:
        return module
    return copy.deepcopy(module).to(memory_format=memory)


def by_relprop(module: nn.Module, images: Tensor, preset: str) -> Run:
    """Relprop, compiled, with its ledger."""
    return relprop_run(relprop.load(module, images[:1]), images, preset)


def relprop_run(model: relprop.Model, images: Tensor, preset: str) -> Run:
    """Compile a preset for a loaded model."""
    explainer = relprop.Explainer(model, composites.preset(preset, **box_of(preset)))
    data = images.numpy()
    return lambda: explainer(data).relevance


def by_zennit(module: nn.Module, images: Tensor, preset: str) -> Run:
    """Zennit, its hooks in place and batch norm merged."""
    composite = peers.zennit_composite(preset, **BOX)
    composite.canonizers = [import_module("zennit.canonizers").SequentialMergeBatchNorm()]
    model = peers.as_modules(module)
    composite.register(model)
    data = images.clone().requires_grad_()

    def run() -> Tensor:
        scores = model(data)
        top = scores.max(dim=1, keepdim=True).values
        return torch.autograd.grad(scores, data, torch.where(scores == top, scores, 0.0))[0]

    return run


def by_captum(module: nn.Module, images: Tensor, preset: str) -> Run:
    """Captum, which has epsilon's rule for every layer that it knows."""
    attr = import_module("captum.attr")
    _only_epsilon(preset)
    add = import_module("captum.attr._utils.custom_modules").Addition_Module
    model = peers.as_modules(module, add)
    rule = import_module("captum.attr._utils.lrp_rules").EpsilonRule
    attribute = attr.LRP(model).attribute
    data = images.clone().requires_grad_()

    def run() -> Tensor:
        for part in model.modules():
            if isinstance(part, nn.Flatten):  # it asks for a rule there, and forgets it afterwards
                part.rule = rule()
        with torch.no_grad():
            target = model(data).argmax(dim=1)
        return attribute(data, target=target).detach()

    return run


def by_lxt(module: nn.Module, images: Tensor, preset: str) -> Run:
    """LXT, whose rules are for the layers of transformers."""
    import_module("lxt")
    if any(isinstance(part, nn.modules.conv._ConvNd) for part in module.modules()):
        raise NotImplementedError("it has no rule for convolutions")
    raise NotImplementedError("it explains networks that are written with its own functions")


def by_autolrp(module: nn.Module, images: Tensor, preset: str) -> Run:
    """AutoLRP, one sample after the other, as it takes them."""
    autolrp = import_module("autolrp")
    _only_epsilon(preset)
    config = autolrp.LRPConfig(eps=1e-6)
    model = copy.deepcopy(module)

    def run() -> Tensor:
        relevance = []
        for image in images:
            data = autolrp.tensor(image[None])
            score = model(data).max()
            score.lrp(config=config)
            relevance.append(data.relevance.detach() * float(score))  # it starts from one
        return torch.cat(relevance)

    return run


def _only_epsilon(preset: str) -> None:
    if preset != "epsilon":
        raise NotImplementedError("only epsilon is asked of it")


def box_of(preset: str) -> dict[str, float]:
    """The bounds of the images, where a preset needs them."""
    return BOX if "low" in composites.parameters(preset) else {}


Contender = Callable[[nn.Module, Tensor, str], Run]
"""From a network, its images and a preset to what is timed."""


def _in(memory: Any, passes: Callable[..., Run]) -> Contender:
    return lambda module, images, preset: passes(module, images, preset, memory)


FORWARD: dict[str, Contender] = {
    "torch forward": _in(torch.contiguous_format, torch_forward),
    "torch forward, channels last": _in(torch.channels_last, torch_forward),
}
GRADIENT: dict[str, Contender] = {
    "torch gradient": _in(torch.contiguous_format, torch_gradient),
    "torch gradient, channels last": _in(torch.channels_last, torch_gradient),
}
PEERS: dict[str, Contender] = {
    "zennit": by_zennit,
    "captum": by_captum,
    "lxt": by_lxt,
    "autolrp": by_autolrp,
}
CONTENDERS: dict[str, Contender] = {**FORWARD, **GRADIENT, "relprop": by_relprop, **PEERS}
"""Everybody by name."""


def draw_images(batch: int, shape: tuple[int, ...]) -> Tensor:
    """Noise within :data:`BOX`, the same every time."""
    generator = torch.Generator().manual_seed(0)
    return torch.randn(batch, *shape, generator=generator).clamp_(BOX["low"], BOX["high"])
