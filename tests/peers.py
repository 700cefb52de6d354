"""The other libraries as oracles: how they are imported, and zennit on whole networks."""

from __future__ import annotations

import copy
import operator
import os
import warnings
from collections.abc import Iterator, Sequence
from importlib import import_module
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, fx, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.conv import _ConvNd
from torch.nn.modules.pooling import _MaxPoolNd

from relprop import Graph

Gates = Sequence[NDArray[np.float32]]
"""What decided each ReLU (its output) and max pooling (its input) of a float32 run, in order."""


def peer(name: str) -> ModuleType:
    """Import a peer; skip without it, but never under CI, where `make peers` has run."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torchvision, which zennit imports, misses libjpeg
            return import_module(name)
    except ImportError as error:
        if os.environ.get("CI"):
            raise
        pytest.skip(f"{name} is not installed ({error}); `make peers` installs it")


def gates_of(graph: Graph, activations: dict[str, NDArray[np.float32]]) -> Gates:
    """What decided each ReLU and max pooling, in the order in which they run."""
    decided = []
    for node in graph:
        if node.type == "MaxPool":
            decided.append(activations[node.inputs[0]])
        elif node.type == "Activation" and node.operator.function in ("relu", "relu6"):
            decided.append(activations[node.name])
    return decided


def zennit_composite(name: str, low: float = 0.0, high: float = 0.0) -> Any:
    """Zennit's composite of a preset's name, or the same map made of its rules."""
    composites, rules, types = (peer(f"zennit.{part}") for part in ("composites", "rules", "types"))
    # Zennit knows no response norm, and its excitation_backprop no activations.
    norm = [(nn.LocalResponseNorm, rules.Pass()), (types.Activation, rules.Pass())]
    if name in composites.COMPOSITES:
        box = {"low": torch.tensor(low), "high": torch.tensor(high)}
        return composites.COMPOSITES[name](
            layer_map=norm, **(box if name == "epsilon_gamma_box" else {})
        )
    everywhere = norm + composites.layer_map_base()
    rule = {
        "epsilon": lambda: rules.Epsilon(epsilon=1e-6),
        "alpha2_beta1": lambda: rules.AlphaBeta(alpha=2, beta=1),
        "deep_taylor": rules.ZPlus,
    }[name]()
    if name != "deep_taylor":
        return composites.LayerMapComposite([*everywhere, (types.Linear, rule)])
    box = rules.ZBox(low=torch.tensor(low), high=torch.tensor(high))
    return composites.SpecialFirstLayerMapComposite(
        [*everywhere, (types.Linear, rule)], [(types.Linear, box)]
    )


def zennit_relevance(
    module: nn.Module,
    composite: Any,
    inputs: Sequence[NDArray[np.floating]],
    output_relevance: NDArray[np.floating],
    gates: Gates | None = None,
    dtype: torch.dtype = torch.float64,
) -> list[NDArray[np.floating]]:
    """Relevance of the inputs by zennit, on a copy of the module that is all modules."""
    canonizers = peer("zennit.canonizers")
    parts = as_modules(module, gates).to(dtype)
    for part in parts.modules():
        if isinstance(part, _BatchNorm):  # zennit's merge leaves eps in place, where var is 1
            part.running_var += part.eps
            part.eps = 0.0
    composite.canonizers = [canonizers.SequentialMergeBatchNorm()]
    data = [torch.tensor(x, dtype=dtype, requires_grad=True) for x in inputs]
    with composite.context(parts) as hooked:
        out = hooked(*data)
        found = torch.autograd.grad(out, data, torch.tensor(output_relevance, dtype=dtype))
    return [relevance.numpy() for relevance in found]


# --- Networks of modules alone -----------------------------------------------------------------


class StackedSum(nn.Module):
    """A sum of two branches in the form that zennit has a rule for."""

    def __init__(self) -> None:
        super().__init__()
        self.sum = peer("zennit.layer").Sum()

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        return self.sum(torch.stack([x, y], dim=-1))


class ReplayedReLU(nn.ReLU):
    """A ReLU that is open where a float32 run's was."""

    def __init__(self, gate: NDArray[np.float32]) -> None:
        super().__init__()
        self.open = torch.from_numpy(gate > 0)

    def forward(self, x: Tensor) -> Tensor:
        return torch.where(self.open, x, torch.zeros_like(x))


