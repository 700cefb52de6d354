"""What perturbation analysis costs beside bare forward passes, and beside Quantus.

    python benchmarks/evaluate.py [--network squeezenet] [--images 25] [--batch 32] [-o out.json]

First the paper's protocol: squares of 9 pixels, 100 steps, 10 repeats, uniform noise, most relevant
first and at random, one method. After each of its forward passes comes a bare one, of as many
arrays that are ready, so that a noisy machine disturbs both alike. Then one curve (squares of 8
pixels, which both cut alike, constant, most relevant first) by Quantus' RegionPerturbation with
torch, by relprop, and torch's bare forward passes, all images at once, in turns. Maps are made
beforehand. The network has random weights.
"""

from __future__ import annotations

import argparse
import json
import os
import time
import warnings
from collections.abc import Callable, Iterator
from importlib.metadata import version
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

import relprop
from relprop import Explainer, _core
from relprop.benchmark.networks import build
from relprop.evaluation import (
    Constant,
    CurveRequest,
    CurveTask,
    Perturbing,
    Uniform,
    grid,
    perturbation_curve,
)

REGION = 9
SQUARE = 8
"""A side that divides 224: Quantus pads on both sides where it does not."""


class Forward:
    """An Explainer's forward pass, and after each a bare one of as many arrays that are ready."""

    def __init__(self, explainer: Explainer, ready: NDArray[np.float32]) -> None:
        self.explainer = explainer
        self.ready = ready
        self.samples = 0
        self.seconds = 0.0
        self.bare = 0.0

    def __call__(self, images: NDArray[np.float32]) -> Any:
        begun = time.perf_counter()
        scores = self.explainer.forward(images)
        between = time.perf_counter()
        self.explainer.forward(self.ready[: len(images)])
        self.bare += time.perf_counter() - between
        self.seconds += between - begun
        self.samples += len(images)
        return scores


def timed(run: Callable[[], Any]) -> float:
    begun = time.perf_counter()
    run()
    return time.perf_counter() - begun


def measure_protocol(
    explainer: Explainer, images: NDArray[np.float32], given: argparse.Namespace
) -> dict[str, Any]:
    """The whole protocol and bare forward passes, batch by batch in turns."""
    relevance = explainer(images).relevance
    labels = grid(*images.shape[2:], REGION)
    noise = Uniform(-2.0, 2.0)
    ready = np.random.default_rng(0).uniform(-2, 2, (given.batch, *images.shape[1:]))
    forward = Forward(explainer, ready.astype(np.float32))
    perturbing = Perturbing(forward, steps=given.steps, repeats=given.repeats, batch=given.batch)

    def tasks() -> Iterator[CurveTask]:
        for i, image in enumerate(images):
            morf = CurveRequest(labels, noise, "morf", relevance[i])
            yield CurveTask(str(i), image, [morf, CurveRequest(labels, noise, "random")])

    seen: list[tuple[float, ...]] = [(time.perf_counter(), 0.0, 0.0, 0)]
    for _ in perturbing(tasks()):
        seen.append((time.perf_counter(), forward.seconds, forward.bare, forward.samples))
    whole, inside, bare, samples = np.diff(np.array(seen), axis=0).T
    protocol = whole - bare
    return {
        "samples": forward.samples,
        "protocol_per_second": (samples / protocol).tolist(),
        "bare_per_second": (samples / bare).tolist(),
        "ratio": bare.sum() / protocol.sum(),
        "median_ratio": float(np.median(bare / protocol)),
        "share_of_time_in_forward": inside.sum() / protocol.sum(),
    }


