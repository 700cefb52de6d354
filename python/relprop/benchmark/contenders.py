"""Who takes part: relprop, torch's two passes, and the other libraries where they can."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from importlib import import_module
from itertools import cycle
from typing import Any

import torch
from torch import Tensor, nn

import relprop
from relprop import composites
from relprop.benchmark import peers
from relprop.benchmark.place import Holding, Place, Run

BOX = {"low": -3.0, "high": 3.0}
"""What the images are drawn within, for the presets that need to know."""

Contender = Callable[[nn.Module, Sequence[Tensor], str, Place], Run]
"""From a network on the host, batches of images where they are explained in turn, a preset and
that place to what is timed."""


def in_turn(run: Callable[[Any], Any], batches: Iterable[Any]) -> Run:
    """Let every run take the next batch, so that no cache holds what it needs."""
    following = cycle(batches)
    return lambda: run(next(following))


def torch_forward(
    module: nn.Module, batches: Sequence[Tensor], preset: str, place: Place, memory: Any
) -> Run:
    """Torch's forward pass."""
    model = place.model(module, memory)

    def run(images: Tensor) -> Tensor:
        with torch.inference_mode(), place.autocast():
            return model(images)

    return in_turn(run, [images.clone(memory_format=memory) for images in batches])


def torch_gradient(
    module: nn.Module, batches: Sequence[Tensor], preset: str, place: Place, memory: Any
) -> Run:
    """Torch's forward pass and its backward pass to the input."""
    model = place.model(module, memory)
    data = [images.clone(memory_format=memory).requires_grad_() for images in batches]
    return in_turn(lambda images: gradient(model, images, place), data)


def torch_graph(
    module: nn.Module, batches: Sequence[Tensor], preset: str, place: Place, memory: Any
) -> Run:
    """Both passes as a CUDA graph, and the copy of images to where it reads them."""
    model = place.model(module, memory)
    read = batches[0].clone(memory_format=memory).requires_grad_()
    replay = place.captured(lambda: gradient(model, read, place))

    def run(images: Tensor) -> Tensor:
        with torch.no_grad():
            read.copy_(images)
        return replay()

    return in_turn(run, [images.clone(memory_format=memory) for images in batches])


def gradient(model: nn.Module, images: Tensor, place: Place) -> Tensor:
    """The top scores' gradient at the images."""
    with place.autocast():
        scores = model(images)
    return torch.autograd.grad(scores.max(dim=1).values.sum(), images)[0]


def by_relprop(module: nn.Module, batches: Sequence[Tensor], preset: str, place: Place) -> Run:
    """Relprop, compiled, with its ledger."""
    return relprop_run(relprop.load(module, batches[0][:1].cpu()), batches, preset, place)


def relprop_run(model: relprop.Model, batches: Sequence[Tensor], preset: str, place: Place) -> Run:
    """Compile a preset for a loaded model."""
    explainer = relprop.Explainer(
        model,
        composites.preset(preset, **box_of(preset)),
        device=place.device,
        precision=place.precision,
    )
    data = [place.given(images) for images in batches]
    return in_turn(lambda images: explainer(images).relevance, data)


def by_zennit(module: nn.Module, batches: Sequence[Tensor], preset: str, place: Place) -> Run:
    """Zennit, its hooks in place and batch norm merged."""
    composite = peers.zennit_composite(preset, **BOX)
    composite.canonizers = [import_module("zennit.canonizers").SequentialMergeBatchNorm()]
    model = peers.as_modules(module).to(place.device)
    composite.register(model)

    def run(images: Tensor) -> Tensor:
        with place.autocast():  # on the way back as well, where its hooks run modules again
            scores = model(images)
            top = scores.max(dim=1, keepdim=True).values
            start = torch.where(scores == top, scores, 0.0)
            return torch.autograd.grad(scores, images, start)[0]

    def drop() -> None:  # through nodes of torch's graph they hold their hook, unseen by Python
        for hook in composite.hook_refs:
            hook.stored_tensors.clear()

    return Holding(in_turn(run, [images.clone().requires_grad_() for images in batches]), drop)


