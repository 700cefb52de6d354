"""Sums over regions and channels are those of plain loops, the same whatever the batch."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from conftest import without_gpu
from device_arrays import DeviceArray
from relprop import _core

Sums = tuple[NDArray[np.float64], NDArray[np.float64]]


def plain(values: NDArray[np.float32], labels: NDArray[np.int32], count: int) -> Sums:
    """The same sums by numpy, region by region."""
    n, channels, height, width = values.shape
    wide = values.reshape(n, channels, height * width).astype(np.float64)
    labels = np.broadcast_to(labels, (n, height, width)).reshape(n, height * width)
    sums = np.zeros((len(values), count, 3))
    for sample, of in enumerate(wide.sum(axis=1)):
        for region in range(count):
            inside = of[labels[sample] == region]
            positive = np.where(inside < 0, 0.0, inside)
            sums[sample, region] = inside.sum(), positive.sum(), inside.size
    return sums, wide.sum(axis=2)


@st.composite
def cases(draw: st.DrawFn) -> tuple[NDArray[np.float32], NDArray[np.int32], int]:
    """Relevance, labels of long and short runs, a number of regions; some regions are empty."""
    n, channels = draw(st.integers(0, 4)), draw(st.integers(0, 4))
    height, width = draw(st.integers(0, 40)), draw(st.integers(0, 70))
    count = draw(st.sampled_from([1, 2, 3, 12, 500]))
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    values = rng.standard_normal((n, channels, height, width), np.float32)
    labels = rng.integers(-1, count, (draw(st.sampled_from([1, n])), height, width), np.int32)
    if draw(st.booleans()):
        labels[:] = labels[:, :, :1]  # whole rows
    if values.size and draw(st.booleans()):
        values.reshape(-1)[rng.integers(values.size)] = draw(st.sampled_from([np.nan, np.inf]))
    return values, labels, count


def assert_close(got: Sums, expected: Sums) -> None:
    assert np.array_equal(got[0][..., 2], expected[0][..., 2])
    for one, other in zip(got, expected):
        np.testing.assert_allclose(one, other, rtol=1e-12, atol=1e-10)


@settings(deadline=None)
@given(cases())
def test_sums_are_those_of_loops(case: tuple[NDArray[np.float32], NDArray[np.int32], int]) -> None:
    assert_close(_core.region_sums(*case), plain(*case))


def test_neither_batch_nor_threads_change_a_bit() -> None:
    rng = np.random.default_rng(0)
    values = rng.standard_normal((5, 3, 61, 67), np.float32)
    labels = rng.integers(-1, 4, (5, 61, 67), np.int32)
    expected = _core.region_sums(values, labels, 4)
    before = _core.threads()
    try:
        for threads in (1, 3):
            _core.set_threads(threads)
            for sample in range(5):
                one = slice(sample, sample + 1)
                got = _core.region_sums(values[one], labels[one], 4)
                for part, whole in zip(got, expected):
                    assert np.array_equal(part[0], whole[sample])
    finally:
        _core.set_threads(before)


@pytest.mark.parametrize("name", ["portable", "avx2", "avx512"])
def test_every_instruction_set_sums(name: str) -> None:
    code = (
        "import sys; sys.path.insert(0, 'tests')\n"
        "import test_region_sums; test_region_sums.test_sums_are_those_of_loops()"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "RELPROP_ISA": name},
        cwd=os.path.dirname(os.path.dirname(__file__)),
        capture_output=True,
        text=True,
    )
    if name != "portable" and "RELPROP_ISA must name" in done.stderr:
        pytest.skip(f"this machine has no {name}")
    assert done.returncode == 0, done.stderr


@pytest.mark.gpu
@pytest.mark.parametrize("shared", [False, True])
def test_a_gpu_sums_what_is_in_its_memory(shared: bool) -> None:
    if reason := without_gpu():
        pytest.skip(f"no GPU: {reason}")
    rng = np.random.default_rng(1)
    values = rng.standard_normal((5, 3, 31, 33), np.float32)
    labels = rng.integers(-1, 7, (1 if shared else 5, 31, 33), np.int32)
    assert_close(_core.region_sums(DeviceArray(values), labels, 7, gpu=0), plain(values, labels, 7))
    with pytest.raises(ValueError, match="not be 6"):
        _core.region_sums(DeviceArray(values), labels, 6, gpu=0)
    nothing = DeviceArray(values[:0], data=(0, False))
    for found, expected in zip(
        _core.region_sums(nothing, labels[:0], 7, gpu=0), plain(values[:0], labels[:0], 7)
    ):
        np.testing.assert_array_equal(found, expected)
    with pytest.raises(TypeError, match="must be in the device's memory"):
        _core.region_sums(values, labels, 7, gpu=0)
    with pytest.raises(TypeError, match="where no GPU is named"):
        _core.region_sums(DeviceArray(values), labels, 7)


def refusals() -> Iterator[tuple[str, dict[str, object], type[Exception], str]]:
    values = np.zeros((2, 3, 4, 5), np.float32)
    labels = np.zeros((2, 4, 5), np.int32)
    bad = labels.copy()
    bad[1, 2, 3] = 7
    yield "wide values", {"values": values.astype(np.float64)}, TypeError, "values must be float32"
    yield "values' order", {"values": values.transpose(0, 1, 3, 2)}, ValueError, "C-contiguous"
    yield "flat values", {"values": values[0, 0]}, ValueError, "a pixel axis"
    yield "wide labels", {"labels": labels.astype(np.int64)}, TypeError, "labels must be int32"
    yield "labels' order", {"labels": np.zeros((2, 5, 4), np.int32)}, ValueError, r"\(2, 4, 5\)"
    yield "no sample's", {"labels": labels[0]}, ValueError, r"shape \(2, 4, 5\), not \(4, 5\)"
    yield "no region", {"count": 0}, ValueError, "count must be >= 1, not 0"
    yield "a label beyond", {"labels": bad}, ValueError, r"in \[-1, 3\), not be 7 at \(1, 2, 3\)"
    yield "a label below", {"labels": labels - 2}, ValueError, r"not be -2 at \(0, 0, 0\)"


@pytest.mark.parametrize(("changed", "error", "text"), [one[1:] for one in refusals()],
                         ids=[one[0] for one in refusals()])  # fmt: skip
def test_what_is_refused(changed: dict[str, object], error: type[Exception], text: str) -> None:
    sound = {
        "values": np.zeros((2, 3, 4, 5), np.float32),
        "labels": np.zeros((2, 4, 5), np.int32),
        "count": 3,
    }
    with pytest.raises(error, match=text):
        _core.region_sums(**{**sound, **changed})  # type: ignore[arg-type]
