"""Stretches of datasets, whether these can be sliced or only read in order."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from relprop.datasets import Dataset, open_dataset
from relprop.runs.stretch import count, digest, stretch

IMAGES = [np.full((1, 2, 2), value, np.float32) for value in range(11)]


class InOrder:
    """Elements that can only be had one after the other."""

    def __iter__(self) -> Any:
        return iter(IMAGES)


@pytest.fixture(params=["folder", "indexed", "in order"])
def dataset(request: pytest.FixtureRequest, tmp_path: Path) -> Dataset:
    if request.param == "folder":
        for number in range(11):
            Image.new("RGB", (2, 2)).save(tmp_path / f"{number:02}.png")
        return open_dataset(tmp_path)
    return open_dataset(IMAGES if request.param == "indexed" else InOrder(), name="images")


def keys(dataset: Dataset) -> list[int]:
    return [int(item.key.partition(".")[0]) for item in dataset]


@pytest.mark.parametrize("start", [0, 3, 11, 12])
@pytest.mark.parametrize("stop", [None, 1, 7, 20])
def test_a_stretch_has_the_items_of_a_slice(dataset: Dataset, start: int, stop: int | None) -> None:
    part = stretch(dataset, start, stop)
    expected = list(range(11))[start:stop]
    assert keys(part) == expected
    assert count(part) in (len(expected), None)
    assert (part.name, part.classes) == (dataset.name, dataset.classes)
    assert keys(stretch(part, 2)) == expected[2:]
    shards = [keys(part.shard(index, 3)) for index in range(3)]
    assert shards == [expected[index::3] for index in range(3)]


def test_what_is_known_of_items_has_a_digest(tmp_path: Path) -> None:
    for name in ("a.tar", "b.tar"):
        (tmp_path / name).touch()
    dataset = open_dataset(tmp_path)
    assert digest(stretch(dataset, 0, 1)) == digest(dataset) is not None
    assert digest(stretch(open_dataset(InOrder()), 0, 1)) is None


def test_items_before_the_start_are_not_read() -> None:
    class Counting(list):  # type: ignore[type-arg]
        read = 0

        def __getitem__(self, index: Any) -> Any:
            type(self).read += 1
            return super().__getitem__(index)

    elements = Counting(IMAGES)
    assert keys(stretch(open_dataset(elements), 8)) == [8, 9, 10]
    assert Counting.read == 3
