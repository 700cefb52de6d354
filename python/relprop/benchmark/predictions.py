"""What runs would take at least on a machine that is not there, from what it gives at best."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import relprop
from relprop import costs
from relprop.benchmark.floors import Ceilings, Works, total, works_under
from relprop.benchmark.layers import geometry
from relprop.benchmark.networks import build
from relprop.graph import Conv, Graph


def predict(
    network: str,
    shape: tuple[int, ...] | None,
    batches: Sequence[int],
    presets: Sequence[str],
    ceilings: Ceilings,
) -> Iterator[dict[str, Any]]:
    """Yield the floor of a network's runs, and how it compares with that of its gradient."""
    module, shape = build(network, shape)
    graph = relprop.load(module, shape).graph
    gradient = works_under(graph, "gradient")
    for preset in presets:
        counted = works_under(graph, preset)
        for batch in batches:
            floor = total(counted, batch, ceilings)
            where = {"network": network, "batch": batch, "preset": preset}
            yield {
                **where,
                **floor,
                "ratio": floor["seconds"] / total(gradient, batch, ceilings)["seconds"],
                "layers": [
                    {**where, **layer} for layer in shares_of_rate(graph, counted, batch, ceilings)
                ],
            }


def shares_of_rate(
    graph: Graph, counted: Works, batch: int, ceilings: Ceilings
) -> Iterator[dict[str, Any]]:
    """For each convolution the most of the rate of products that its floors leave it.

    As a layer's GFLOP/s, it counts one product in either pass, whatever a rule needs.
    """
    for name, pair in counted.items():
        if isinstance(graph[name].operator, Conv):
            gflop = 2e-9 * batch * costs.multiply_adds(graph, graph[name])
            record: dict[str, Any] = {"layer": name, **geometry(graph, graph[name]), "gflop": gflop}
            for way, work in zip(("forward", "backward"), pair):
                seconds = work.floor(batch, ceilings).seconds
                record[way] = {
                    "floor_seconds": seconds,
                    "share_of_rate": gflop / (1e-9 * ceilings.operations * seconds),
                }
            yield record
