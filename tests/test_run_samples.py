"""Samples of a run: which is to blame where a batch fails, and how that is said."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from relprop.datasets import Rejected, Sample
from relprop.runs.samples import explained_or_rejected, rejection


@dataclass(frozen=True)
class Prepared:
    sample: Sample


def prepared(key: str) -> Prepared:
    return Prepared(Sample(key, np.zeros((1, 1, 1), np.float32), None, (), (), ()))


def explain(batch: Sequence[Prepared]) -> Iterator[str]:
    for one in batch:
        if one.sample.key == "bad":
            raise ValueError("bad: it is.")
        yield one.sample.key.upper()


def test_one_sample_that_fails_spares_the_others() -> None:
    batch = [prepared(key) for key in ("a", "bad", "b")]
    assert explained_or_rejected(batch, explain) == ["A", Rejected("bad", "it is."), "B"]


def test_what_fails_at_once_only_is_explained_one_by_one() -> None:
    sizes = []

    def alone(batch: Sequence[Prepared]) -> Iterator[str]:
        sizes.append(len(batch))
        if len(batch) > 1:
            raise ValueError("too many.")
        return explain(batch)

    assert explained_or_rejected([prepared("a"), prepared("b")], alone) == ["A", "B"]
    assert sizes == [2, 1, 1]
    assert explained_or_rejected([], alone) == []
    assert sizes == [2, 1, 1], "of nothing nothing is asked"


def test_a_reason_does_not_say_the_key_again() -> None:
    assert rejection("photo.jpg", ValueError("photo.jpg: no photo.")).reason == "no photo."
    assert rejection("photo.jpg", ValueError("no photo.")).reason == "no photo."
