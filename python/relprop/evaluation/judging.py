"""From samples to records: what every method says of an image, and how it is judged."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from relprop.datasets import Rejected, Sample
from relprop.datasets.items import Label
from relprop.evaluation.localisation import box_mask
from relprop.evaluation.maps import maps_of
from relprop.evaluation.perturbing import CurveRequest, Perturbing
from relprop.evaluation.record_file import Record
from relprop.evaluation.segments import Labels
from relprop.evaluation.settings import RANDOM_ORDER, Settings
from relprop.explain import Explainer
from relprop.runs.classes import NO_LABEL, Classes, UnknownClassError
from relprop.runs.samples import explained_or_rejected, rejection, truth_of

Outcome: TypeAlias = Record | Rejected

Passed = Callable[[int], None]
"""Is told before each batch of forward passes how many they are; it may raise, to stop."""


@dataclass(frozen=True, eq=False)
class _Prepared:
    """A sample that can be judged: its true class, its pixels' regions."""

    sample: Sample
    truth: int
    regions: Labels


@dataclass(frozen=True, eq=False)
class _Explained:
    """A sample, the output that is judged, its score, and every method's map, (methods, H, W)."""

    sample: Sample
    truth: int
    regions: Labels
    target: int
    predicted: int
    score: float
    maps: NDArray[np.float64]


class Judging:
    """Judges the explanations of samples; neither batches nor other samples show in a record.

    Parameters
    ----------
    explainers
        The methods by their names, all for one output of one model, which takes one image and gives
        a vector of scores.
    settings
        How they are judged.
    classes
        What the dataset's classes are in the model.
    batch
        How many images go through the network at once.
    """

    def __init__(
        self,
        explainers: Mapping[str, Explainer],
        settings: Settings,
        classes: Classes,
        batch: int,
    ) -> None:
        self._explainers = explainers
        self._network = next(iter(explainers.values()))
        self._settings = settings
        self._classes = classes
        self._batch = batch
        self._rows = settings.rows(tuple(explainers))
        self._perturbing = Perturbing(
            self._network,
            steps=settings.steps,
            repeats=settings.repeats,
            score=settings.score,
            seed=settings.seed,
            batch=batch,
            passed=lambda count: self._passed(count),
        )
        self._passed: Passed = lambda count: None

    def __call__(
        self, samples: Sequence[Sample | Rejected], passed: Passed = lambda count: None
    ) -> Iterator[Outcome]:
        """Explain samples at once, and return an outcome for each, in their order, as it comes."""
        self._passed = passed
        prepared = [self._prepared(one) for one in samples]
        usable = [one for one in prepared if isinstance(one, _Prepared)]
        explained = iter(explained_or_rejected(usable, self._explained))
        for one in prepared:
            outcome = one if isinstance(one, Rejected) else next(explained)
            yield outcome if isinstance(outcome, Rejected) else self._judged(outcome)

    # ---- explaining --------------------------------------------------------------------------

    def _prepared(self, sample: Sample | Rejected) -> _Prepared | Rejected:
        if isinstance(sample, Rejected):
            return sample
        try:
            target = self._settings.target
            truth = truth_of(sample, self._network, self._classes, target, known=False)
            return _Prepared(sample, truth, self._settings.cutting.labels(sample))
        except (ValueError, OSError) as error:  # the latter of a user's own cutting
            return rejection(sample.key, error)

    def _explained(self, batch: Sequence[_Prepared]) -> Iterator[_Explained]:
        pixels = np.stack([one.sample.pixels for one in batch])
        scores = self._network.forward(pixels)
        best = scores.argmax(axis=1)
        targets = best
        if self._settings.target == "label":
            of_class = [self._classes.output(one.truth, of) for one, of in zip(batch, scores)]
            targets = np.array(of_class, np.int64)
        maps = np.stack(
            [maps_of(each(pixels, target=targets).relevance) for each in self._explainers.values()],
            axis=1,
        )
        for i, one in enumerate(batch):
            target, predicted = int(targets[i]), self._classes.predicted(int(best[i]), one.truth)
            score = float(scores[i, target])
            yield _Explained(one.sample, one.truth, one.regions, target, predicted, score, maps[i])

    # ---- judging -----------------------------------------------------------------------------

    def _judged(self, one: _Explained) -> Outcome:
        try:
            return Record(
                one.sample.key,
                one.truth,
                one.predicted,
                one.target,
                one.score,
                self._curves(one),
                self._metrics(one),
            )
        except (ValueError, OSError) as error:
            return rejection(one.sample.key, error)

    def _curves(self, one: _Explained) -> NDArray[np.float64]:
        """The mean over repeats of every row's curve, (rows, steps + 1)."""
        maps = dict(zip(self._explainers, one.maps))
        wanted = [
            CurveRequest(
                one.regions,
                self._settings.perturbations[row.perturbation],
                "random" if row.method == RANDOM_ORDER else row.order,  # type: ignore[arg-type]
                maps.get(row.method),
                self._settings.by,
            )
            for row in self._rows
        ]
        found = self._perturbing.curves(one.sample.key, one.sample.pixels, wanted, one.target)
        return np.stack([scores.mean(axis=0) for scores in found.scores])

    def _metrics(self, one: _Explained) -> NDArray[np.float64]:
        """Every method's figures, (methods, metrics)."""
        metrics = self._settings.metrics
        mask = self._mask(one) if any(metric.localising for metric in metrics) else None
        return np.array(
            [[metric(of_method, mask) for metric in metrics] for of_method in one.maps], np.float64
        ).reshape(len(one.maps), len(metrics))

    def _mask(self, one: _Explained) -> NDArray[np.bool_] | None:
        """What masks of the class that is judged cover, or else its boxes; None without any."""
        sample, wanted = one.sample, self._classes.predicted(one.target, one.truth)
        if wanted == NO_LABEL:
            return None
        own = [
            mask
            for mask, label in zip(sample.masks, sample.mask_labels)
            if self._number(label, one) == wanted
        ]
        if own:
            return np.asarray(np.stack(own).any(axis=0))
        boxes = [box for box in sample.boxes if self._number(box.label, one) == wanted]
        return box_mask(boxes, *sample.pixels.shape[-2:]) if boxes else None

    def _number(self, label: Label | None, one: _Explained) -> int | None:
        """The class of an annotation; the sample's own where it has none."""
        if label is None:
            return one.truth
        try:
            return self._classes.truth(label)
        except UnknownClassError:
            return None
