"""Batches of what comes one after the other."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import islice
from typing import TypeVar

T = TypeVar("T")


def batches(values: Iterable[T], size: int) -> Iterator[list[T]]:
    """Return lists of ``size`` values, the last one of what is left."""
    values = iter(values)
    while batch := list(islice(values, size)):
        yield batch
