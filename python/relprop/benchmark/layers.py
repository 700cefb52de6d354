"""Each step of a network inside a whole run, its convolutions beside torch's."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

import relprop
from relprop import costs
from relprop.arrays import arrays_of
from relprop.benchmark.contenders import box_of, draw_batches, in_turn
from relprop.benchmark.floors import Ceilings, Works, works
from relprop.benchmark.networks import build
from relprop.benchmark.place import CPU, Place, Run
from relprop.benchmark.timing import take_turns, use_threads
from relprop.compile import compile_plan
from relprop.composites import assign, preset
from relprop.devices import gpu_of
from relprop.graph import Array, Conv, Graph, Node, Shape


@dataclass(frozen=True)
class Steps:
    """A network's steps inside runs of the whole, each with the best of its times."""

    network: str
    batch: int
    threads: int
    preset: str
    place: Place
    graph: Graph
    nodes: tuple[str, ...]
    """For each step the node it belongs to."""
    seconds: NDArray[np.float64]
    """(steps, 2): forward, and back."""
    works: Works

    def layers(self, repeat: int = 7, ceilings: Ceilings | None = None) -> Iterator[dict[str, Any]]:
        """Time torch's bare products beside every convolution.

        Ours are the layer's step, on real activations and with all that it fuses: bias, ReLU,
        message, ledger. Torch's are the products alone, on noise, in the faster memory format.
        GFLOP/s count one product, whatever a rule needs. ``ceilings`` are what floors are made of.
        """
        for node in self.graph:
            if not isinstance(node.operator, Conv):
                continue
            shape = self.graph[node.inputs[0]].shape
            theirs = by_torch(node.operator, shape, self.batch, repeat, self.place)
            ours = self._total(name == node.name for name in self.nodes)
            gflop = 2e-9 * self.batch * costs.multiply_adds(self.graph, node)
            record: dict[str, Any] = {
                **self.where,
                "layer": node.name,
                **geometry(self.graph, node),
                "gflop": gflop,
            }
            pairs = zip(ours, theirs, self.works[node.name])
            for way, (own, other, work) in zip(("forward", "backward"), pairs):
                record[way] = {
                    "relprop_seconds": own,
                    "torch_seconds": other,
                    "relprop_gflops": gflop / own,
                    "torch_gflops": gflop / other,
                }
                if ceilings is not None:
                    record[way]["floor_seconds"] = work.floor(self.batch, ceilings).seconds
            yield record

    def kinds(self, ceilings: Ceilings) -> Iterator[dict[str, Any]]:
        """Sum up the steps of each type of node, those that take the longest first."""
        types = [self.graph[name].type for name in self.nodes]
        totals = {kind: self._total(kind == other for other in types) for kind in {*types}}
        for kind in sorted(totals, key=lambda kind: (-sum(totals[kind]), kind)):
            forward, backward = totals[kind]
            own = [
                work
                for name, pair in self.works.items()
                if self.graph[name].type == kind
                for work in pair
            ]
            yield {
                **self.where,
                "kind": kind,
                "steps": types.count(kind),
                "forward_seconds": forward,
                "backward_seconds": backward,
                "gbytes": 1e-9 * sum(w.bytes(self.batch, ceilings.precision) for w in own),
                "floor_seconds": sum(w.floor(self.batch, ceilings).seconds for w in own),
            }

    def _total(self, chosen: Iterable[bool]) -> tuple[float, float]:
        forward, backward = self.seconds[[*chosen]].sum(axis=0)
        return float(forward), float(backward)

    @property
    def where(self) -> dict[str, Any]:
        """What was measured."""
        return {
            "network": self.network,
            "batch": self.batch,
            "threads": self.threads,
            "preset": self.preset,
        }


