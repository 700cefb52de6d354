"""Stretch: a part of a dataset, from one item to another, where a run begins and ends."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice

from relprop.datasets import Dataset, Item, Rejected


@dataclass(frozen=True)
class Stretch:
    """The items of ``whole`` from ``start`` to before ``stop``, every ``step``-th.

    Items before ``start`` are passed over without being decoded.
    """

    whole: Dataset
    start: int = 0
    stop: int | None = None
    step: int = 1

    @property
    def name(self) -> str:
        """What the dataset is called."""
        return self.whole.name

    @property
    def classes(self) -> tuple[str, ...]:
        """The dataset's classes."""
        return self.whole.classes

    @property
    def count(self) -> int | None:
        """The number of items; None where it is not known."""
        try:
            length = len(self.whole)  # type: ignore[arg-type]
        except TypeError:
            return None
        return len(range(length)[self.start : self.stop : self.step])

    def __iter__(self) -> Iterator[Item | Rejected]:
        return islice(iter(self.whole), self.start, self.stop, self.step)

    def shard(self, index: int, count: int) -> Dataset:
        """Return one of ``count`` disjoint parts that make up the whole."""
        if (self.start, self.stop, self.step) == (0, None, 1):
            return self.whole.shard(index, count)
        return Stretch(self, index, None, count)
