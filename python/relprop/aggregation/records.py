"""Record: all that aggregation keeps of one item: its relevance, its regions and its ledger."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from relprop import _core
from relprop.arrays import to_numpy
from relprop.explain import Result
from relprop.runs.classes import NO_LABEL

SUM, POSITIVE, PIXELS = range(3)
"""Columns of ``Record.region_sums``."""


@dataclass(frozen=True)
class Record:
    """What one item adds to the states.

    ``label`` is the true class, -1 where it is not known, ``predicted`` the class that the model
    says, -1 where that is none. ``score`` is f(x), the relevance that was set at the output.
    ``region_sums`` (R, 3) holds for each region the sum of relevance, that of its positive part
    and the number of pixels, ``channel_sums`` (C,) each channel's sum; both are float64, as
    ``relprop._core.region_sums`` returns them. ``map`` (H, W) is the float32 relevance, its
    channels summed. ``absorbed`` is what the ledger says went no further, ``ledger_error`` its
    closure error, ``magnitude`` its largest sum of magnitudes; without a ledger the first two
    are None.
    """

    key: str
    label: int
    predicted: int
    score: float
    region_sums: NDArray[np.float64]
    channel_sums: NDArray[np.float64]
    map: NDArray[np.float32]
    absorbed: float | None = None
    ledger_error: float | None = None
    magnitude: float = 0.0

    def __post_init__(self) -> None:
        shapes = self.region_sums.shape, self.channel_sums.ndim, self.map.ndim
        if shapes != ((len(self.region_sums), 3), 1, 2):
            raise ValueError(
                f"{self.key}: region_sums, channel_sums and map must have shapes (R, 3), (C,) and "
                f"(H, W), not {self.region_sums.shape}, {self.channel_sums.shape} and "
                f"{self.map.shape}."
            )
        numbers = (self.score, self.absorbed or 0.0, self.ledger_error or 0.0, self.magnitude)
        arrays = (self.region_sums, self.channel_sums, self.map, np.array(numbers))
        if not all(np.isfinite(array).all() for array in arrays):
            raise ValueError(f"{self.key}: a record must be finite.")

    @property
    def fractions(self) -> NDArray[np.float64] | None:
        """Each region's fraction of f(x), (R,); None where f(x) is (nearly) 0."""
        return _divided(self.region_sums[:, SUM], self.score)

    @property
    def shares(self) -> NDArray[np.float64] | None:
        """Each region's share of the regions' positive relevance, (R,); None where there is none.

        For inside and outside this is the relevance mass accuracy.
        """
        return _divided(self.region_sums[:, POSITIVE], float(self.region_sums[:, POSITIVE].sum()))


def _divided(sums: NDArray[np.float64], by: float) -> NDArray[np.float64] | None:
    """The quotients; None where they would be too large to be squared and summed."""
    if abs(by) * 1e100 <= np.abs(sums).max(initial=0.0):
        return None
    quotients: NDArray[np.float64] = sums / by
    return quotients


def recognised(label: int) -> list[tuple[int, int]]:
    """The pairs of a true and a predicted class in which the class is recognised: one, or none."""
    return [] if label == NO_LABEL else [(label, label)]


def records_of(
    result: Result,
    keys: Sequence[str],
    truths: Sequence[int],
    labels: NDArray[np.int32],
    count: int,
) -> list[Record]:
    """Make the records of a batch.

    Parameters
    ----------
    result
        What an Explainer returned for images (N, C, H, W), with one target each.
    keys, truths
        Each sample's key and true class, -1 where that is not known.
    labels
        Each pixel's region or -1, (N, H, W), or (1, H, W) where all samples share them.
    count
        The number of regions.
    """
    relevance = np.ascontiguousarray(to_numpy(result.relevance, "relevance"), np.float32)
    scores = to_numpy(result.scores, "scores").reshape(len(relevance), -1)
    if not len(keys) == len(truths) == len(relevance):
        raise ValueError(
            f"keys and truths must have {len(relevance)} entries, not {len(keys)} and "
            f"{len(truths)}."
        )
    sums, channels = _core.region_sums(relevance, labels, count)
    maps = relevance.sum(axis=1)
    ledger = result.ledger
    if ledger is None:
        starts = scores[np.arange(len(keys)), result.target].astype(np.float64)
        accounts = [(None, None, 0.0)] * len(keys)
    else:
        starts = ledger.initial
        magnitudes = ledger.magnitude.max(axis=1, initial=0.0)
        accounts = list(zip(ledger.absorbed, ledger.closure_error, magnitudes))
    return [
        Record(
            key=keys[i],
            label=int(truths[i]),
            predicted=int(scores[i].argmax()),
            score=float(starts[i]),
            region_sums=sums[i],
            channel_sums=channels[i],
            map=maps[i],
            absorbed=accounts[i][0],
            ledger_error=accounts[i][1],
            magnitude=accounts[i][2],
        )
        for i in range(len(keys))
    ]
