"""The other libraries as oracles: how they are imported, and zennit on whole networks."""

from __future__ import annotations

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
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.pooling import _MaxPoolNd

from relprop import Graph
from relprop.benchmark import peers

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
    """Zennit's composite of a preset's name."""
    peer("zennit")
    return peers.zennit_composite(name, low, high)


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
            part.eps = 1e-30  # 0, which not every torch takes
    composite.canonizers = [canonizers.SequentialMergeBatchNorm()]
    data = [torch.tensor(x, dtype=dtype, requires_grad=True) for x in inputs]
    with composite.context(parts) as hooked:
        out = hooked(*data)
        found = torch.autograd.grad(out, data, torch.tensor(output_relevance, dtype=dtype))
    return [relevance.numpy() for relevance in found]


# --- Networks that replay a run -------------------------------------------------------------------


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


def as_modules(module: nn.Module, gates: Gates | None = None) -> nn.Module:
    """The network as modules alone, with a float32 run's decisions in place of its own."""
    parts = peers.as_modules(module)
    if gates is not None:
        replayed = iter(gates)
        for name, step in list(parts.named_children()):
            setattr(parts, name, _replaying(step, replayed))
    return parts


def _replaying(step: nn.Module, gates: Iterator[NDArray[np.float32]]) -> nn.Module:
    """The step with a float32 run's decisions, if it is one that decides."""
    if isinstance(step, nn.ReLU6):
        return ReplayedReLU6(next(gates))
    if isinstance(step, nn.ReLU):
        return ReplayedReLU(next(gates))
    if isinstance(step, _MaxPoolNd):
        return ReplayedMaxPool(step, next(gates))
    return step
