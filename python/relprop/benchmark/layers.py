"""Each convolution of a network: the core inside a whole run, beside oneDNN through torch."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

import relprop
from relprop import costs
from relprop.benchmark.contenders import Run, box_of, draw_images
from relprop.benchmark.networks import build
from relprop.benchmark.timing import take_turns, use_threads
from relprop.compile import compile_plan
from relprop.composites import assign, preset
from relprop.graph import Array, Conv, Shape


def measure_layers(
    network: str,
    shape: tuple[int, ...] | None,
    batch: int,
    threads: int,
    preset_name: str = "epsilon",
    repeat: int = 7,
) -> Iterator[dict[str, Any]]:
    """Time the forward and the backward product of every convolution, the best of several runs.

    Ours are the layer's step inside a run of the whole network, on real activations and with all
    that the step fuses: bias, ReLU, message, ledger. Torch's are the products alone, on noise, in
    the faster memory format. GFLOP/s count one product, whatever a rule needs.
    """
    use_threads(threads)
    module, shape = build(network, shape)
    images = draw_images(batch, shape)
    graph = relprop.load(module, images[:1]).graph
    rules = assign(preset(preset_name, **box_of(preset_name)), graph)
    compiled = compile_plan(graph, rules)

    data = images.numpy().reshape(batch, -1)
    scores = np.empty((batch, int(np.prod(graph[graph.output].shape))), np.float32)
    seconds = np.empty((compiled.plan.steps, 2))

    def run() -> None:
        compiled.plan.run(
            [data],
            scores,
            targets=np.zeros(batch, np.int64),
            relevance=[np.empty_like(data)],
            absorbed=np.empty((batch, compiled.plan.steps, 4)),
            totals=np.empty((batch, compiled.plan.tensors, 2)),
            seconds=seconds,
        )

    run()
    best = np.full_like(seconds, np.inf)
    for _ in range(repeat):
        run()
        np.minimum(best, seconds, out=best)

    for node in graph:
        if not isinstance(node.operator, Conv):
            continue
        own = [i for i, name in enumerate(compiled.step_nodes) if name == node.name]
        theirs = by_torch(node.operator, graph[node.inputs[0]].shape, batch, repeat)
        gflop = 2e-9 * batch * costs.multiply_adds(graph, node)
        record: dict[str, Any] = {
            "network": network,
            "batch": batch,
            "threads": threads,
            "preset": preset_name,
            "layer": node.name,
            "kernel": list(node.operator.weight.shape[2:]),
            "stride": list(node.operator.stride),
            "groups": node.operator.groups,
            "input": list(graph[node.inputs[0]].shape),
            "output": list(node.shape),
            "gflop": gflop,
        }
        for i, way in enumerate(("forward", "backward")):
            ours = float(best[own, i].sum())
            record[way] = {
                "relprop_seconds": ours,
                "torch_seconds": theirs[i],
                "relprop_gflops": gflop / ours,
                "torch_gflops": gflop / theirs[i],
            }
        yield record


def by_torch(conv: Conv, shape: Shape, batch: int, repeat: int) -> tuple[float, float]:
    """Seconds of the forward and of the backward product, each in the faster memory format."""
    extent, sides = list(shape), []
    for axis, (before, after) in enumerate(conv.padding):
        if before != after:  # torch pads evenly alone: the zeros become part of the input
            extent[1 + axis] += before + after
        sides.append(before if before == after else 0)
    bias = None if conv.bias is None else _tensor(conv.bias)
    tail: Any = (conv.stride, sides, conv.dilation, False, [0] * len(sides), conv.groups)
    formats = {2: (torch.channels_last,), 3: (torch.channels_last_3d,)}.get(len(sides), ())
    forward: dict[str, Run] = {}
    backward: dict[str, Run] = {}
    for memory in (torch.contiguous_format, *formats):
        x = _noise((batch, *extent)).contiguous(memory_format=memory)
        weight = _tensor(conv.weight).contiguous(memory_format=memory)
        y = torch.ops.aten.convolution(x, weight, bias, *tail)
        forward[str(memory)] = partial(torch.ops.aten.convolution, x, weight, bias, *tail)
        backward[str(memory)] = partial(
            torch.ops.aten.convolution_backward, y, x, weight, None, *tail, [True, False, False]
        )
    with torch.inference_mode():
        return _fastest(forward, repeat), _fastest(backward, repeat)


def _fastest(runs: Mapping[str, Run], repeat: int) -> float:
    return min(turn.wall for turns in take_turns(runs, repeat).values() for turn in turns)


def _noise(shape: tuple[int, ...]) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(0))


def _tensor(array: Array) -> Tensor:
    return torch.from_numpy(np.array(array, np.float32))
