"""From samples to records: what a run explains of each item, and why it cannot use an item."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from relprop.aggregation.records import Record, records_of
from relprop.aggregation.regions import Regions
from relprop.datasets import Rejected, Sample
from relprop.explain import Explainer, Result
from relprop.runs.classes import TARGETS, Classes, Target
from relprop.runs.samples import explained_or_rejected, rejection, truth_of


@dataclass(frozen=True)
class Explained:
    """A sample's record for each way of cutting it into regions; what else the network said.

    ``relevance`` is (C, H, W), ``scores`` (outputs,) and ``target`` the output that is explained.
    """

    records: Mapping[str, Record]
    relevance: NDArray[np.float32]
    scores: NDArray[np.float32]
    target: int


@dataclass(frozen=True)
class _Prepared:
    """A sample that can be explained: its true class, its pixels' regions by way of cutting."""

    sample: Sample
    truth: int
    labels: Mapping[str, NDArray[np.int32]]


Outcome: TypeAlias = Explained | Rejected


class Explaining:
    """Explains samples, many at once; how they are divided into batches changes nothing.

    Parameters
    ----------
    explainer
        Of a model with one image as its input and a vector as its output.
    regions
        The ways of cutting images into regions, by name.
    target
        ``"argmax"``, or ``"label"`` for the true class; where that is made of several of the
        model's, for the one with the highest score.
    classes
        What the dataset's classes are in the model.
    """

    def __init__(
        self,
        explainer: Explainer,
        regions: Mapping[str, Regions],
        target: Target,
        classes: Classes,
    ) -> None:
        if target not in TARGETS:
            raise ValueError(f"target must be one of {', '.join(TARGETS)}, not {target!r}.")
        self._explainer = explainer
        self._regions = regions
        self._target = target
        self._classes = classes
        self._shared: dict[str, NDArray[np.int32]] = {}

    def __call__(self, samples: Sequence[Sample | Rejected]) -> list[Outcome]:
        """Return an outcome for each sample, in their order."""
        outcomes: list[Any] = [self._prepared(sample) for sample in samples]
        places = [i for i, one in enumerate(outcomes) if isinstance(one, _Prepared)]
        explained = explained_or_rejected([outcomes[i] for i in places], self._explained)
        for i, outcome in zip(places, explained, strict=True):
            outcomes[i] = outcome
        return outcomes

    def _prepared(self, sample: Sample | Rejected) -> _Prepared | Rejected:
        if isinstance(sample, Rejected):
            return sample
        try:
            truth = truth_of(sample, self._explainer, self._classes, self._target)
            return _Prepared(sample, truth, self._labels(sample))
        except (ValueError, OSError) as error:  # the latter of a user's own regions
            return rejection(sample.key, error)

    def _labels(self, sample: Sample) -> dict[str, NDArray[np.int32]]:
        """Each pixel's region, for each way of cutting."""
        found = {}
        for name, regions in self._regions.items():
            if not regions.shared:
                found[name] = regions.labels(sample)
            else:
                if name not in self._shared:
                    self._shared[name] = regions.labels(sample)
                found[name] = self._shared[name]
        return found

    def _explained(self, batch: Sequence[_Prepared]) -> list[Explained]:
        pixels = np.stack([one.sample.pixels for one in batch])
        target = "argmax" if self._target == "argmax" else self._true_outputs(pixels, batch)
        result = self._explainer(pixels, target=target)
        records = {name: self._records(name, result, batch) for name in self._regions}
        return [
            Explained(
                {name: of_batch[i] for name, of_batch in records.items()},
                result.relevance[i],
                result.scores[i],
                int(result.target[i]),
            )
            for i in range(len(batch))
        ]

    def _true_outputs(
        self, pixels: NDArray[np.float32], batch: Sequence[_Prepared]
    ) -> NDArray[np.int64]:
        """The model's class for each sample's, of several the one with the highest score."""
        candidates = [self._classes.outputs(one.truth) for one in batch]
        if all(len(one) == 1 for one in candidates):
            return np.array(candidates, np.int64).reshape(-1)
        scores = self._explainer.forward(pixels)
        return np.array(
            [self._classes.output(one.truth, of) for one, of in zip(batch, scores)], np.int64
        )

    def _records(self, name: str, result: Result, batch: Sequence[_Prepared]) -> list[Record]:
        regions = self._regions[name]
        first = batch[0].labels[name][None]
        records = records_of(
            result,
            [one.sample.key for one in batch],
            [one.truth for one in batch],
            first if regions.shared else np.stack([one.labels[name] for one in batch]),
            len(regions.names),
        )
        return [
            replace(record, predicted=self._classes.predicted(record.predicted, record.label))
            for record in records
        ]
