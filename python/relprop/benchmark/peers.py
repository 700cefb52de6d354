"""What the other libraries need: networks of modules alone, and zennit's composites."""

from __future__ import annotations

import copy
import operator
from collections.abc import Callable
from importlib import import_module
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.nn.modules.conv import _ConvNd


def zennit_composite(name: str, low: float = 0.0, high: float = 0.0) -> Any:
    """Zennit's composite of a preset's name, or the same map made of its rules."""
    composites, rules, types = (
        import_module(f"zennit.{part}") for part in ("composites", "rules", "types")
    )
    if name in ("deconvnet", "guided_backprop"):  # there of ReLU alone
        rule = rules.ReLUDeconvNet() if name == "deconvnet" else rules.ReLUGuidedBackprop()
        return composites.LayerMapComposite([((nn.ReLU, nn.ReLU6), rule)])
    # Zennit knows no response norm, and its excitation_backprop no activations.
    norm = [(nn.LocalResponseNorm, rules.Pass()), (types.Activation, rules.Pass())]
    if name in composites.COMPOSITES:
        box = {"low": torch.tensor(low), "high": torch.tensor(high)}
        return composites.COMPOSITES[name](
            layer_map=norm, **(box if name == "epsilon_gamma_box" else {})
        )
    if name == "gradient":
        return composites.LayerMapComposite([])  # what no rule matches
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


class StackedSum(nn.Module):
    """A sum of two branches in the form that zennit has a rule for."""

    def __init__(self) -> None:
        super().__init__()
        self.sum = import_module("zennit.layer").Sum()

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        return self.sum(torch.stack([x, y], dim=-1))


FUNCTIONS: dict[Callable[..., Any], Callable[..., nn.Module]] = {
    nn.functional.relu: lambda inplace=False: nn.ReLU(),
    torch.relu: nn.ReLU,
    nn.functional.max_pool2d: nn.MaxPool2d,
    nn.functional.adaptive_avg_pool2d: nn.AdaptiveAvgPool2d,
    nn.functional.avg_pool2d: nn.AvgPool2d,
}
"""Functional calls and the modules that do the same, but for sums."""

SUMS = (operator.add, operator.iadd, torch.add)


class Leaves(fx.Tracer):
    """Keeps layers whole that a front end may have subclassed (padding worked in, say)."""

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        """Say whether a module is a step."""
        known = super().is_leaf_module(m, module_qualified_name)
        return known or isinstance(m, (_ConvNd, nn.Linear))


def as_modules(module: nn.Module, add: Callable[[], nn.Module] = StackedSum) -> fx.GraphModule:
    """Copy a network so that every step is a module of its own, registered in order of use.

    The other libraries explain modules alone, and a module that is used twice not at all. ``add``
    makes the module that sums two branches.
    """
    module = copy.deepcopy(module).eval()
    graph = Leaves().trace(module)
    # What only another output needs is no step of this one.
    graph.eliminate_dead_code(lambda node: node.op in ("placeholder", "output"))
    lookup = dict(module.named_modules())
    steps: dict[str, nn.Module] = {}
    for i, node in enumerate(graph.nodes):
        if node.op == "call_module":
            step = copy.deepcopy(lookup[node.target])
            if hasattr(step, "static_padding"):  # EfficientNet's
                step = PaddedConv2d(step)
        elif node.op == "call_function" and (node.target in FUNCTIONS or node.target in SUMS):
            branches = [a for a in node.args if isinstance(a, fx.Node)]
            options = [a for a in node.args if not isinstance(a, fx.Node)]
            step = add() if node.target in SUMS else FUNCTIONS[node.target](*options, **node.kwargs)
            node.args, node.kwargs = tuple(branches), {}
        else:
            continue
        if isinstance(step, (nn.ReLU, nn.ReLU6)):
            step.inplace = False
        node.op, node.target = "call_module", f"step{i}"
        steps[node.target] = step
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
