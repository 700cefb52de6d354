"""A run shared by many processes and machines with Ray.

The dataset is cut into shards, whose number does not depend on the cluster. A shard's state is a
file of its own once it is finished: these files say what is done. A shard whose worker was lost
begins anew elsewhere, so that nothing is counted twice. At the end the states are merged by their
numbers, always in the same order.
"""

from __future__ import annotations

import socket
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from relprop.aggregation.regions import Regions
from relprop.aggregation.results import SHARDS, results_in
from relprop.aggregation.run import Run, RunResult, Tally, conclude, finished_before
from relprop.aggregation.run_state import RunState
from relprop.datasets import Dataset
from relprop.explain import Explainer
from relprop.optional import import_optional
from relprop.runs.arguments import check_folder, check_reading
from relprop.runs.checkpoint import Checkpoint
from relprop.runs.classes import ClassMap, Target
from relprop.runs.folder import CHECKPOINT, begin, locked
from relprop.runs.interruption import interruptible
from relprop.runs.progress import RunProgress
from relprop.runs.stretch import count

COUNT = 32
"""Shards where nothing is said."""

ATTEMPTS = 3
"""How often a shard is begun before it is believed that it kills its workers."""


def aggregate_on_ray(
    make: Callable[..., Explainer],
    dataset: Dataset,
    regions: Sequence[str] | Mapping[str, Regions] = ("thirds",),
    *,
    folder: Path,
    address: str = "local",
    actors: int | None = None,
    shards: int = COUNT,
    device: str = "cpu",
    precision: str = "float32",
    target: Target = "argmax",
    class_map: ClassMap | None = None,
    batch: int = 16,
    workers: int = 2,
    limit: int | None = None,
    most_rejected: float = 0.05,
    force: bool = False,
    command: Sequence[str] = (),
    progress: bool = False,
) -> RunResult:
    """Add up the relevance of a whole dataset, in many processes.

    The result is that of :func:`relprop.aggregation.run.aggregate`; rejected items are listed by
    shard. A run that was stopped goes on with the shards that are not finished.

    Parameters
    ----------
    make
        Returns the Explainer, in every worker; it is given ``device`` and ``precision``.
    address
        Of a Ray cluster, or ``"local"`` for one on this machine that ends with the run. A cluster
        that the program is connected to already is used as it is.
    actors
        How many workers there are, each with an Explainer: by default one for each GPU, or on
        CPUs one for each machine.
    shards
        Into how many parts the dataset is cut.
    dataset, regions, folder, target, class_map, batch, workers, limit, most_rejected, force, \
command, progress
        As for :func:`relprop.aggregation.run.aggregate`.

    Raises
    ------
    ImportError
        If Ray is not installed.
    RuntimeError
        If a shard's worker is lost again and again.
    TooManyRejectedError, FileExistsError, BlockingIOError, KeyboardInterrupt, TypeError, \
ValueError, OSError
        As :func:`relprop.aggregation.run.aggregate` does.
    """
    if shards < 1:
        raise ValueError(f"shards must be at least 1, not {shards}.")
    check_reading(batch, workers, limit, most_rejected)
    check_folder(folder, dataset)
    cluster = _Cluster(address, actors, on_gpu=device.startswith("cuda"))
    here = make(device="cpu", precision="float32")  # to check what was given, before all else
    run = Run.of(here, dataset, regions, target, class_map, limit)
    fingerprint = run.fingerprint | {
        "device": device.partition(":")[0],
        "precision": precision,
        "shards": shards,
    }
    with locked(folder):
        begun = begin(folder, results_in, fingerprint, force=force)
        if begun is not None and begun.finished:
            return finished_before(folder, begun, command)
        Checkpoint(fingerprint, b"").write(folder / CHECKPOINT)  # whose folder it is
        files = _ShardFiles(folder / SHARDS, shards)
        done = Tally(run.new_state())
        for checkpoint in files.finished():
            done.count(checkpoint)
        recipe = (make, dataset, regions, target, class_map, limit, device, precision)
        bar = RunProgress(count(run.part), done.position, len(done.rejected), progress)
        with cluster.started(recipe), interruptible() as interruption, bar.live():
            for finished in cluster.work(files.missing(), shards, batch, workers):
                for number, checkpoint in finished:
                    files.write(number, checkpoint)
                    done.count(checkpoint)
                    bar.advance(checkpoint.position, len(checkpoint.rejected))
                if done.too_many(most_rejected):
                    raise done.refusal(folder)
                if interruption.asked:
                    raise done.interruption()
        total = Tally(run.new_state())
        for checkpoint in files.finished():
            total.count(checkpoint)
        total.state = merged(RunState.from_bytes(one.state) for one in files.finished())
        return conclude(folder, total, fingerprint, command)


class _ShardFiles:
    """The files of finished shards, which are the list of what is done."""

    def __init__(self, folder: Path, count: int) -> None:
        folder.mkdir(exist_ok=True)
        self._paths = [folder / f"{number:05}" for number in range(count)]

    def missing(self) -> deque[int]:
        """Return the numbers of the shards that are not finished."""
        return deque(number for number, path in enumerate(self._paths) if not path.exists())

    def finished(self) -> Iterator[Checkpoint]:
        """Read those that are, by their numbers."""
        return (Checkpoint.read(path) for path in self._paths if path.exists())

    def write(self, number: int, checkpoint: Checkpoint) -> None:
        """Take note that a shard is finished."""
        checkpoint.write(self._paths[number])


