"""States merge in any order into what one of them holds after all items, and survive as bytes."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import reduce
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import relprop
from fuzzing import fuzz
from networks import ResNet20, initialise
from relprop.aggregation import (
    Aggregate,
    ChannelState,
    ConservationState,
    ContextState,
    ExtremeState,
    Grid,
    InsideBoxes,
    MapState,
    Record,
    Regions,
    RegionState,
    State,
    Thirds,
    on_canvas,
    outside_inside_ratio,
    records_of,
)
from test_regions import Box, Sample

CLASSES = ("cat", "dog", "horse")
REGIONS = ("inside", "outside")
CANVAS = (3, 4)


def new_aggregate() -> Aggregate:
    return Aggregate(CLASSES, REGIONS, CANVAS, channels=2, extremes=3, bound=1e-3)


STATES: list[Callable[[], State]] = [
    lambda: RegionState(REGIONS),
    ContextState,
    lambda: MapState(CANVAS),
    lambda: ExtremeState(REGIONS, 3),
    lambda: ChannelState(2),
    lambda: ConservationState(1e-3),
    new_aggregate,
]
KINDS = [state().kind for state in STATES]
every_state = pytest.mark.parametrize("new", STATES, ids=KINDS)


def record(rng: np.random.Generator, key: str, **changed: Any) -> Record:
    """An item of any class, with relevance over many magnitudes; now and then there is none."""
    height, width = CANVAS if rng.random() < 0.7 else rng.integers(1, 9, 2)
    relevance = rng.standard_normal((2, height, width)) * 10.0 ** rng.integers(-6, 6)
    relevance *= rng.random() > 0.1
    of_map = relevance.sum(axis=0).astype(np.float32)
    cut = int(rng.integers(0, height + 1))
    parts = (of_map[:cut], of_map[cut:])
    sums = [[part.sum(dtype=float), part[part > 0].sum(dtype=float), part.size] for part in parts]
    total = float(relevance.sum())
    absorbed = float(rng.standard_normal()) if rng.random() < 0.8 else None
    made = Record(
        key=key,
        label=int(rng.integers(-1, 3)),
        predicted=int(rng.integers(-1, 3)),
        score=total + (absorbed or 0.0) + float(rng.standard_normal()) * 1e-3,
        region_sums=np.array(sums),
        channel_sums=relevance.sum(axis=(1, 2)),
        map=of_map,
        absorbed=absorbed,
        ledger_error=None if absorbed is None else float(rng.random() * 2e-3),
    )
    return replace(made, **changed)


def some_records(seed: int, count: int) -> list[Record]:
    rng = np.random.default_rng(seed)
    return [record(rng, f"photo {rng.integers(count + 3)}") for _ in range(count)]


def after(new: Callable[[], State], records: Sequence[Record]) -> State:
    state = new()
    for one in records:
        state.update(one)
    return state


def plain(value: Any) -> Any:
    """Results as lists and numbers that pytest can compare."""
    if isinstance(value, dict):
        return {key: plain(part) for key, part in value.items()}
    if isinstance(value, list):
        return [plain(part) for part in value]
    if hasattr(value, "variance"):
        return [value.count, value.mean.ravel().tolist(), value.variance.ravel().tolist()]
    return value


def assert_close(got: Any, expected: Any, scale: float = 0.0) -> None:
    """Equal, floats to 1e-12."""
    if isinstance(expected, dict):
        assert got.keys() == expected.keys()
        for key in expected:
            assert_close(got[key], expected[key], scale)
    elif isinstance(expected, (list, tuple)):
        assert len(got) == len(expected)
        for one, other in zip(got, expected):
            assert_close(one, other, scale)
    elif isinstance(expected, float):
        assert got == pytest.approx(expected, rel=1e-12, abs=1e-12 * scale, nan_ok=True)
    else:
        assert got == expected


# --- Merging -----------------------------------------------------------------------------------


@every_state
@settings(deadline=None, max_examples=30)
@given(data=st.data())
def test_shards_merge_in_any_order(new: Callable[[], State], data: st.DataObject) -> None:
    """The sums of any order are even the same bits, but where a last bit is in the balance."""
    records = some_records(data.draw(st.integers(0, 2**32)), data.draw(st.integers(0, 25)))
    shards: list[list[Record]] = [[] for _ in range(data.draw(st.integers(1, 5)))]
    for one in data.draw(st.permutations(records)):
        shards[data.draw(st.integers(0, len(shards) - 1))].append(one)
    states = [after(new, shard) for shard in shards]
    while len(states) > 1:  # a tree that is drawn
        one = states.pop(data.draw(st.integers(0, len(states) - 1)))
        states[data.draw(st.integers(0, len(states) - 1))].merge(one)
    assert_close(plain(states[0].result()), plain(after(new, records).result()))


@every_state
def test_merging_leaves_the_other_one_alone(new: Callable[[], State]) -> None:
    one, other = after(new, some_records(1, 9)), after(new, some_records(2, 9))
    held = other.to_bytes()
    one.merge(other)
    one.update(some_records(3, 1)[0])
    assert other.to_bytes() == held


@every_state
def test_an_empty_state_changes_nothing(new: Callable[[], State]) -> None:
    state = after(new, some_records(1, 9))
    held = state.to_bytes()
    state.merge(new())
    assert state.to_bytes() == held
    empty = new()
    empty.merge(state)
    assert empty.to_bytes() == held


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (RegionState(REGIONS), RegionState(("a", "b"))),
        (MapState((3, 4)), MapState((4, 3))),
        (ExtremeState(REGIONS, 3), ExtremeState(REGIONS, 4)),
        (ConservationState(1e-5), ConservationState(1e-4)),
        (ChannelState(3), ContextState()),
    ],
)
def test_states_of_other_settings_do_not_merge(one: State, other: State) -> None:
    with pytest.raises(ValueError, match="states merge where their settings are equal"):
        one.merge(other)


def test_how_batches_are_cut_changes_no_bit() -> None:
    records = some_records(5, 20)
    whole, parts = new_aggregate(), new_aggregate()
    whole.update(records)
    for begin in range(0, 20, 3):
        parts.update(records[begin : begin + 3])
    assert parts.to_bytes() == whole.to_bytes()
    assert whole.count == 20


# --- Against numpy over all items --------------------------------------------------------------


def moments(values: list[Any]) -> tuple[Any, Any]:
    return np.mean(values, axis=0), np.std(values, axis=0)


@given(seed=st.integers(0, 2**32))
@settings(deadline=None, max_examples=20)
def test_regions_and_channels_are_numpys(seed: int) -> None:
    records = some_records(seed, 30)
    tables = after(new_aggregate, records).result()
    for row in tables["classes"]:
        own = [r for r in records if name_of(r.label) == row["class"]]
        recognised = sum(r.label == r.predicted != -1 for r in own)
        assert (row["count"], row["recognised"]) == (len(own), recognised)
    for row in [*tables["regions"], *tables["pairs"]]:
        own = [r for r in records if name_of(r.label) == row["class"]]
        if "predicted" in row:
            own = [r for r in own if name_of(r.predicted) == row["predicted"]]
        assert row["count"] == len(own)
        check_region(row, own)
    for row in tables["channels"]:
        own = [r for r in records if name_of(r.label) == row["class"]]
        check_moments(row, "", [r.channel_sums[row["channel"]] for r in own])


def name_of(label: int) -> str | None:
    return None if label < 0 else CLASSES[label]


def check_region(row: dict[str, Any], own: list[Record]) -> None:
    at = REGIONS.index(row["region"])
    for column, name in enumerate(("relevance", "positive", "pixels")):
        check_moments(row, f"{name}_", [r.region_sums[at, column] for r in own])
    fractions = [r.region_sums[at, 0] / r.score for r in own if r.score != 0]
    check_moments(row, "fraction_", fractions)
    positive = [r for r in own if r.region_sums[:, 1].sum() > 0]
    shares = [r.region_sums[at, 1] / r.region_sums[:, 1].sum() for r in positive]
    check_moments(row, "share_", shares)
    assert row["share_undefined"] == len(own) - len(shares)
    assert row["fraction_undefined"] == len(own) - len(fractions)


def check_moments(row: dict[str, Any], begin: str, values: list[float]) -> None:
    if not values:
        assert row[f"{begin}mean"] is None and row[f"{begin}std"] is None
        return
    mean, deviation = moments(values)
    size = max(np.abs(values))
    assert row[f"{begin}mean"] == pytest.approx(mean, rel=1e-12, abs=1e-12 * size)
    assert row[f"{begin}std"] == pytest.approx(deviation, rel=1e-7, abs=1e-7 * size)


def test_maps_are_numpys() -> None:
    records = some_records(3, 40)
    state = new_aggregate()
    state.update(records)
    for name, average in state.average_maps().items():
        own = [on_canvas(r.map, CANVAS) for r in records if name_of(r.label) == name]
        mean, deviation = moments(own)
        size = np.abs(own).max()
        assert average.count == len(own)
        np.testing.assert_allclose(average.mean, mean, rtol=1e-12, atol=1e-12 * size)
        np.testing.assert_allclose(average.deviation, deviation, rtol=1e-7, atol=1e-7 * size)


def test_extremes_are_the_first_of_the_sorted() -> None:
    records = [*some_records(8, 50), *some_records(8, 20)]  # with ties
    for row in after(new_aggregate, records).result()["extremes"]:
        at = REGIONS.index(row["region"])
        sign = -1 if row["end"] == "largest" else 1
        own = [r for r in records if name_of(r.label) == row["class"]]
        shares = [(sign * r.shares[at], r.key) for r in own if r.shares is not None]
        share, key = sorted(shares)[row["rank"] - 1]
        assert (row["share"], row["key"]) == (sign * share, key)


def ratio_record(inside: float, outside: float, within: int = 2, beyond: int = 4) -> Record:
    sums = np.array([[inside, inside, within], [outside, outside, beyond]])
    of_map = np.zeros((1, within + beyond), np.float32)
    return Record("photo", 1, 1, 1.0, sums, np.zeros(2), of_map)


def test_mu_is_the_ratio_of_means() -> None:
    assert outside_inside_ratio(ratio_record(1.0, 4.0).region_sums) == 2.0  # (4 / 4) / (1 / 2)
    assert outside_inside_ratio(ratio_record(1.0, 0.0).region_sums) == 0.0
    for undefined in ((0.0, 1.0, 2, 4), (0.0, 0.0, 2, 4), (1.0, 0.0, 2, 0), (0.0, 1.0, 0, 2)):
        assert outside_inside_ratio(ratio_record(*undefined).region_sums) is None


def test_mu_has_a_mean_and_a_median() -> None:
    ratios = [0.0, 0.25, 0.3, 3.0, 1e9]
    state = ContextState()
    for ratio in ratios:
        state.update(ratio_record(1.0, 2 * ratio))
    state.update(ratio_record(0.0, 1.0))
    state.update(replace(ratio_record(1.0, 2.0), predicted=2))
    every, recognised = state.result()
    assert (every["count"], every["undefined"]) == (7, 1)
    assert (recognised["count"], recognised["undefined"]) == (6, 1)
    assert recognised["mu_mean"] == pytest.approx(np.mean(ratios), rel=1e-12)
    assert recognised["mu_median"] == pytest.approx(0.3, rel=0.05)


@given(st.lists(st.floats(1e-5, 1e5), min_size=1).filter(lambda all_: len(all_) % 2 == 1))
def test_the_median_is_right_within_a_bin(ratios: list[float]) -> None:
    state = ContextState()
    for ratio in ratios:
        state.update(ratio_record(1.0, 2 * ratio))
    assert state.result()[0]["mu_median"] == pytest.approx(float(np.median(ratios)), rel=0.05)


def test_items_beyond_the_bound_are_counted_and_the_worst_kept() -> None:
    state = ConservationState(1e-3)
    rng = np.random.default_rng(0)
    errors = rng.permutation(np.arange(1, 301) * 1e-5)
    for i, error in enumerate(errors):
        state.update(record(rng, f"{i:03}", absorbed=0.0, ledger_error=float(error)))
    row = state.result()[0]
    assert (row["level"], row["count"], row["beyond"]) == ("ledger", 300, 200)
    assert row["largest_error"] == errors.max()
    assert row["mean_error"] == pytest.approx(errors.mean(), rel=1e-12)
    kept = [one["key"] for one in state.beyond() if one["level"] == "ledger"]
    assert kept == [f"{i:03}" for i in np.argsort(-errors)[:100]]


def test_a_loss_shows_at_its_level() -> None:
    """A map of 4, of which the channels hold 3, the regions 2 and the ledger says 1."""
    lossy = Record(
        "photo", 0, 0, 1.0, np.array([[1.0, 1.0, 2], [1.0, 1.0, 2]]), np.array([1.0, 2.0]),
        np.ones((2, 2), np.float32), absorbed=0.0, ledger_error=0.5,
    )  # fmt: skip
    rows = after(ConservationState, [lossy]).result()
    assert [row["largest_error"] for row in rows] == [0.5, 2 / 4, 1 / 4, 1 / 4]


def test_regions_that_leave_out_pixels_are_not_compared() -> None:
    whole = record(np.random.default_rng(0), "photo", ledger_error=0.0)
    part = replace(whole, region_sums=whole.region_sums - [0, 0, 1], absorbed=None)
    rows = after(ConservationState, [part]).result()
    assert [row["count"] for row in rows] == [1, 0, 1, 0]
    assert rows[3]["largest_error"] is None


# --- What is refused ---------------------------------------------------------------------------


def test_a_batch_with_a_bad_record_leaves_no_trace() -> None:
    state = new_aggregate()
    sound = some_records(0, 3)
    for changed, text in (
        ({"label": 3}, "there are 3 classes; label and predicted are 3"),
        ({"predicted": -2}, "label and predicted"),
        ({"channel_sums": np.zeros(3)}, "2 regions and 2 channels, not 2 and 3"),
        ({"region_sums": np.zeros((1, 3))}, "not 1 and 2"),
    ):
        with pytest.raises(ValueError, match=f"bad: .*{text}"):
            state.update([*sound, replace(sound[0], key="bad", **changed)])
    assert state.to_bytes() == new_aggregate().to_bytes()


@pytest.mark.parametrize(
    "changed",
    [
        {"score": math.nan},
        {"absorbed": math.inf},
        {"channel_sums": np.array([math.nan, 0.0])},
        {"map": np.full((2, 2), np.nan, np.float32)},
        {"region_sums": np.zeros((2, 2))},
        {"map": np.zeros(3, np.float32)},
    ],
)
def test_a_record_is_finite_and_has_its_shapes(changed: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"photo: (a record must be finite|region_sums, channel)"):
        record(np.random.default_rng(0), "photo", **changed)


def test_mu_needs_two_regions() -> None:
    with pytest.raises(ValueError, match="needs the regions inside and outside, not 3"):
        ContextState().update(record(np.random.default_rng(0), "k", region_sums=np.zeros((3, 3))))
    assert "context" not in Aggregate(CLASSES, ("top", "rest"), CANVAS).tables()


# --- Bytes -------------------------------------------------------------------------------------


@every_state
@pytest.mark.parametrize("count", [0, 30])
def test_bytes_hold_everything(new: Callable[[], State], count: int) -> None:
    state = after(new, some_records(4, count))
    data = state.to_bytes()
    assert data == state.to_bytes()
    again = type(state).from_bytes(data)
    assert again.to_bytes() == data
    assert_close(plain(again.result()), plain(state.result()))
    again.update(some_records(5, 1)[0])
    state.update(some_records(5, 1)[0])
    assert again.to_bytes() == state.to_bytes()


def test_the_size_of_bytes_does_not_grow_with_the_items() -> None:
    few, many = (len(after(new_aggregate, some_records(0, n)).to_bytes()) for n in (300, 3000))
    assert many < 1.2 * few


def changed_entry(data: bytes, **changed: Any) -> bytes:
    """The same bytes with other JSON in their metadata."""
    length = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + length])
    entry = {**json.loads(header["__metadata__"]["relprop.state"]), **changed}
    header["__metadata__"]["relprop.state"] = json.dumps(entry)
    text = json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + data[8 + length :]


def test_other_bytes_are_refused_in_words() -> None:
    data = after(new_aggregate, some_records(0, 5)).to_bytes()
    for bad, text in (
        (changed_entry(data, format=2), "of format 2; this relprop reads format 1"),
        (changed_entry(data, kind="maps"), "of kind 'aggregate', not 'maps'"),
        (changed_entry(data, content={}), "altered"),
        (data[:-1], "truncated or altered"),
        (data[:100], "damaged, or no state"),
        (b"", "damaged, or no state"),
        (b"PK\3\4 something else", "damaged, or no state"),
    ):
        with pytest.raises(ValueError, match=text):
            Aggregate.from_bytes(bad)


BYTES = after(new_aggregate, some_records(0, 5)).to_bytes()


@fuzz(200)
@given(at=st.integers(0, len(BYTES) - 1), by=st.integers(1, 255))
def test_no_altered_byte_goes_unseen(at: int, by: int) -> None:
    altered = bytearray(BYTES)
    altered[at] ^= by
    try:
        again = Aggregate.from_bytes(bytes(altered))
    except ValueError:
        return
    assert again.to_bytes() == BYTES  # white space in the header, say


# --- A real network ----------------------------------------------------------------------------


@pytest.fixture(scope="module")
def explained() -> tuple[relprop.Result, Any]:
    import torch

    images = np.random.default_rng(0).standard_normal((6, 3, 32, 32), np.float32)
    model = relprop.load(initialise(ResNet20()), torch.from_numpy(images[:1]))
    return relprop.Explainer(model, "epsilon_plus_flat")(images), images


BOXES = (Box(3.2, 5.0, 20.7, 30.5, "cat"), Box(10, 0, 12, 32, "dog"))


@pytest.mark.parametrize("regions", [Thirds(), Grid(3, 5), InsideBoxes("cat")])
def test_relevance_is_conserved_at_every_level(regions: Regions, explained: Any) -> None:
    """Sum of regions = sum of pixels = f(x) less what the ledger says was absorbed."""
    result, images = explained
    samples = [Sample(image, boxes=BOXES, key=f"{i}") for i, image in enumerate(images)]
    labels = np.stack([regions.labels(sample) for sample in samples])
    truths = [0, 1, 2, 0, 1, -1]
    keys = [sample.key for sample in samples]
    records = records_of(result, keys, truths, labels, len(regions.names))
    aggregate = Aggregate([str(i) for i in range(10)], regions.names, (32, 32))
    aggregate.update(records)
    tables = aggregate.tables()
    assert [row["count"] for row in tables["conservation"]] == [6] * 4
    assert all(row["largest_error"] < 1e-5 for row in tables["conservation"])
    assert not tables["beyond"]
    left = result.ledger.initial - result.ledger.absorbed
    by_class = {row["class"]: row["count"] for row in tables["classes"]}
    for name, count in by_class.items():
        own = [i for i, truth in enumerate(truths) if (None if truth < 0 else str(truth)) == name]
        rows = [row for row in tables["regions"] if row["class"] == name]
        total = count * sum(row["relevance_mean"] for row in rows)
        assert total == pytest.approx(left[own].sum(), rel=1e-3, abs=1e-4)
    average = reduce(np.add, [of.count * of.mean for of in aggregate.average_maps().values()])
    assert average.sum() == pytest.approx(left.sum(), rel=1e-3, abs=1e-4)


def test_a_run_without_ledger_has_fewer_levels(explained: Any) -> None:
    result, images = explained
    labels = Thirds().labels(Sample(images[0]))[None]
    bare = replace(result, ledger=None)
    records = records_of(bare, list("abcdef"), [-1] * 6, labels, 3)
    rows = after(ConservationState, records).result()
    assert [row["count"] for row in rows] == [0, 0, 6, 6]
    assert records[0].score == np.float64(result.scores[0].max())
    with pytest.raises(ValueError, match="must have 6 entries, not 1 and 6"):
        records_of(bare, ["a"], [-1] * 6, labels, 3)
