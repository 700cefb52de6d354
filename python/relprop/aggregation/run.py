"""A run over a dataset: read ahead, explain, add up; stop at any moment and go on later.

What is added up depends on the items and their order alone: not on batches, on the number of
workers or on where a run was interrupted.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from relprop.aggregation import kept_maps
from relprop.aggregation.explaining import Explaining, Outcome
from relprop.aggregation.kept_maps import KeptMap, KeptMaps
from relprop.aggregation.regions import Regions, regions_of
from relprop.aggregation.results import is_complete, results_in, write_results
from relprop.aggregation.run_state import RunState
from relprop.datasets import Dataset, Rejected, read_ahead
from relprop.explain import Explainer
from relprop.runs.arguments import check_classifier, check_folder, check_reading
from relprop.runs.batches import batches
from relprop.runs.checkpoint import Checkpoint
from relprop.runs.classes import Classes, ClassMap, Target
from relprop.runs.fingerprint import Fingerprint, of_explainer, of_items
from relprop.runs.folder import CHECKPOINT, begin, locked
from relprop.runs.interruption import interruptible
from relprop.runs.progress import RunProgress
from relprop.runs.rejections import Rejections
from relprop.runs.saving import Saving
from relprop.runs.stretch import count, stretch

MAP_BYTES = 256 * 2**20
"""About how much memory average maps may take; their canvas is made smaller where it must be."""

AHEAD = 4
"""Batches that are decoded ahead."""


@dataclass
class RunResult:
    """A finished run.

    ``items`` were read, of which ``rejected`` were not used; ``state`` holds what the others add
    up to. ``before`` says that an earlier run had done everything.
    """

    state: RunState
    items: int
    rejected: list[tuple[str, str]]
    before: bool = False


def aggregate(
    explainer: Explainer,
    dataset: Dataset,
    regions: Sequence[str] | Mapping[str, Regions] = ("thirds",),
    *,
    folder: Path,
    target: Target = "argmax",
    class_map: ClassMap | None = None,
    batch: int = 16,
    workers: int = 2,
    limit: int | None = None,
    most_rejected: float = 0.05,
    checkpoint_seconds: float = 60.0,
    resume: bool = True,
    force: bool = False,
    keep_maps: kept_maps.Kind | None = None,
    maps_dtype: str = "float32",
    command: Sequence[str] = (),
    progress: bool = False,
) -> RunResult:
    """Add up the relevance of a whole dataset.

    An item that cannot be used is listed with its reason in ``rejected.csv``, and the run goes
    on. A run that was stopped, by Ctrl-C or otherwise, goes on from its last checkpoint when it is
    called with the same arguments, and ends with the same files.

    Parameters
    ----------
    explainer
        Of a model with one image as its input and a vector as its output.
    dataset
        What :func:`relprop.datasets.open_dataset` returns.
    regions
        Ways of cutting images into regions: words that :func:`regions_of` knows, or Regions by
        their names.
    folder
        Where the results go, and the checkpoints before them.
    target
        ``"argmax"``, or ``"label"`` for the true class.
    class_map
        For each of the dataset's classes those of the model of which it is made. With the target
        ``"label"`` the one of them with the highest score is explained. Without a map, classes of
        the same name or index are the same.
    batch
        Images at once; no influence on the result.
    workers
        Threads that decode images ahead.
    limit
        How many items to read; all where it is None.
    most_rejected
        The share of rejected items beyond which the run stops, once it has seen 100.
    checkpoint_seconds
        How often a checkpoint is written.
    resume
        Whether to go on from a checkpoint in the folder; else one is refused like other results.
    force
        Whether to begin anew and overwrite what the folder holds.
    keep_maps, maps_dtype
        ``"zarr"`` or ``"virelay"`` to keep every map as well, see :class:`KeptMaps`.
    command
        What the results name as the command that made them.
    progress
        Whether to show on the terminal how far the run is.

    Returns
    -------
    RunResult
        What the files in the folder hold.

    Raises
    ------
    TooManyRejectedError
        If more items were rejected than may be, or all. A checkpoint stays in the folder.
    FileExistsError
        If the folder holds other results; the message says what differs.
    BlockingIOError
        If another run is writing there.
    KeyboardInterrupt
        If Ctrl-C or SIGTERM stopped the run; a checkpoint stays in the folder.
    TypeError, ValueError, OSError
        If an argument does not fit, or a file cannot be written.
    """
    check_reading(batch, workers, limit, most_rejected)
    check_folder(folder, dataset)
    run = Run.of(explainer, dataset, regions, target, class_map, limit)
    fingerprint = run.fingerprint | {"maps": keep_maps and f"{keep_maps} {maps_dtype}"}
    with locked(folder):
        begun = begin(folder, results_in, fingerprint, resume=resume, force=force)
        if begun is not None and begun.finished:
            return finished_before(folder, begun, command)
        tally = Tally(run.new_state() if begun is None else RunState.from_bytes(begun.state))
        saving = Saving(
            folder / CHECKPOINT, lambda: tally.checkpoint(fingerprint), checkpoint_seconds
        )
        if begun is None:
            saving.save()  # which says whose folder it is
        else:
            tally.count(begun)
        if keep_maps is not None:
            shape, names = explainer.attribution_shape, run.output_names
            kept = 0 if begun is None else begun.kept
            tally.maps = KeptMaps(folder, keep_maps, shape, names, maps_dtype, kept)
        bar = RunProgress(count(run.part), tally.position, len(tally.rejected), progress)
        with interruptible() as interruption, bar.live():
            for outcomes in run.outcomes(stretch(run.part, tally.position), batch, workers):
                before = len(tally.rejected)
                for outcome in outcomes:
                    tally.add(outcome)
                    if tally.too_many(most_rejected):
                        saving.save()
                        raise tally.refusal(folder)
                bar.advance(len(outcomes), len(tally.rejected) - before)
                if interruption.asked:
                    saving.save()
                    raise tally.interruption()
                saving.save_when_due()
        return conclude(folder, tally, fingerprint, command)


class Run:
    """What a run does with each item, apart from the folder in which it leaves its results.

    Parameters are those of :func:`aggregate`.
    """

    def __init__(
        self,
        explainer: Explainer,
        part: Dataset,
        regions: Mapping[str, Regions],
        target: Target,
        classes: Classes,
        fingerprint: Fingerprint,
    ) -> None:
        self.part = part
        self.fingerprint = fingerprint
        outputs = explainer.graph[explainer.graph.output].shape[0]
        self.output_names = Classes(explainer.model, outputs, of_dataset=part.classes).names
        self._explainer = explainer
        self._regions = regions
        self._classes = classes
        self._explaining = Explaining(explainer, regions, target, classes)

    @classmethod
    def of(
        cls,
        explainer: Explainer,
        dataset: Dataset,
        regions: Sequence[str] | Mapping[str, Regions],
        target: Target,
        class_map: ClassMap | None,
        limit: int | None,
    ) -> Run:
        """Check the arguments, and make the run that they describe."""
        check_classifier(explainer)
        (outputs,) = explainer.graph[explainer.graph.output].shape
        ways = regions
        if not isinstance(regions, Mapping):
            words = [regions] if isinstance(regions, str) else regions
            ways = {word: regions_of(word, dataset.classes) for word in words}
        assert isinstance(ways, Mapping)
        classes = Classes(explainer.model, outputs, class_map, dataset.classes)
        part = stretch(dataset, 0, limit)
        fingerprint = {
            "command": "aggregate",
            **of_explainer(explainer),
            "target": target,
            "regions": {name: ", ".join(one.names) for name, one in ways.items()},
            **of_items(part, limit, class_map),
        }
        return cls(explainer, part, ways, target, classes, fingerprint)

    def new_state(self) -> RunState:
        """Return a state that has seen nothing."""
        channels, height, width = self._explainer.attribution_shape
        regions = {name: one.names for name, one in self._regions.items()}
        groups = 1 + (len(self.part.classes) or len(self._classes.names))
        canvas = _canvas(height, width, groups)
        return RunState(self._classes.names, regions, canvas, channels)

    def outcomes(self, part: Dataset, batch: int, workers: int) -> Iterator[list[Outcome]]:
        """Explain a part of the dataset, in batches and in its order."""
        preprocessing = self._explainer.model.preprocessing
        samples_ahead = read_ahead(part, preprocessing, workers, AHEAD * batch)
        for samples in batches(samples_ahead, batch):
            yield self._explaining(samples)


class Tally(Rejections):
    """What a run knows after the items so far."""

    def __init__(
        self, state: RunState, position: int = 0, rejected: Iterable[tuple[str, str]] = ()
    ) -> None:
        super().__init__(position, rejected)
        self.state = state
        self.maps: KeptMaps | None = None

    def add(self, outcome: Outcome) -> None:
        """Count the next item."""
        if isinstance(outcome, Rejected):
            self.reject(outcome)
        else:
            self.state.update(outcome.records)
            if self.maps is not None:
                self.maps.add(
                    KeptMap(outcome.relevance, outcome.scores, outcome.target, self.position)
                )
        self.position += 1

    def count(self, checkpoint: Checkpoint) -> None:
        """Count the items of another part of the run, apart from its state."""
        self.position += checkpoint.position
        self.rejected += checkpoint.rejected

    def checkpoint(self, fingerprint: Fingerprint, finished: bool = False) -> Checkpoint:
        """Return what a checkpoint holds, once all maps are on disk."""
        kept = 0
        if self.maps is not None:
            self.maps.flush()
            kept = self.maps.count
        state = self.state.to_bytes()
        return Checkpoint(fingerprint, state, self.position, kept, self.rejected, finished)


def finished_before(folder: Path, begun: Checkpoint, command: Sequence[str]) -> RunResult:
    """Return what a finished run left; write its results where they are not all there."""
    state = RunState.from_bytes(begun.state)
    if not is_complete(folder, state):
        write_results(folder, state, begun, command)
    return RunResult(state, begun.position, begun.rejected, before=True)


def conclude(
    folder: Path, tally: Tally, fingerprint: Fingerprint, command: Sequence[str]
) -> RunResult:
    """Write the results of a run that has seen every item."""
    used = tally.state.count
    checkpoint = tally.checkpoint(fingerprint, finished=used > 0)
    checkpoint.write(folder / CHECKPOINT)
    if not used:
        raise tally.refusal(folder)
    write_results(folder, tally.state, checkpoint, command)
    return RunResult(tally.state, tally.position, tally.rejected)


def _canvas(height: int, width: int, classes: int) -> tuple[int, int]:
    """The size of average maps: the input's, or what there is memory for."""
    scale = min(1.0, (MAP_BYTES / (32 * classes * height * width)) ** 0.5)
    return max(1, int(height * scale)), max(1, int(width * scale))