class ReplayedReLU6(nn.ReLU6):
    """A ReLU6 that is cut off where a float32 run's was."""

    def __init__(self, gate: NDArray[np.float32]) -> None:
        super().__init__()
        self.gate = torch.tensor(gate)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.where(self.gate > 0, x, torch.zeros_like(x))
        return torch.where(self.gate < 6, x, torch.full_like(x, 6.0))


class ReplayedMaxPool(nn.Module):
    """A max pooling that picks the winners of a float32 run."""

    def __init__(self, pool: _MaxPoolNd, gate: NDArray[np.float32]) -> None:
        super().__init__()
        find = getattr(nn.functional, f"max_pool{gate.ndim - 2}d_with_indices")
        where = (pool.kernel_size, pool.stride, pool.padding, pool.dilation, pool.ceil_mode)
        _, self.winners = find(torch.tensor(gate), *where)

    def forward(self, x: Tensor) -> Tensor:
        winners = self.winners
        return x.flatten(2).gather(2, winners.flatten(2)).view(winners.shape)


FUNCTIONS = {
    nn.functional.relu: lambda inplace=False: nn.ReLU(),
    torch.relu: nn.ReLU,
    nn.functional.max_pool2d: nn.MaxPool2d,
    nn.functional.adaptive_avg_pool2d: nn.AdaptiveAvgPool2d,
    nn.functional.avg_pool2d: nn.AvgPool2d,
    operator.add: StackedSum,
    operator.iadd: StackedSum,
    torch.add: StackedSum,
}
"""Functional calls and the modules that do the same."""


class Leaves(fx.Tracer):
    """Keeps layers whole that a front end may have subclassed (padding worked in, say)."""

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return isinstance(m, (_ConvNd, nn.Linear)) or super().is_leaf_module(
            m, module_qualified_name
        )


def as_modules(module: nn.Module, gates: Gates | None = None) -> nn.Module:
    """A copy whose every step is a module of its own, registered in order of use."""
    module = copy.deepcopy(module).eval()
    graph = Leaves().trace(module)
    # What only another output needs would take gates that were never drawn.
    graph.eliminate_dead_code(lambda node: node.op in ("placeholder", "output"))
    lookup = dict(module.named_modules())
    replayed = iter(gates) if gates is not None else None
    steps: dict[str, nn.Module] = {}
    for i, node in enumerate(graph.nodes):
        if node.op == "call_module":
            step = copy.deepcopy(lookup[node.target])
            if hasattr(step, "static_padding"):  # EfficientNet's
                step = PaddedConv2d(step)
        elif node.op == "call_function" and node.target in FUNCTIONS:
            branches = [a for a in node.args if isinstance(a, fx.Node)]
            options = [a for a in node.args if not isinstance(a, fx.Node)]
            step = FUNCTIONS[node.target](*options, **node.kwargs)
            node.args, node.kwargs = tuple(branches), {}
        else:
            continue
        node.op, node.target = "call_module", f"step{i}"
        steps[node.target] = _replaying(step, replayed)
    return fx.GraphModule(steps, graph)


class PaddedConv2d(nn.Conv2d):
    """A convolution that pads by itself, evenly or not, and has no child that does it."""

    def __init__(self, like: nn.Conv2d) -> None:
        super().__init__(
            like.in_channels,
            like.out_channels,
            like.kernel_size,
            like.stride,
            groups=like.groups,
            bias=like.bias is not None,
        )
        self.border = getattr(like.static_padding, "padding", (0, 0, 0, 0))
        self.load_state_dict(like.state_dict())

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(nn.functional.pad(x, self.border))


def _replaying(step: nn.Module, gates: Iterator[NDArray[np.float32]] | None) -> nn.Module:
    """The step with a float32 run's decisions in place of its own."""
    if isinstance(step, (nn.ReLU, nn.ReLU6)):
        step.inplace = False
    if gates is None:
        return step
    if isinstance(step, nn.ReLU6):
        return ReplayedReLU6(next(gates))
    if isinstance(step, nn.ReLU):
        return ReplayedReLU(next(gates))
    if isinstance(step, _MaxPoolNd):
        return ReplayedMaxPool(step, next(gates))
    return step
