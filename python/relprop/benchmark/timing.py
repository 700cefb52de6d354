"""Times and ratios of contenders that take turns in one process."""

from __future__ import annotations

import time
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike

import relprop
from relprop import _core, costs
from relprop.benchmark.contenders import (
    FORWARD,
    GRADIENT,
    PEERS,
    Run,
    draw_images,
    relprop_run,
)
from relprop.benchmark.networks import build

ALIKE = 0.9
"""A peer whose relevance has a smaller cosine with relprop's, in the median, is not timed."""

SAME = 0.999
"""What relprop's own gradient has with torch's at least; gates that flip leave it above."""


@dataclass(frozen=True)
class Turn:
    """What one run took."""

    wall: float
    cpu: float
    """Seconds of all threads of the process together."""


def spread(values: ArrayLike) -> dict[str, float]:
    """Median and quartiles."""
    low, median, high = np.percentile(np.asarray(values, np.float64), [25, 50, 75])
    return {"median": float(median), "low": float(low), "high": float(high)}


def take_turns(runs: Mapping[str, Run], repeat: int) -> dict[str, list[Turn]]:
    """Time everybody once per turn, each directly after an untimed run of its own.

    Turns, so that a noisy machine disturbs all of them alike. The untimed run, so that they do not
    disturb each other: OpenMP's workers spin for some milliseconds after their work, on cores that
    the next contender's threads need. A pause would have to outlast that, whatever the runtime, and
    long ones slow down what follows (docs/performance.md).
    """
    turns: dict[str, list[Turn]] = {name: [] for name in runs}
    for _ in range(repeat):
        for name, run in runs.items():
            run()
            cpu, wall = time.process_time(), time.perf_counter()
            run()
            turns[name].append(Turn(time.perf_counter() - wall, time.process_time() - cpu))
    return turns


def use_threads(count: int) -> None:
    """Let torch and relprop use so many threads."""
    torch.set_num_threads(count)
    relprop.set_threads(count)


def fma_ceiling(threads: int, rounds: int = 1_000_000, repeat: int = 15) -> float:
    """Measure what the multipliers give at best: multiply-adds in registers, on all threads.

    Each round is some hundred of them, whose number depends on the instruction set in use.

    Returns
    -------
    float
        GFLOP/s of all threads together, the best of ``repeat`` runs.
    """
    use_threads(threads)
    done = _core.multiply_adds(rounds)
    turns = take_turns({"core": lambda: _core.multiply_adds(rounds)}, repeat)["core"]
    return 2e-9 * done / min(turn.wall for turn in turns)


def measure(
    network: str,
    shape: tuple[int, ...] | None,
    batch: int,
    threads: int,
    presets: Sequence[str],
    rivals: Sequence[str] = tuple(PEERS),
    repeat: int = 5,
) -> Iterator[dict[str, Any]]:
    """Time one network at one batch size and number of threads, a record for each preset.

    What is set up once is not in the times: relprop's compilation, hooks, copies of the module.
    Ratios are to torch's gradient in the memory format that is the faster here, turn by turn.

    Parameters
    ----------
    network, shape
        As :func:`relprop.benchmark.networks.build` takes them.
    batch, threads
        Images at once, and threads for everybody.
    presets
        Names of relprop's presets.
    rivals
        Which of the other libraries take part.
    repeat
        Timed turns.
    """
    use_threads(threads)
    module, shape = build(network, shape)
    images = draw_images(batch, shape)
    begun = time.perf_counter()
    model = relprop.load(module, images[:1])
    load_seconds = time.perf_counter() - begun
    graph = model.graph
    products = 2 * batch * sum(costs.multiply_adds(graph, node) for node in graph)

    for preset in presets:
        makers = {
            **FORWARD,
            **GRADIENT,
            "relprop": lambda _, images, preset: relprop_run(model, images, preset),
            **{name: PEERS[name] for name in rivals},
        }
        runs: dict[str, Run] = {}
        setup: dict[str, float] = {}
        skipped: dict[str, str] = {}
        ours: Any = None
        gradient: Any = None
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what peers deprecate is not ours to say
            for name, make in makers.items():
                try:
                    begun = time.perf_counter()
                    run = make(module, images, preset)
                    setup[name] = time.perf_counter() - begun
                    found = run()
                except Exception as error:
                    if name not in PEERS:
                        raise
                    skipped[name] = reason(error)
                    continue
                if name in GRADIENT:
                    gradient = found
                elif name == "relprop":
                    ours = found
                    if preset == "gradient" and (alike := cosine(ours, gradient)) < SAME:
                        raise RuntimeError(f"the gradient is not torch's: cosine {alike:.4f}.")
                elif name in PEERS and (alike := cosine(found, ours)) < ALIKE:
                    skipped[name] = f"its relevance differs: cosine {alike:.2f} with relprop's"
                    continue
                runs[name] = run
            turns = take_turns(runs, repeat)
        reference = min(GRADIENT, key=lambda name: np.median([t.wall for t in turns[name]]))
        yield {
            "network": network,
            "batch": batch,
            "threads": threads,
            "preset": preset,
            "reference": reference,
            "load_seconds": load_seconds,
            "contenders": {
                name: {
                    "setup_seconds": setup[name],
                    "seconds": spread([turn.wall for turn in own]),
                    "cpu_seconds": spread([turn.cpu for turn in own]),
                    "ratio": spread([a.wall / b.wall for a, b in zip(own, turns[reference])]),
                    **rates(own, batch, products * (1 if name in FORWARD else 2)),
                }
                for name, own in turns.items()
            },
            "skipped": skipped,
        }


def rates(turns: Sequence[Turn], batch: int, work: int) -> dict[str, float]:
    """Images and floating-point operations per second; the work is that of a plain gradient."""
    seconds = float(np.median([turn.wall for turn in turns]))
    return {"images_per_second": batch / seconds, "gflops": 1e-9 * work / seconds}


def cosine(found: Any, ours: Any) -> float:
    """How alike two arrays of relevance are: the cosine between them, in the median of samples."""
    a, b = (
        np.asarray(torch.as_tensor(r).detach(), np.float64).reshape(len(r), -1)
        for r in (found, ours)
    )
    lengths = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
    return float(np.median((a * b).sum(axis=1) / np.maximum(lengths, 1e-300)))


def reason(error: Exception) -> str:
    """Why somebody does not take part, in one line."""
    if isinstance(error, ModuleNotFoundError):
        return f"{error.name} is not installed"
    text = str(error).strip().splitlines()
    first = text[0] if text else ""
    kind = "" if isinstance(error, NotImplementedError) else f"{type(error).__name__}: "
    return f"{kind}{first}".rstrip(": ")
