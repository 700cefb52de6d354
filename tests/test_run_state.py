"""The state of a run that cuts images in several ways."""

from __future__ import annotations

import numpy as np
import pytest

from relprop.aggregation.records import Record
from relprop.aggregation.run_state import RunState

REGIONS = {"halves": ("top", "bottom"), "whole": ("all",)}


def state(canvas: tuple[int, int] = (2, 2)) -> RunState:
    return RunState(("cat", "dog"), REGIONS, canvas, channels=1)


def records(seed: int) -> dict[str, Record]:
    """One item, cut in both ways."""
    relevance = np.random.default_rng(seed).standard_normal((2, 2)).astype(np.float32)
    halves = [(row.sum(), row.clip(0).sum(), 2) for row in relevance.astype(np.float64)]
    whole = np.sum(halves, axis=0, keepdims=True)
    return {
        name: Record(
            str(seed), seed % 2, 0, 1.0, np.array(sums), whole[0, :1].copy(), map=relevance
        )
        for name, sums in (("halves", halves), ("whole", whole))
    }


def filled(seeds: range) -> RunState:
    made = state()
    for seed in seeds:
        made.update(records(seed))
    return made


def test_tables_say_which_way_of_cutting_a_row_is_of() -> None:
    tables = filled(range(6)).tables()
    assert [(row["cut"], row["class"], row["region"]) for row in tables["regions"]] == [
        ("halves", "cat", "top"),
        ("halves", "cat", "bottom"),
        ("halves", "dog", "top"),
        ("halves", "dog", "bottom"),
        ("whole", "cat", "all"),
        ("whole", "dog", "all"),
    ]
    assert [row["count"] for row in tables["classes"]] == [3, 3]
    assert "cut" not in tables["classes"][0]


def test_average_maps_are_kept_once() -> None:
    made = filled(range(6))
    maps = np.stack([records(seed)["halves"].map for seed in (0, 2, 4)]).astype(np.float64)
    np.testing.assert_allclose(made.average_maps()["cat"].mean, maps.mean(axis=0), rtol=1e-12)
    assert made.aggregates["whole"].average_maps()["cat"].mean.shape == (1, 1)


def test_bytes_and_merging() -> None:
    left, right, whole = filled(range(4)), filled(range(4, 9)), filled(range(9))
    left.merge(RunState.from_bytes(right.to_bytes()))
    assert left.count == whole.count == 9
    assert left.tables() == whole.tables()
    assert RunState.from_bytes(whole.to_bytes()).to_bytes() == whole.to_bytes()


def test_what_does_not_fit_is_refused() -> None:
    with pytest.raises(ValueError, match="states merge where their settings are equal"):
        state().merge(state((3, 3)))
    with pytest.raises(ValueError, match="regions must have at least one entry"):
        RunState(("cat",), {}, (2, 2))