def measure_steps(
    network: str,
    shape: tuple[int, ...] | None,
    batch: int,
    threads: int,
    preset_name: str = "epsilon",
    repeat: int = 7,
    place: Place = CPU,
) -> Steps:
    """Time every step of a network by the core's stopwatch, the best of several runs.

    A GPU's stream tells when it came to each step and when it was done, so that launches count only
    where the GPU waits for them, as in small batches.
    """
    use_threads(threads, place)
    module, shape = build(network, shape)
    batches = draw_batches(batch, shape, place, place.rotation)
    graph = relprop.load(module, batches[0][:1].cpu()).graph
    rules = assign(preset(preset_name, **box_of(preset_name)), graph)
    gpu = gpu_of(place.device)
    compiled = compile_plan(graph, rules, gpu, place.precision)

    data = [place.given(images).reshape(batch, -1) for images in batches]
    arrays = arrays_of(data[0], gpu, "images")
    scores = arrays.empty((batch, int(np.prod(graph[graph.output].shape))))
    relevance = arrays.empty(tuple(data[0].shape))
    seconds = np.empty((compiled.plan.steps, 2))

    def explain(images: Any) -> None:
        compiled.plan.run(
            [images],
            scores,
            targets=np.zeros(batch, np.int64),
            relevance=[relevance],
            absorbed=np.empty((batch, compiled.plan.steps, 4)),
            totals=np.empty((batch, compiled.plan.tensors, 2)),
            seconds=seconds,
            stream=arrays.stream,
        )

    run = in_turn(explain, data)
    run()
    best = np.full_like(seconds, np.inf)
    for _ in range(repeat):
        run()
        np.minimum(best, seconds, out=best)
    nodes, counted = compiled.step_nodes, works(graph, rules, compiled)
    return Steps(network, batch, threads, preset_name, place, graph, nodes, best, counted)


def geometry(graph: Graph, node: Node) -> dict[str, Any]:
    """What a convolution looks like."""
    assert isinstance(node.operator, Conv)
    return {
        "kernel": list(node.operator.weight.shape[2:]),
        "stride": list(node.operator.stride),
        "groups": node.operator.groups,
        "input": list(graph[node.inputs[0]].shape),
        "output": list(node.shape),
    }


def by_torch(
    conv: Conv, shape: Shape, batch: int, repeat: int, place: Place = CPU
) -> tuple[float, float]:
    """Seconds of the forward and of the backward product, each in the faster memory format."""
    extent, sides = list(shape), []
    for axis, (before, after) in enumerate(conv.padding):
        if before != after:  # torch pads evenly alone: the zeros become part of the input
            extent[1 + axis] += before + after
        sides.append(before if before == after else 0)
    bias = None if conv.bias is None else place.operand(_tensor(conv.bias))
    tail: Any = (conv.stride, sides, conv.dilation, False, [0] * len(sides), conv.groups)
    formats: tuple[Any, ...] = {2: (torch.channels_last,), 3: (torch.channels_last_3d,)}.get(
        len(sides), ()
    )
    forward: dict[str, Run] = {}
    backward: dict[str, Run] = {}
    if not (place.only_channels_last and formats):
        formats = (torch.contiguous_format, *formats)
    for memory in formats:
        x = place.operand(_noise((batch, *extent))).contiguous(memory_format=memory)
        weight = place.operand(_tensor(conv.weight)).contiguous(memory_format=memory)
        y = torch.ops.aten.convolution(x, weight, bias, *tail)
        forward[str(memory)] = partial(torch.ops.aten.convolution, x, weight, bias, *tail)
        backward[str(memory)] = partial(
            torch.ops.aten.convolution_backward, y, x, weight, None, *tail, [True, False, False]
        )
    with torch.inference_mode():
        return _fastest(forward, repeat, place), _fastest(backward, repeat, place)


def _fastest(runs: Mapping[str, Run], repeat: int, place: Place) -> float:
    in_a_row = {name: partial(_repeat, run, place.in_a_row) for name, run in runs.items()}
    turns = take_turns(in_a_row, repeat, place).values()
    return min(turn.wall for own in turns for turn in own) / place.in_a_row


def _repeat(run: Run, times: int) -> None:
    for _ in range(times):
        run()


def _noise(shape: tuple[int, ...]) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(0))


def _tensor(array: Array) -> Tensor:
    return torch.from_numpy(np.array(array, np.float32))