def merged(states: Iterable[RunState]) -> RunState:
    """Merge states in a tree that their number alone decides, a few of them in memory at once."""
    tree: list[tuple[int, RunState]] = []
    for state in states:
        level = 0
        while tree and tree[-1][0] == level:
            left = tree.pop()[1]
            left.merge(state)
            state, level = left, level + 1
        tree.append((level, state))
    while len(tree) > 1:
        right = tree.pop()[1]
        tree[-1][1].merge(right)
    return tree[0][1]


class _Worker:
    """An actor: one Explainer, which explains whole shards."""

    def __init__(self, recipe: tuple[Any, ...], threads: int) -> None:
        from relprop import set_threads

        make, dataset, regions, target, class_map, limit, device, precision = recipe
        set_threads(threads)
        explainer = make(device=device, precision=precision)
        self._run = Run.of(explainer, dataset, regions, target, class_map, limit)

    def explain(self, number: int, shards: int, batch: int, workers: int) -> Checkpoint:
        """Return what there is to know about a shard."""
        tally = Tally(self._run.new_state())
        part = self._run.part.shard(number, shards)
        for outcomes in self._run.outcomes(part, batch, workers):
            for outcome in outcomes:
                tally.add(outcome)
        return tally.checkpoint({}, finished=True)


class _Cluster:
    """Workers on a Ray cluster; a lost one is replaced and its shard begun anew."""

    def __init__(self, address: str, actors: int | None, *, on_gpu: bool) -> None:
        self._ray = import_optional("ray", "ray", "running beyond one process")
        self._address = address
        self._actors = actors
        self._on_gpu = on_gpu
        self._idle: list[Any] = []
        self._new_worker: Callable[[], Any]

    @contextmanager
    def started(self, recipe: tuple[Any, ...]) -> Iterator[None]:
        """Connect to the cluster, and make the workers that follow the recipe."""
        connected = self._ray.is_initialized()
        if not connected:
            self._connect()
        try:
            self._make_workers(self._ray.put(recipe))
            yield
        finally:
            self._idle.clear()
            if not connected:
                self._ray.shutdown()

    def work(
        self, waiting: deque[int], shards: int, batch: int, workers: int
    ) -> Iterator[list[tuple[int, Checkpoint]]]:
        """Have shards explained; give those that are done, every now and then none."""
        lost: Counter[int] = Counter()
        running: dict[Any, tuple[int, Any]] = {}
        while waiting or running:
            while waiting and self._idle:
                worker, number = self._idle.pop(), waiting.popleft()
                task = worker.explain.remote(number, shards, batch, workers)
                running[task] = number, worker
            finished = []
            for task in self._ray.wait(list(running), timeout=0.5)[0]:
                number, worker = running.pop(task)
                outcome = self._outcome(task)
                if isinstance(outcome, Checkpoint):
                    finished.append((number, outcome))
                    self._idle.append(worker)
                else:
                    lost[number] += 1
                    if lost[number] == ATTEMPTS:
                        raise RuntimeError(f"shard {number} was lost {ATTEMPTS} times: {outcome}")
                    waiting.appendleft(number)
                    self._idle.append(self._new_worker())
            yield finished

    def _outcome(self, task: Any) -> Checkpoint | str:
        """What a worker returned, or how it was lost; its errors are raised here."""
        errors = self._ray.exceptions
        try:
            checkpoint: Checkpoint = self._ray.get(task)
        except errors.RayTaskError as error:
            raise error.cause from None
        except errors.RayError as error:
            return str(error).strip().splitlines()[0]
        return checkpoint

    def _connect(self) -> None:
        own = {"include_dashboard": False} if self._address == "local" else {}
        try:
            _check_reachable(self._address)
            self._ray.init(self._address, log_to_driver=False, logging_level="error", **own)
        except (OSError, ValueError) as error:
            raise ConnectionError(f"no Ray cluster at {self._address!r}: {error}") from None

    def _make_workers(self, recipe: Any) -> None:
        there = self._ray.cluster_resources()
        gpus = int(there.get("GPU", 0))
        if self._on_gpu and not gpus:
            raise RuntimeError("the Ray cluster has no GPU.")
        machines = sum(bool(node["Alive"]) for node in self._ray.nodes())
        count = self._actors or (gpus if self._on_gpu else machines)
        share = there.get("CPU", 1.0) / count
        cpus = int(share) or share  # a part of a processor, or whole ones
        kind = self._ray.remote(num_cpus=cpus, num_gpus=int(self._on_gpu))(_Worker)
        self._new_worker = lambda: kind.remote(recipe, max(1, int(share)))
        self._idle = [self._new_worker() for _ in range(count)]


def _check_reachable(address: str) -> None:
    """Raise OSError where nobody listens; Ray itself would try for minutes."""
    host, _, port = address.rpartition("://")[2].rpartition(":")
    if host and port.isdecimal():
        socket.create_connection((host, int(port)), timeout=5).close()
