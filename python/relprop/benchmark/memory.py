"""Peak memory and page faults of one contender, in a process of its own.

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
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

STEADY = 3
"""Runs whose page faults are counted, after two that are not."""


@dataclass(frozen=True)
class Task:
    """One contender's run."""

    contender: str
    network: str
    shape: tuple[int, ...] | None
    batch: int
    threads: int
    preset: str


def measure(task: Task) -> dict[str, Any]:
    """Run a task in a process of its own; Linux alone tells what it held.

    ``peak_bytes`` is the most that it held at once while it ran, weights included, beyond what the
    process held once everything was imported. ``faults_per_run`` are minor page faults in a
    steady loop. Where the contender fails, ``skipped`` says why.
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
    import resource

    from relprop.benchmark.contenders import CONTENDERS, draw_images
    from relprop.benchmark.networks import build, tiny
    from relprop.benchmark.timing import use_threads

    use_threads(task.threads)
    make = CONTENDERS[task.contender]
    make(tiny(), draw_images(1, (3, 8, 8)), task.preset)()  # whatever is imported late is so now
    _hand_back()
    imported = _held("VmRSS")
    module, shape = build(task.network, task.shape)
    run = make(module, draw_images(task.batch, shape), task.preset)
    del module
    _hand_back()  # what making it took, loading above all, is not what it holds
    Path("/proc/self/clear_refs").write_text("5")  # the peak begins here
    for _ in range(2):
        run()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(STEADY):
        run()
    faults = resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
    return {"peak_bytes": _held("VmHWM") - imported, "faults_per_run": faults / STEADY}


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    values = json.loads(sys.argv[1])
    values["shape"] = values["shape"] and tuple(values["shape"])
    print(json.dumps(_run(Task(**values))))