def measure_quantus(
    module: nn.Module,
    explainer: Explainer,
    images: NDArray[np.float32],
    given: argparse.Namespace,
) -> dict[str, Any]:
    """One curve of every image by Quantus and by relprop, in turns."""
    import quantus

    result = explainer(images)
    maps = result.relevance.sum(axis=1, keepdims=True)
    target = result.target
    metric = quantus.RegionPerturbation(
        patch_size=SQUARE,
        regions_evaluation=given.steps,
        perturb_baseline=0.0,
        disable_warnings=True,
    )
    found: dict[str, Any] = {}

    def by_quantus() -> None:
        found["quantus"] = metric(
            model=module, x_batch=images, y_batch=target, a_batch=maps, softmax=False
        )

    def by_relprop() -> None:
        found["relprop"] = perturbation_curve(
            explainer,
            images,
            maps,
            perturbation=Constant(0.0),
            region=SQUARE,
            steps=given.steps,
            target=target,
            batch=given.batch,
        )

    def by_torch() -> None:
        with torch.no_grad():
            for _ in range(given.steps + 1):
                module(torch.from_numpy(images))

    contenders = {"quantus": by_quantus, "relprop": by_relprop, "torch forward": by_torch}
    seconds: dict[str, list[float]] = {name: [] for name in contenders}
    for _ in range(given.turns):
        for name, run in contenders.items():
            seconds[name].append(timed(run))
    scores = found["relprop"].scores[:, 0]
    drops, theirs = scores[:, :1] - scores[:, 1:], np.array(found["quantus"])
    return {
        "seconds": seconds,
        "times_as_fast": median(seconds["quantus"]) / median(seconds["relprop"]),
        "largest_difference": float(np.abs(drops[:, : theirs.shape[1]] - theirs).max()),
        "largest_drop": float(np.abs(theirs).max()),
    }


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    options.add_argument("--network", default="squeezenet")
    options.add_argument("--shape", default="3,224,224", help="of an image")
    options.add_argument("--images", type=int, default=25)
    options.add_argument("--steps", type=int, default=100)
    options.add_argument("--repeats", type=int, default=10)
    options.add_argument("--batch", type=int, default=32)
    options.add_argument("--turns", type=int, default=3, help="beside Quantus")
    options.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    options.add_argument("--no-quantus", action="store_true")
    options.add_argument("-o", "--output", type=Path, help="a JSON file")
    given = options.parse_args()
    warnings.simplefilter("ignore")  # of Quantus, once for every image and step
    relprop.set_threads(given.threads)
    torch.set_num_threads(given.threads)

    module, shape = build(given.network, tuple(map(int, given.shape.split(","))))
    explainer = Explainer(relprop.load(module, shape), "epsilon_plus_flat")
    images = np.random.default_rng(1).uniform(-2, 2, (given.images, *shape)).astype(np.float32)
    explainer.forward(images[: given.batch])  # warms up
    report: dict[str, Any] = {
        "network": given.network,
        "images": given.images,
        "steps": given.steps,
        "repeats": given.repeats,
        "batch": given.batch,
        "threads": given.threads,
        "instruction_set": _core.instruction_set(),
        "versions": {name: version(name) for name in ("numpy", "torch")},
        "protocol": measure_protocol(explainer, images, given),
    }
    print(f"{given.network}, {given.images} images, batches of {given.batch}")
    protocol = report["protocol"]
    for name in ("bare", "protocol"):
        rates = protocol[f"{name}_per_second"]
        print(
            f"{name + ' forward':<18} {median(rates):7.1f} images a second "
            f"({min(rates):.1f} to {max(rates):.1f})"
        )
    print(
        f"protocol / bare    {protocol['ratio']:7.1%} (median {protocol['median_ratio']:.1%}); "
        f"time in forward {protocol['share_of_time_in_forward']:.1%}"
    )
    if not given.no_quantus:
        report["versions"]["quantus"] = version("quantus")
        report["quantus"] = beside = measure_quantus(module, explainer, images, given)
        for name, times in beside["seconds"].items():
            print(f"{name:<18} {median(times):7.1f} s ({min(times):.1f} to {max(times):.1f})")
        print(
            f"relprop is {beside['times_as_fast']:.1f} times as fast as Quantus; drops differ by "
            f"{beside['largest_difference']:.1e} at most, of {beside['largest_drop']:.2g}"
        )
    if given.output:
        given.output.write_text(json.dumps(report, indent=1) + "\n")


if __name__ == "__main__":
    main()
