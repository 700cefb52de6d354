"""Times and ratios of contenders that take turns in one process."""

from __future__ import annotations

import gc
import time
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor, nn

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
from relprop.benchmark.place import CPU, Gpu, Place, Run, Turn, let_go

ALIKE = {"float32": 0.9, "tf32": 0.8, "bf16": 0.3}
"""A peer whose relevance has a smaller cosine with relprop's, in the median, is not timed.

Where factors are rounded, more gates flip: MobileNetV2's gradient with factors of 10 bits has 0.92
with the exact one, with 7 bits 0.54, and two such gradients have 0.47 with each other.
"""

SAME = {**ALIKE, "float32": 0.999}
"""What relprop's own gradient has with torch's at least; gates that flip leave it above."""

GRADIENTS = {**GRADIENT, **GRAPH}
"""What relprop may be compared with; it takes one of them."""

OPTIONAL = {**GRAPH, **PEERS}
"""Who may fail."""

NO_ROOM = ("no room for", "out of memory", "can't allocate memory", "ALLOC_FAILED")
"""What relprop, CUDA, torch on a host, cuBLAS and cuDNN say, whose errors have no type of it."""


def spread(values: ArrayLike) -> dict[str, float]:
    """Median and quartiles."""
    low, median, high = np.percentile(np.asarray(values, np.float64), [25, 50, 75])
    return {"median": float(median), "low": float(low), "high": float(high)}


class NoRoom(RuntimeError):
    """Somebody had too little memory in a turn of theirs."""

    def __init__(self, name: str, why: str) -> None:
        super().__init__(f"{name}: {why}")
        self.name, self.why = name, why


def take_turns(runs: Mapping[str, Run], repeat: int, place: Place = CPU) -> dict[str, list[Turn]]:
    """Time everybody once per turn, each directly after an untimed run of its own.

    Turns, so that a noisy machine disturbs all of them alike. The untimed run, so that they do not
    disturb each other: OpenMP's workers spin for some milliseconds after their work, on cores that
    the next contender's threads need. A pause would have to outlast that, whatever the runtime, and
    long ones slow down what follows (docs/performance.md).

    Raises
    ------
    NoRoom
        If somebody has too little memory.
    """
    turns: dict[str, list[Turn]] = {name: [] for name in runs}
    for _ in range(repeat):
        for name, run in runs.items():
            try:
                place.turn(run)
                turns[name].append(place.turn(run))
            except Exception as error:
                if not lacks_room(error):
                    raise
                raise NoRoom(name, reason(error)) from error
            finally:
                let_go(run)  # the others need the room
    return turns


def turns_with_room(
    runs: dict[str, Run], skipped: dict[str, str], repeat: int, place: Place
) -> dict[str, list[Turn]]:
    """Let everybody take turns who has room beside the others; nobody where nothing is comparable.

    A library without room leaves, as does torch's graph; where torch's other passes or relprop have
    none, the last of those does, and then themselves.
    """
    while comparable(runs):
        try:
            return take_turns(runs, repeat, place)
        except NoRoom as error:
            others = [name for name in runs if name in OPTIONAL]
            if error.name in others or not others:
                leaving, why = error.name, f"{error.why} (it runs alone, but not beside the others)"
            else:
                leaving, why = others[-1], f"{error.name} has no room beside it: {error.why}"
            skipped[leaving] = why
        # not before the error is gone, whose frames hold everybody's tensors
        del runs[leaving]
        place.release()
    return {}


def comparable(names: Iterable[str]) -> bool:
    """Whether relprop is among them, and one of torch's gradients that it is compared with."""
    return "relprop" in names and any(name in GRADIENTS for name in names)


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
    Ratios are to the fastest of torch's gradients here, turn by turn. Where relprop or all of those
    have no room, a record has no contenders, and ``skipped`` says why.

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
    require_scores(network, module, batches[0][:1].cpu())
    begun = time.perf_counter()
    model = relprop.load(module, batches[0][:1].cpu())
    load_seconds = time.perf_counter() - begun
    graph = model.graph
    products = 2 * batch * sum(costs.multiply_adds(graph, node) for node in graph)
    makers: dict[str, Contender] = {
        **of_torch({**FORWARD, **GRADIENT}, place),
        **(GRAPH if isinstance(place, Gpu) else {}),
        "relprop": lambda _, *arguments: relprop_run(model, *arguments),
        **{name: PEERS[name] for name in rivals},
    }

    for preset in presets:
        skipped: dict[str, str] = {}
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what peers deprecate is not ours to say
            runs, setup = gather(makers, module, batches, preset, place, skipped)
            place.release()  # a library that was left out holds no memory from here on
            turns = turns_with_room(runs, skipped, repeat, place)
        runs.clear()  # nobody holds memory under the next preset
        gc.collect()
        place.release()
        timed = [name for name in turns if name in GRADIENTS]
        reference = min(
            timed, key=lambda name: np.median([t.wall for t in turns[name]]), default=""
        )
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


