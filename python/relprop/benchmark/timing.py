"""Times and ratios of contenders that take turns in one process."""

from __future__ import annotations

import time
import warnings
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike

import relprop
from relprop import costs
from relprop.benchmark.contenders import (
    FORWARD,
    GRADIENT,
    GRAPH,
    PEERS,
    Contender,
    draw_batches,
    of_torch,
    relprop_run,
)
from relprop.benchmark.floors import Ceilings, total, works_under
from relprop.benchmark.networks import build
from relprop.benchmark.place import CPU, Gpu, Place, Run, Turn

ALIKE = {"float32": 0.9, "tf32": 0.8, "bf16": 0.3}
"""A peer whose relevance has a smaller cosine with relprop's, in the median, is not timed.

Where factors are rounded, more gates flip: MobileNetV2's gradient with factors of 10 bits has 0.92
with the exact one, with 7 bits 0.54, and two such gradients have 0.47 with each other.
"""

SAME = {**ALIKE, "float32": 0.999}
"""What relprop's own gradient has with torch's at least; gates that flip leave it above."""


def spread(values: ArrayLike) -> dict[str, float]:
    """Median and quartiles."""
    low, median, high = np.percentile(np.asarray(values, np.float64), [25, 50, 75])
    return {"median": float(median), "low": float(low), "high": float(high)}


def take_turns(runs: Mapping[str, Run], repeat: int, place: Place = CPU) -> dict[str, list[Turn]]:
    """Time everybody once per turn, each directly after an untimed run of its own.

    Turns, so that a noisy machine disturbs all of them alike. The untimed run, so that they do not
    disturb each other: OpenMP's workers spin for some milliseconds after their work, on cores that
    the next contender's threads need. A pause would have to outlast that, whatever the runtime, and
    long ones slow down what follows (docs/performance.md).
    """
    turns: dict[str, list[Turn]] = {name: [] for name in runs}
    for _ in range(repeat):
        for name, run in runs.items():
            place.turn(run)
            turns[name].append(place.turn(run))
    return turns


def turns_with_room(
    runs: dict[str, Run], skipped: dict[str, str], repeat: int, place: Place
) -> dict[str, list[Turn]]:
    """Let everybody take turns; a library leaves for which a GPU has no room beside the others.

    Where torch or relprop have no room themselves, the last library leaves.
    """
    running = ""

    def noted(name: str, run: Run) -> Run:
        def call() -> Any:
            nonlocal running
            running = name
            return run()

        return call

    while True:
        try:
            return take_turns({name: noted(name, run) for name, run in runs.items()}, repeat, place)
        except torch.OutOfMemoryError as error:
            libraries = [name for name in runs if name in PEERS]
            if not libraries:
                raise
            leaving = running if running in libraries else libraries[-1]
            skipped[leaving] = f"{reason(error)} (it runs alone, but not beside the others)"
            del runs[leaving]
            place.release()


def use_threads(count: int, place: Place = CPU) -> None:
    """Let torch and relprop use so many threads; beside a GPU, all that they want."""
    if isinstance(place, Gpu):
        return
    torch.set_num_threads(count)
    relprop.set_threads(count)


def measure(
    network: str,
    shape: tuple[int, ...] | None,
    batch: int,
    threads: int,
    presets: Sequence[str],
    rivals: Sequence[str] = tuple(PEERS),
    repeat: int = 5,
    place: Place = CPU,
    ceilings: Ceilings | None = None,
) -> Iterator[dict[str, Any]]:
    """Time one network at one batch size and number of threads, a record for each preset.

    What is set up once is not in the times: relprop's compilation, hooks, copies of the module.
    Ratios are to the fastest of torch's gradients here, turn by turn.

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
    place
        Where everybody runs; its settings must be torch's already.
    ceilings
        What the place gives at best: how far relprop is from its floor is in the records then.
    """
    use_threads(threads, place)
    module, shape = build(network, shape)
    batches = draw_batches(batch, shape, place, place.rotation)
    begun = time.perf_counter()
    model = relprop.load(module, batches[0][:1].cpu())
    load_seconds = time.perf_counter() - begun
    graph = model.graph
    products = 2 * batch * sum(costs.multiply_adds(graph, node) for node in graph)
    passes = of_torch(FORWARD, place)
    gradients = {**of_torch(GRADIENT, place), **(GRAPH if isinstance(place, Gpu) else {})}
    makers: dict[str, Contender] = {
        **passes,
        **gradients,
        "relprop": lambda _, *arguments: relprop_run(model, *arguments),
        **{name: PEERS[name] for name in rivals},
    }

    for preset in presets:
        runs: dict[str, Run] = {}
        setup: dict[str, float] = {}
        skipped: dict[str, str] = {}
        run: Run | None = None
        ours: Any = None
        gradient: Any = None
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what peers deprecate is not ours to say
            for name, make in makers.items():
                try:
                    begun = time.perf_counter()
                    run = make(module, batches, preset, place)
                    setup[name] = time.perf_counter() - begun
                    found = run()
                except Exception as error:
                    if name not in PEERS and name not in GRAPH:
                        raise
                    skipped[name] = reason(error)
                    continue
                finally:
                    place.release()  # relprop explains as many images at once as memory has room
                if name in gradients:
                    gradient = found
                elif name == "relprop":
                    ours = found
                    alike = cosine(ours, gradient) if preset == "gradient" else 1.0
                    if alike < SAME[place.precision]:
                        raise RuntimeError(f"the gradient is not torch's: cosine {alike:.4f}.")
                elif name in PEERS and (alike := cosine(found, ours)) < ALIKE[place.precision]:
                    skipped[name] = f"its relevance differs: cosine {alike:.2f} with relprop's"
                    continue
                runs[name] = run
            run = None  # a library that was left out holds no memory from here on
            turns = turns_with_room(runs, skipped, repeat, place)
        timed = [name for name in turns if name in gradients]
        reference = min(timed, key=lambda name: np.median([t.wall for t in turns[name]]))
        least: dict[str, Any] = {}
        if ceilings is not None:
            least["floor"] = total(works_under(graph, preset, place), batch, ceilings)
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
            **least,
        }


def rates(turns: Sequence[Turn], batch: int, work: int) -> dict[str, float]:
    """Images and floating-point operations per second; the work is that of a plain gradient."""
    seconds = float(np.median([turn.wall for turn in turns]))
    return {"images_per_second": batch / seconds, "gflops": 1e-9 * work / seconds}


def cosine(found: Any, ours: Any) -> float:
    """How alike two arrays of relevance are: the cosine between them, in the median of samples."""
    a, b = (
        torch.as_tensor(r).detach().double().cpu().numpy().reshape(len(r), -1)
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