def by_captum(module: nn.Module, batches: Sequence[Tensor], preset: str, place: Place) -> Run:
    """Captum, which has epsilon's rule for every layer that it knows."""
    attr = import_module("captum.attr")
    _only_epsilon(preset)
    add = import_module("captum.attr._utils.custom_modules").Addition_Module
    model = peers.as_modules(module, add).to(place.device)
    rule = import_module("captum.attr._utils.lrp_rules").EpsilonRule
    attribute = attr.LRP(model).attribute

    def run(images: Tensor) -> Tensor:
        for part in model.modules():
            if isinstance(part, nn.Flatten):  # it asks for a rule there, and forgets it afterwards
                part.rule = rule()
        with place.autocast():
            with torch.no_grad():
                target = model(images).argmax(dim=1)
            return attribute(images, target=target).detach()

    def drop() -> None:  # it means to, but misspells their name
        for part in model.modules():
            vars(part).pop("activations", None)

    return Holding(in_turn(run, [images.clone().requires_grad_() for images in batches]), drop)


def by_lxt(module: nn.Module, batches: Sequence[Tensor], preset: str, place: Place) -> Run:
    """LXT, whose rules are for the layers of transformers."""
    import_module("lxt")
    if any(isinstance(part, nn.modules.conv._ConvNd) for part in module.modules()):
        raise NotImplementedError("it has no rule for convolutions")
    raise NotImplementedError("it explains networks that are written with its own functions")


def by_autolrp(module: nn.Module, batches: Sequence[Tensor], preset: str, place: Place) -> Run:
    """AutoLRP, one sample after the other, as it takes them."""
    autolrp = import_module("autolrp")
    _only_epsilon(preset)
    config = autolrp.LRPConfig(eps=1e-6)
    model = copy.deepcopy(module).to(place.device)

    def run(images: Tensor) -> Tensor:
        relevance = []
        for image in images:
            data = autolrp.tensor(image[None])
            score = model(data).max()
            score.lrp(config=config)
            relevance.append(data.relevance.detach() * float(score))  # it starts from one
        return torch.cat(relevance)

    return in_turn(run, batches)


def _only_epsilon(preset: str) -> None:
    if preset != "epsilon":
        raise NotImplementedError("only epsilon is asked of it")


def box_of(preset: str) -> dict[str, float]:
    """The bounds of the images, where a preset needs them."""
    return BOX if "low" in composites.parameters(preset) else {}


def _in(memory: Any, passes: Callable[..., Run]) -> Contender:
    return partial(passes, memory=memory)


FORWARD: dict[str, Contender] = {
    "torch forward": _in(torch.contiguous_format, torch_forward),
    "torch forward, channels last": _in(torch.channels_last, torch_forward),
}
GRADIENT: dict[str, Contender] = {
    "torch gradient": _in(torch.contiguous_format, torch_gradient),
    "torch gradient, channels last": _in(torch.channels_last, torch_gradient),
}
GRAPH: dict[str, Contender] = {
    "torch gradient, CUDA graph": _in(torch.channels_last, torch_graph),
}
"""What torch can do on a GPU alone, with networks that a graph can hold."""


def of_torch(passes: Mapping[str, Contender], place: Place) -> dict[str, Contender]:
    """Those of torch's passes that take part in a place."""
    return {
        name: make
        for name, make in passes.items()
        if not place.only_channels_last or name.endswith("channels last")
    }


PEERS: dict[str, Contender] = {
    "zennit": by_zennit,
    "captum": by_captum,
    "lxt": by_lxt,
    "autolrp": by_autolrp,
}
CONTENDERS: dict[str, Contender] = {**FORWARD, **GRADIENT, "relprop": by_relprop, **PEERS}
"""Everybody by name."""


def draw_images(batch: int, shape: tuple[int, ...], seed: int = 0) -> Tensor:
    """Noise within :data:`BOX`, the same for the same seed."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(batch, *shape, generator=generator).clamp_(BOX["low"], BOX["high"])


def draw_batches(batch: int, shape: tuple[int, ...], place: Place, count: int) -> list[Tensor]:
    """So many batches of noise where they are explained."""
    return [place.tensor(draw_images(batch, shape, seed)) for seed in range(count)]