def require_scores(network: str, module: nn.Module, image: Tensor) -> None:
    """Refuse a module whose output torch's passes cannot take for scores of classes.

    Raises
    ------
    TypeError
        If the output is no tensor.
    ValueError
        If it has another shape.
    """
    with torch.no_grad():
        scores = module(image)
    wanted = f"{network} must return a tensor (samples, classes)"
    if not isinstance(scores, Tensor):
        raise TypeError(f"{wanted}, not {type(scores).__name__}.")
    if scores.ndim != 2:
        raise ValueError(f"{wanted}, not one of shape {tuple(scores.shape)}.")


def gather(
    makers: Mapping[str, Contender],
    module: nn.Module,
    batches: Sequence[Tensor],
    preset: str,
    place: Place,
    skipped: dict[str, str],
) -> tuple[dict[str, Run], dict[str, float]]:
    """Let everybody run once: who can be compared under a preset, and the seconds to set them up.

    Why others do not take part is written to ``skipped``. Torch's own passes and relprop may lack
    room; that they fail otherwise is an error.
    """
    runs: dict[str, Run] = {}
    setup: dict[str, float] = {}
    gradient: Any = None
    ours: Any = None
    for name, make in makers.items():
        if name in PEERS and ours is None:
            break  # nothing to compare it with
        try:
            begun = time.perf_counter()
            run = make(module, batches, preset, place)
            setup[name] = time.perf_counter() - begun
            found = once(run)
        except Exception as error:
            if name not in OPTIONAL and not lacks_room(error):
                raise
            skipped[name] = reason(error)
            continue
        finally:
            place.release()  # relprop explains as many images at once as memory has room
        if name in GRADIENTS:
            gradient = found
        elif name == "relprop":
            ours = found
            checked = preset == "gradient" and gradient is not None
            alike = cosine(ours, gradient) if checked else 1.0
            if alike < SAME[place.precision]:
                raise RuntimeError(f"the gradient is not torch's: cosine {alike:.4f}.")
        elif name in PEERS and (alike := cosine(found, ours)) < ALIKE[place.precision]:
            skipped[name] = f"its relevance differs: cosine {alike:.2f} with relprop's"
            continue
        runs[name] = run
    return runs, setup


def once(run: Run) -> Any:
    """What a run finds, of which nothing else is held afterwards."""
    try:
        return run()
    finally:
        let_go(run)


def rates(turns: Sequence[Turn], batch: int, work: int) -> dict[str, float]:
    """Images and floating-point operations per second; the work is that of a plain gradient."""
    seconds = float(np.median([turn.wall for turn in turns]))
    return {"images_per_second": batch / seconds, "gflops": 1e-9 * work / seconds}


def cosine(found: Any, ours: Any) -> float:
    """How alike two arrays of relevance are: the cosine between them, in the median of samples."""
    a, b = (
        torch.as_tensor(r).detach().cpu().double().numpy().reshape(len(r), -1)
        for r in (found, ours)
    )
    lengths = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
    return float(np.median((a * b).sum(axis=1) / np.maximum(lengths, 1e-300)))


def lacks_room(error: Exception) -> bool:
    """Whether somebody failed for want of memory, the host's or a GPU's."""
    if isinstance(error, (torch.OutOfMemoryError, MemoryError)):
        return True
    return isinstance(error, RuntimeError) and any(told in str(error) for told in NO_ROOM)


def reason(error: Exception) -> str:
    """Why somebody does not take part, in one line."""
    if isinstance(error, ModuleNotFoundError):
        return f"{error.name} is not installed"
    text = str(error).strip().splitlines()
    first = text[0] if text else ""
    kind = "" if isinstance(error, NotImplementedError) else f"{type(error).__name__}: "
    return f"{kind}{first}".rstrip(": ")
