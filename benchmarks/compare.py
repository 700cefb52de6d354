"""Time relprop against torch's gradient and against zennit, in one process.

    python benchmarks/compare.py
    python benchmarks/compare.py --network resnet50 --preset epsilon_plus_flat --threads 1

The contenders take turns, so that a noisy machine disturbs all of them alike; times are medians
of wall-clock time, ratios are medians over the turns. What is set up once is not timed: relprop's
compilation, zennit's hooks, the copies of the model that it gets because it changes them. The
gradient is torch's forward and backward pass down to the input, parameters frozen.
"""

from __future__ import annotations

import argparse
import contextlib
import copy
import json
import statistics
import sys
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

import relprop

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))
import networks
import peers

NETWORKS = ("vgg16", "resnet50", "googlenet")
PRESETS = (
    "epsilon",
    "epsilon_plus",
    "epsilon_plus_flat",
    "epsilon_alpha2_beta1",
    "epsilon_alpha2_beta1_flat",
    "epsilon_gamma_box",
    "excitation_backprop",
)
LOW, HIGH = -3.0, 3.0
"""The box that the images are drawn in, for the preset that needs one."""

Run = Callable[[], object]


def gradient(module: nn.Module, images: Tensor, memory_format: torch.memory_format) -> Run:
    """Torch's forward and backward pass, on a copy in the memory format."""
    model = copy.deepcopy(module).to(memory_format=memory_format)
    data = images.clone(memory_format=memory_format).requires_grad_()

    def run() -> object:
        scores = model(data)
        return torch.autograd.grad(scores.max(dim=1).values.sum(), data)

    return run


@contextlib.contextmanager
def by_zennit(module: nn.Module, preset: str, images: Tensor) -> Iterator[Run]:
    """Zennit, its hooks in place."""
    composite = peers.zennit_composite(preset, LOW, HIGH)
    canonizers = peers.peer("zennit.canonizers")
    composite.canonizers = [canonizers.SequentialMergeBatchNorm()]
    data = images.clone().requires_grad_()

    with composite.context(peers.as_modules(module)) as model:

        def run() -> object:
            scores = model(data)
            top = scores.max(dim=1, keepdim=True).values
            return torch.autograd.grad(scores, data, torch.where(scores == top, scores, 0.0))

        yield run


def by_relprop(model: relprop.Model, preset: str, images: Tensor, ledger: bool) -> Run:
    """The compiled core."""
    box = {"low": LOW, "high": HIGH} if preset == "epsilon_gamma_box" else {}
    explainer = relprop.Explainer(model, preset, ledger=ledger, **box)
    data = images.numpy()
    return lambda: explainer(data)


def take_turns(contenders: dict[str, Run], repeat: int) -> dict[str, list[float]]:
    """Seconds of each contender in each turn, after one turn that is not timed."""
    seconds: dict[str, list[float]] = {name: [] for name in contenders}
    for turn in range(repeat + 1):
        for name, run in contenders.items():
            start = time.perf_counter()
            run()
            if turn > 0:
                seconds[name].append(time.perf_counter() - start)
    return seconds


def ratio(ours: Sequence[float], theirs: Sequence[float]) -> float:
    """How many times as long theirs takes."""
    return statistics.median(b / a for a, b in zip(ours, theirs))


def compare(network: str, batch: int, threads: int, options: argparse.Namespace) -> Iterator[dict]:
    """One row per preset."""
    torch.set_num_threads(threads)
    relprop.set_threads(threads)
    factory, shape = networks.NETWORKS[network]
    module = networks.initialise(factory()).requires_grad_(False)
    images = torch.randn(batch, *shape, generator=torch.Generator().manual_seed(0))
    images.clamp_(LOW, HIGH)
    model = relprop.load(module, images[:1])
    for preset in options.preset:
        with by_zennit(module, preset, images) as zennit:
            seconds = take_turns(
                {
                    "gradient": gradient(module, images, torch.contiguous_format),
                    "gradient_nhwc": gradient(module, images, torch.channels_last),
                    "zennit": zennit,
                    "relprop": by_relprop(model, preset, images, options.ledger),
                },
                options.repeat,
            )
        ours = seconds["relprop"]
        row: dict[str, object] = {
            "network": network,
            "preset": preset,
            "batch": batch,
            "threads": threads,
        }
        row |= {f"{name}_ms": 1e3 * statistics.median(s) for name, s in seconds.items()}
        row |= {
            f"{name}/relprop": ratio(ours, s) for name, s in seconds.items() if name != "relprop"
        }
        yield row


def line(cells: Sequence[object]) -> str:
    """One line of a markdown table."""
    texts = (f"{cell:.3g}" if isinstance(cell, float) else str(cell) for cell in cells)
    return f"| {' | '.join(texts)} |"


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    several = {"nargs": "+", "metavar": "NAME"}
    parser.add_argument("--network", choices=networks.NETWORKS, default=NETWORKS, **several)
    parser.add_argument("--preset", choices=PRESETS, default=PRESETS, **several)
    parser.add_argument("--batch", type=int, nargs="+", default=[1, 8])
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--repeat", type=int, default=5, help="timed turns")
    parser.add_argument("--no-ledger", dest="ledger", action="store_false")
    parser.add_argument("--json", type=Path, help="write the rows here as well")
    return parser.parse_args(arguments)


def main() -> None:
    options = parse()
    warnings.simplefilter("ignore")
    print(f"torch {torch.__version__}, numpy {np.__version__}, relprop {relprop.__version__}\n")
    rows: list[dict[str, object]] = []
    for network in options.network:
        for batch in options.batch:
            for threads in options.threads:
                for row in compare(network, batch, threads, options):
                    if not rows:
                        print(line(list(row)))
                        print(line(["---"] * len(row)))
                    print(line(list(row.values())), flush=True)
                    rows.append(row)
    if options.json:
        options.json.write_text(json.dumps(rows, indent=1))


if __name__ == "__main__":
    main()
