"""A stretch of a dataset, from one item to another: where a run begins and ends."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Any

from relprop.datasets import Dataset, Item, Rejected


def stretch(dataset: Dataset, start: int = 0, stop: int | None = None, step: int = 1) -> Dataset:
    """Return the items from ``start`` to before ``stop``, every ``step``-th.

    Of a dataset whose items can only be had one after the other (``sliced`` is missing), those
    before ``start`` are passed over, without being decoded.
    """
    if (start, stop, step) == (0, None, 1):
        return dataset
    whole: Any = dataset
    if hasattr(whole, "sliced"):
        part: Dataset = whole.sliced(slice(start, stop, step))
        return part
    return Stretch(dataset, start, stop, step)


def count(dataset: Dataset) -> int | None:
    """Return the number of items, None where it is not known."""
    try:
        return len(dataset)  # type: ignore[arg-type]
    except TypeError:
        return None


def digest(dataset: Dataset) -> str | None:
    """Return a hash of what a dataset knows of its items unread, None where that is nothing."""
    known: Any = dataset.whole if isinstance(dataset, Stretch) else dataset
    return known.digest() if hasattr(known, "digest") else None


@dataclass(frozen=True)
class Stretch:
    """The items of ``whole`` from ``start`` to before ``stop``, every ``step``-th."""

    whole: Dataset
    start: int
    stop: int | None
    step: int

    @property
    def name(self) -> str:
        """What the dataset is called."""
        return self.whole.name

    @property
    def classes(self) -> tuple[str, ...]:
        """The dataset's classes."""
        return self.whole.classes

    def __iter__(self) -> Iterator[Item | Rejected]:
        return islice(iter(self.whole), self.start, self.stop, self.step)

    def shard(self, index: int, count: int) -> Dataset:
        """Return one of ``count`` disjoint parts that make up the whole."""
        return Stretch(self, index, None, count)
