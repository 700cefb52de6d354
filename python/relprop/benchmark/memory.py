"""Peak memory of one contender, on a CPU its page faults too, in a process of its own.

``python -m relprop.benchmark.memory`` reads what to run as JSON from its one argument.
"""

from __future__ import annotations

import ctypes
import gc
import json
import os
import subprocess
import sys
import warnings
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from relprop.devices import Precision

if TYPE_CHECKING:
    from relprop.benchmark.place import Gpu, Run

WARM, STEADY = 2, 3
"""Runs whose page faults are counted, on a GPU their memory, after those that are not."""


@dataclass(frozen=True)
class Task:
    """One contender's run."""

    contender: str
    network: str
    shape: tuple[int, ...] | None
    batch: int
    threads: int
    preset: str
    device: str = "cpu"
    precision: Precision = "float32"


def measure(task: Task) -> dict[str, Any]:
    """Run a task in a process of its own; of a CPU's memory Linux alone tells what it held.

    ``peak_bytes`` is the most that it held at once while it ran, weights included, beyond what the
    process held once everything was imported. ``faults_per_run`` are minor page faults in a
    steady loop, on a CPU. Where the contender fails, ``skipped`` says why.
    """
    command = [sys.executable, "-m", "relprop.benchmark.memory", json.dumps(asdict(task))]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}  # imports what we do
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    if done.returncode != 0:
        last = (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]
        return {**asdict(task), "skipped": last}
    return {**asdict(task), **json.loads(done.stdout.splitlines()[-1])}


def available() -> bool:
    """Whether this machine tells a process's peak and lets it be set back."""
    return Path("/proc/self/clear_refs").exists()


def _held(entry: str) -> int:
    """Bytes that this process holds (VmRSS) or has held at most (VmHWM)."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(f"{entry}:"):
            return int(line.split()[1]) * 1024
    raise OSError(f"/proc/self/status has no {entry}.")


def _hand_back() -> None:
    """Return to the system what nobody holds any more, where the C library can."""
    gc.collect()
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)


def _run(task: Task) -> dict[str, Any]:
    from relprop.benchmark.contenders import CONTENDERS, draw_batches
    from relprop.benchmark.networks import build, tiny
    from relprop.benchmark.place import Gpu, place_of
    from relprop.benchmark.timing import use_threads

    use_threads(task.threads)
    place = place_of(task.device, task.precision)
    make = CONTENDERS[task.contender]

    def prepare() -> Run:
        module, shape = build(task.network, task.shape)
        return make(module, draw_batches(task.batch, shape, place, 1), task.preset, place)

    with place.settings():
        # whatever is imported late is so now
        make(tiny(), draw_batches(1, (3, 8, 8), place, 1), task.preset, place)()
        if isinstance(place, Gpu):
            return on_gpu(place, prepare, of_torch=task.contender != "relprop")
        return _on_cpu(prepare)


def _on_cpu(prepare: Callable[[], Run]) -> dict[str, Any]:
    import resource

    _hand_back()
    imported = _held("VmRSS")
    run = prepare()
    _hand_back()  # what making it took, loading above all, is not what it holds
    Path("/proc/self/clear_refs").write_text("5")  # the peak begins here
    for _ in range(WARM):
        run()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(STEADY):
        run()
    faults = resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
    return {"peak_bytes": _held("VmHWM") - imported, "faults_per_run": faults / STEADY}


def on_gpu(place: Gpu, prepare: Callable[[], Run], of_torch: bool) -> dict[str, Any]:
    """Measure what a run holds: torch counts its tensors, relprop keeps all that it ever took."""
    place.release()
    tensors, used = place.tensors_held(), place.used()
    run = prepare()
    for _ in range(WARM):  # to choose an algorithm cuDNN takes more than any of them
        run()
    place.tensors_held()
    for _ in range(STEADY):
        run()
    return {"peak_bytes": place.tensors_peak() - tensors if of_torch else place.used() - used}


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    values = json.loads(sys.argv[1])
    values["shape"] = values["shape"] and tuple(values["shape"])
    print(json.dumps(_run(Task(**values))))
