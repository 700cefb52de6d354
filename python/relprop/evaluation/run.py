"""A run over a dataset: read ahead, explain by every method, judge; stop at any moment and go on.

What comes out depends on the items, the settings and the seed alone: not on batches, on the number
of workers or on where a run was interrupted.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from relprop.datasets import Dataset, Rejected, read_ahead
from relprop.evaluation.colours import Colours
from relprop.evaluation.cutting import Cutting, number_of_regions
from relprop.evaluation.judging import Judging, Outcome
from relprop.evaluation.ordering import By
from relprop.evaluation.perturbations import Perturbation
from relprop.evaluation.perturbing import Score
from relprop.evaluation.record_file import RecordFile
from relprop.evaluation.results import (
    LAST,
    RECORDS,
    Results,
    require_packages,
    results_in,
)
from relprop.evaluation.settings import RANDOM_ORDER, Settings
from relprop.evaluation.statistics import TABLES, Tables
from relprop.explain import Explainer
from relprop.runs.arguments import check_classifier, check_folder, check_reading
from relprop.runs.batches import batches
from relprop.runs.checkpoint import Checkpoint
from relprop.runs.classes import Classes, ClassMap, Target
from relprop.runs.fingerprint import Fingerprint, of_items, of_method, of_network
from relprop.runs.folder import CHECKPOINT, begin, locked
from relprop.runs.interruption import interruptible
from relprop.runs.progress import RunProgress
from relprop.runs.rejections import Rejections
from relprop.runs.saving import Saving
from relprop.runs.stretch import count, stretch

TOGETHER = 8
"""Images that are explained at once at most: judging them takes far longer than that."""

AHEAD = 4
"""Times as many are decoded ahead."""


@dataclass
class EvaluationResult:
    """A finished run.

    ``items`` were read, of which ``used`` were judged; ``rejected`` has a key and a reason for each
    of the others. ``tables`` are those of ``result.json``, lists of rows: ``aopc``, ``abpc``,
    ``differences``, ``metrics``. ``before`` says that an earlier run had done everything.
    """

    items: int
    used: int
    rejected: list[tuple[str, str]]
    tables: Tables
    before: bool = False

    @classmethod
    def of(cls, content: Mapping[str, Any], before: bool = False) -> EvaluationResult:
        """Make one of what ``result.json`` holds."""
        rejected = [(one["key"], one["reason"]) for one in content["rejected"]]
        tables = {name: content[name] for name in TABLES if name in content}
        return cls(content["items"], content["used"], rejected, tables, before)


def evaluate(
    explainers: Mapping[str, Explainer],
    dataset: Dataset,
    *,
    folder: Path,
    orders: Sequence[str] = ("morf", "random"),
    perturbations: Sequence[str | Perturbation] | Mapping[str, Perturbation] = ("uniform",),
    regions: str | Cutting = "9",
    by: By = "sum",
    steps: int = 100,
    repeats: int = 10,
    score: Score = "logit",
    target: Target = "argmax",
    class_map: ClassMap | None = None,
    metrics: Sequence[str] = (),
    seed: int = 0,
    level: float = 0.95,
    resamples: int = 10_000,
    batch: int = 32,
    workers: int = 2,
    limit: int | None = None,
    most_rejected: float = 0.05,
    checkpoint_seconds: float = 60.0,
    resume: bool = True,
    force: bool = False,
    command: Sequence[str] = (),
    progress: bool = False,
) -> EvaluationResult:
    """Judge methods by perturbing the images of a dataset (Samek et al. 2017), and by their maps.

    All methods explain the same class of the same output, and share the random numbers of an image.
    An item that cannot be used is listed with its reason in ``rejected.csv``, and the run goes on.
    A run that was stopped, by Ctrl-C or otherwise, goes on from its last checkpoint when it is
    called with the same arguments, and ends with the same files.

    Parameters
    ----------
    explainers
        The methods, by the names that results have for them: of one model with one image as its
        input and a vector as its output.
    dataset
        What :func:`relprop.datasets.open_dataset` returns.
    folder
        Where the results go, and the checkpoints before them.
    orders
        In which orders regions are taken: ``"morf"``, ``"lerf"``, ``"random"``. A random order is
        the same for all methods, and computed once.
    perturbations
        What is put in their place: words that :func:`relprop.evaluation.perturbation_of` knows,
        perturbations, or perturbations by their names.
    regions
        How images are cut: a side in pixels such as ``"9"``, ``"pixels"``, ``"superpixels"``,
        ``"superpixels:200"``, ``"masks"``, or a Cutting.
    by
        Whether the ``"sum"`` or the ``"mean"`` of its pixels' relevance ranks a region.
    steps
        How many regions are taken of each image.
    repeats
        How often random draws are repeated.
    score
        ``"logit"`` or ``"probability"`` of the class that is judged.
    target
        ``"argmax"`` for the predicted class, or ``"label"`` for the true one.
    class_map
        For each of the dataset's classes those of the model of which it is made, as in
        :func:`relprop.aggregation.run.aggregate`.
    metrics
        Figures of the maps: ``"pointing_game"``, ``"relevance_mass"``, ``"relevance_rank"``,
        ``"top_k:K"`` (which need boxes or masks), ``"gini"``, ``"entropy"``.
    seed
        Of all random draws.
    level, resamples
        The share of bootstrap replicates that intervals hold, and how many are drawn.
    batch
        Images that go through the network at once; no influence on the result.
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
    command
        What the results name as the command that made them.
    progress
        Whether to show on the terminal how far the run is.

    Returns
    -------
    EvaluationResult
        What the files in the folder hold.

    Raises
    ------
    TooManyRejectedError
        If more items were rejected than may be, or all. A checkpoint stays in the folder.
    FileExistsError
        If the folder holds other results; the message says what differs.
    BlockingIOError
        If another run is writing there.
    ImportError
        If a package is missing; the extra ``evaluation`` brings all.
    KeyboardInterrupt
        If Ctrl-C or SIGTERM stopped the run; a checkpoint stays in the folder.
    TypeError, ValueError, OSError
        If an argument does not fit, or a file cannot be written.
    """
    check_reading(batch, workers, limit, most_rejected)
    check_folder(folder, dataset)
    require_packages()
    network = _network(explainers)
    settings = Settings.of(
        orders=orders,
        perturbations=perturbations,
        regions=regions,
        metrics=metrics,
        preprocessing=network.model.preprocessing,
        by=by,
        steps=steps,
        repeats=repeats,
        score=score,
        target=target,
        seed=seed,
        level=level,
        resamples=resamples,
    )
    run = Run(explainers, network, dataset, settings, class_map, limit, batch, workers)
    with locked(folder):
        begun = begin(folder, results_in, run.fingerprint, resume=resume, force=force)
        if begun is not None and begun.finished and (folder / LAST).exists():
            return EvaluationResult.of(run.results.read(folder), before=True)
        records = RecordFile(folder / RECORDS, *run.shapes, None if begun is None else begun.state)
        try:
            tally = Tally(records, run.fingerprint)
            if begun is not None:
                tally.position, tally.rejected = begun.position, begun.rejected
            saving = Saving(folder / CHECKPOINT, tally.checkpoint, checkpoint_seconds)
            if begun is None:
                saving.save()  # which says whose folder it is
            if begun is None or not begun.finished:
                bar = RunProgress(count(run.part), tally.position, len(tally.rejected), progress)
                _judge(run, tally, saving, bar, folder, most_rejected)
            return _conclude(run, tally, folder, command)
        finally:
            records.close()


def _judge(
    run: Run,
    tally: Tally,
    saving: Saving,
    bar: RunProgress,
    folder: Path,
    most_rejected: float,
) -> None:
    """Judge every item that is left."""
    with interruptible() as interruption, bar.live():

        def within(share: float) -> None:
            bar.within(share)
            if interruption.asked:
                raise _Asked

        try:
            for outcome in run.outcomes(tally.position, within):
                tally.add(outcome)
                if tally.too_many(most_rejected):
                    saving.save()
                    raise tally.refusal(folder)
                bar.advance(1, isinstance(outcome, Rejected))
                if interruption.asked:
                    raise _Asked
                saving.save_when_due()
        except _Asked:
            saving.save()
            raise tally.interruption() from None


def _conclude(run: Run, tally: Tally, folder: Path, command: Sequence[str]) -> EvaluationResult:
    """Write the results of a run that has seen every item."""
    checkpoint = tally.checkpoint(finished=tally.records.count > 0)
    checkpoint.write(folder / CHECKPOINT)
    if not tally.records.count:
        raise tally.refusal(folder)
    content = run.results.write(folder, tally.records, checkpoint, command)
    return EvaluationResult.of(content)


class _Asked(Exception):
    """A signal asks the run to stop."""


class Tally(Rejections):
    """What a run knows after the items so far."""

    def __init__(self, records: RecordFile, fingerprint: Fingerprint) -> None:
        super().__init__()
        self.records = records
        self._fingerprint = fingerprint

    def add(self, outcome: Outcome) -> None:
        """Count the next item."""
        if isinstance(outcome, Rejected):
            self.reject(outcome)
        else:
            self.records.append(outcome)
        self.position += 1

    def checkpoint(self, finished: bool = False) -> Checkpoint:
        """Return what a checkpoint holds, once all records are on the disk."""
        state = self.records.state()
        return Checkpoint(
            self._fingerprint, state, self.position, rejected=self.rejected, finished=finished
        )


class Run:
    """What a run does with each item, apart from the folder in which it leaves its results.

    Parameters are those of :func:`evaluate`; ``network`` is one of the explainers.
    """

    def __init__(
        self,
        explainers: Mapping[str, Explainer],
        network: Explainer,
        dataset: Dataset,
        settings: Settings,
        class_map: ClassMap | None,
        limit: int | None,
        batch: int,
        workers: int,
    ) -> None:
        model, shape = network.model, network.graph.inputs[0].shape
        known = model.preprocessing
        settings.try_out(shape, None if known is None else Colours.of(known))
        outputs = network.graph[network.graph.output].shape[0]
        classes = Classes(model, outputs, class_map, dataset.classes)
        self.part = stretch(dataset, 0, limit)
        methods = tuple(explainers)
        self.shapes = (
            (len(settings.rows(methods)), settings.steps + 1),
            (len(methods), len(settings.metrics)),
        )
        self.results = Results(
            classes.names,
            Classes(model, outputs, of_dataset=dataset.classes).names,
            methods,
            settings,
        )
        self.fingerprint = {
            "command": "evaluate",
            **of_network(network),
            "methods": {name: of_method(one) for name, one in explainers.items()},
            **settings.fingerprint(),
            **of_items(self.part, limit, class_map),
        }
        self._judging = Judging(explainers, settings, classes, batch)
        self._passes = settings.passes(
            len(methods), number_of_regions(settings.cutting, *shape[1:])
        )
        self._together = min(batch, TOGETHER)
        self._workers = workers
        self._preprocessing = known

    def outcomes(self, position: int, within: Callable[[float], None]) -> Iterator[Outcome]:
        """Judge the items from a position on, in their order.

        ``within`` is told between forward passes which share of an item is done.
        """
        samples = read_ahead(
            stretch(self.part, position),
            self._preprocessing,
            self._workers,
            AHEAD * self._together,
        )
        done = 0

        def told(passes: int) -> None:
            nonlocal done
            within(min(1.0, done / self._passes))
            done += passes

        for batch in batches(samples, self._together):
            for outcome in self._judging(batch, told):
                done = 0
                yield outcome


def _network(explainers: Mapping[str, Explainer]) -> Explainer:
    """Check that the methods can be compared, and return one of them."""
    if not explainers:
        raise ValueError("explainers must be at least one, not none.")
    if RANDOM_ORDER in explainers:
        raise ValueError(f"no method can be called {RANDOM_ORDER!r}.")
    for name, one in explainers.items():
        if not isinstance(one, Explainer):
            raise TypeError(f"explainers[{name!r}] must be an Explainer, not {type(one).__name__}.")
    first, *others = explainers.values()
    check_classifier(first)
    for name, one in zip(list(explainers)[1:], others):
        if not _same(first, one):
            raise ValueError(
                f"explainers must be of one output of one model on one device; {name!r} is not."
            )
    return first


def _same(one: Explainer, other: Explainer) -> bool:
    if one.model is other.model:
        arithmetic = (one.graph.output, one.device, one.precision)
        return arithmetic == (other.graph.output, other.device, other.precision)
    return of_network(one) == of_network(other)
