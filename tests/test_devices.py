"""Devices: which there are, arrays in their memory, samples that come in parts, what goes wrong."""

from __future__ import annotations

import ctypes
import os
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import fields
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

import reference
from conftest import without_gpu
from device_arrays import DeviceArray, runtime
from relprop import Explainer, Result, _core
from relprop.arrays import Arrays, _CupyOnGpu, _Host, _TorchOnGpu
from relprop.compile import Compiled, compile_plan
from relprop.composites import assign, preset
from relprop.devices import gpu_of
from relprop.ledger import Ledger
from relprop.rules import WSquare
from test_threads import network

IMAGES = np.random.default_rng(1).standard_normal((150, 3, 24, 24)).astype(np.float32)
PRESETS = ("epsilon", "epsilon_plus_flat", "alpha2_beta1", "gradient")

on_gpu = pytest.mark.gpu


def relative_error(found: np.ndarray, truth: np.ndarray) -> float:
    return float(np.linalg.norm(found - truth) / np.linalg.norm(truth))


def ledger_of_reference(composite: str, x: np.ndarray, target: np.ndarray) -> np.ndarray:
    """Relevance that reaches each node, summed in float64: ``[samples, nodes]``."""
    explainer = Explainer(network(), composite)
    graph = explainer.graph
    scores = reference.forward(graph, x)[graph.output]
    chosen = np.where(np.arange(scores.shape[1]) == target[:, None], scores, 0)
    found, _ = reference.relevance(graph, explainer.rules, x, chosen)
    return np.stack([reference.per_sample(found[node.name]) for node in graph], axis=1)


@pytest.fixture
def gpu() -> int:
    if reason := without_gpu():
        pytest.skip(f"no GPU: {reason}")
    return 0


@pytest.mark.parametrize("name", ["tpu", "cuda:", "cuda:x", "cuda:-1", "cpu:0", "CUDA", ""])
def test_what_is_no_device_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match="device must be"):
        gpu_of(name)


def test_the_cpu_is_no_gpu() -> None:
    assert gpu_of("cpu") is None


def test_a_gpu_that_is_not_there_is_refused() -> None:
    with pytest.raises(
        RuntimeError, match=r"built without CUDA|no NVIDIA driver|there is no GPU 77"
    ):
        Explainer(network(), "epsilon", device="cuda:77")


def test_a_cpu_knows_one_precision() -> None:
    with pytest.raises(ValueError, match='precision must be float32 on a CPU, not "tf32"'):
        Explainer(network(), "epsilon", device="cpu", precision="tf32")
    with pytest.raises(ValueError, match="precision must be float32, tf32 or bf16"):
        Explainer(network(), "epsilon", precision="half")  # type: ignore[arg-type]


# ---- numpy's arrays, copied --------------------------------------------------------------------


@on_gpu
@pytest.mark.parametrize("composite", PRESETS)
def test_a_gpu_explains_as_the_cpu_does(gpu: int, composite: str) -> None:
    expected = Explainer(network(), composite, device="cpu")(IMAGES[:5])
    result = Explainer(network(), composite, device="cuda")(IMAGES[:5])
    assert relative_error(result.scores, expected.scores) < 1e-5
    assert relative_error(result.relevance, expected.relevance) < 1e-4
    np.testing.assert_array_equal(result.target, expected.target)
    if expected.ledger is not None:
        assert result.ledger is not None
        assert result.ledger.closure_error.max() < 1e-6
        # Sums of hundreds, of which rounding the scores alone takes 3e-7 on either device.
        truth = ledger_of_reference(composite, IMAGES[:5], expected.target)
        largest = np.abs(truth).max(axis=1, keepdims=True)
        for found in (result.ledger.relevance, expected.ledger.relevance):
            assert (np.abs(found - truth) / largest).max() < 1e-6


@on_gpu
def test_samples_that_come_in_parts_are_as_those_alone(gpu: int) -> None:
    explainer = Explainer(network(), "epsilon_plus_flat", device="cuda")
    every = explainer(IMAGES, intermediate=["pool"])
    for first, count in ((0, 1), (63, 2), (64, 1), (100, 50)):
        part = slice(first, first + count)
        few = explainer(IMAGES[part], every.target[part].tolist(), intermediate=["pool"])
        np.testing.assert_array_equal(few.relevance, every.relevance[part])
        np.testing.assert_array_equal(few.scores, every.scores[part])
        np.testing.assert_array_equal(few.intermediate["pool"], every.intermediate["pool"][part])
        np.testing.assert_array_equal(few.activations["pool"], every.activations["pool"][part])
        assert few.ledger is not None
        assert every.ledger is not None
        np.testing.assert_array_equal(few.ledger.stabilizer, every.ledger.stabilizer[part])


@on_gpu
def test_masks_and_given_relevance(gpu: int) -> None:
    mask = np.zeros((3, 10), bool)
    mask[:, 2:5] = True
    given = np.random.default_rng(2).standard_normal((3, 10)).astype(np.float32)
    for target in (mask, given):
        expected = Explainer(network(), "epsilon", device="cpu")(IMAGES[:3], target)
        result = Explainer(network(), "epsilon", device="cuda")(IMAGES[:3], target)
        assert relative_error(result.relevance, expected.relevance) < 1e-4


@on_gpu
def test_the_first_bad_sample_is_named_whatever_part_it_is_in(gpu: int) -> None:
    explainer = Explainer(network(), "epsilon", device="cuda")
    images = IMAGES.copy()
    images[[70, 120]] = 3e38
    with pytest.raises(ValueError, match="the output is not finite for sample 70 "):
        explainer(images)
    assert np.isfinite(explainer(IMAGES[:1]).relevance).all()


@on_gpu
def test_several_callers_at_once(gpu: int) -> None:
    explainer = Explainer(network(), "epsilon", device="cuda")
    expected = explainer(IMAGES[:8]).relevance
    with ThreadPoolExecutor(4) as pool:
        for found in pool.map(lambda _: explainer(IMAGES[:8]).relevance, range(8)):
            np.testing.assert_array_equal(found, expected)


@on_gpu
@pytest.mark.parametrize(("precision", "bound"), [("tf32", 1e-2), ("bf16", 1e-1)])
def test_less_precise_products_are_near(gpu: int, precision: str, bound: float) -> None:
    expected = Explainer(network(), "epsilon_plus_flat", device="cuda")(IMAGES[:2])
    less = Explainer(network(), "epsilon_plus_flat", device="cuda", precision=precision)  # type: ignore[arg-type]
    error = relative_error(less(IMAGES[:2]).relevance, expected.relevance)
    assert bound / 1e4 < error < bound


@on_gpu
def test_the_second_gpu(gpu: int) -> None:
    try:
        _core.Plan(1)
    except RuntimeError as error:
        pytest.skip(str(error))
    first = Explainer(network(), "epsilon", device="cuda:0")(IMAGES[:2])
    second = Explainer(network(), "epsilon", device="cuda:1")(IMAGES[:2])
    np.testing.assert_array_equal(first.relevance, second.relevance)


@on_gpu
def test_the_device_of_others_stays_in_use(gpu: int) -> None:
    current = ctypes.c_int()

    def in_use() -> int:
        assert runtime().cudaGetDevice(ctypes.byref(current)) == 0
        return current.value

    for own in (0, 1):
        assert runtime().cudaSetDevice(own) == 0
        first = {"first": WSquare()}  # whose sums are computed beforehand
        explainer = Explainer(network(), "epsilon", rules=first, device=f"cuda:{1 - own}")
        assert in_use() == own
        explainer(IMAGES[:2])
        assert in_use() == own
        values = DeviceArray(IMAGES[:1], 1 - own)
        assert runtime().cudaSetDevice(own) == 0
        _core.region_sums(values, np.zeros((1, 24, 24), np.int32), 1, gpu=1 - own)
        assert in_use() == own
    assert runtime().cudaSetDevice(0) == 0


# ---- arrays in place ---------------------------------------------------------------------------


def compiled(gpu: int) -> Compiled:
    graph = network()
    return compile_plan(graph, assign(preset("epsilon_plus_flat"), graph), gpu)


@on_gpu
def test_arrays_in_its_memory_are_read_and_filled_in_place(gpu: int) -> None:
    plan, n = compiled(gpu).plan, 3
    images = IMAGES[:n].reshape(n, -1)
    scores, relevance = np.zeros((n, 10), np.float32), np.zeros_like(images)
    targets = np.zeros(n, np.int64)
    plan.run([images], scores, relevance=[relevance], targets=targets)
    inputs, found = DeviceArray(images), DeviceArray(np.zeros_like(images))
    found_scores, found_targets = DeviceArray(np.zeros_like(scores)), np.zeros(n, np.int64)
    plan.run([inputs], found_scores, relevance=[found], targets=found_targets)
    np.testing.assert_array_equal(found.numpy(), relevance)
    np.testing.assert_array_equal(found_scores.numpy(), scores)
    np.testing.assert_array_equal(found_targets, targets)
    np.testing.assert_array_equal(inputs.numpy(), images)


@on_gpu
@pytest.mark.parametrize(
    ("changed", "error", "message"),
    [
        ({"typestr": "<f8"}, TypeError, "inputs must be float32, not <f8"),
        ({"shape": (3, 1727)}, ValueError, r"inputs must have shape \(3, 1728\), not \(3, 1727\)"),
        ({"strides": (4, 12)}, ValueError, "inputs must be C-contiguous"),
        ({"strides": (6912,)}, ValueError, "inputs must be C-contiguous"),
        ({"mask": IMAGES}, ValueError, "inputs must have no mask"),
        ({"data": (IMAGES.ctypes.data, False)}, ValueError, "inputs must be in the memory of"),
        ({"data": (3, False)}, ValueError, "inputs must be aligned"),
    ],
)  # fmt: skip
def test_other_arrays_are_refused(
    gpu: int, changed: dict[str, object], error: type[Exception], message: str
) -> None:
    plan, images = compiled(gpu).plan, IMAGES[:3].reshape(3, -1)
    scores = DeviceArray(np.zeros((3, 10), np.float32))
    with pytest.raises(error, match=message):
        plan.run([DeviceArray(images, **changed)], scores)
    with pytest.raises(TypeError, match="inputs must be in the device's memory, as scores are"):
        plan.run([images], scores)
    read_only = DeviceArray(scores.host, data=(scores.pointer, True))
    with pytest.raises(ValueError, match="scores must be writeable"):
        plan.run([DeviceArray(images)], read_only)


@on_gpu
def test_a_run_that_fails_leaves_the_next_alone(gpu: int) -> None:
    plan, images = compiled(gpu).plan, DeviceArray(IMAGES[:3].reshape(3, -1))
    scores = DeviceArray(np.zeros((3, 10), np.float32))
    with pytest.raises(RuntimeError, match=r"cudaMemcpyAsync.*: invalid resource handle"):
        plan.run([images], scores, stream=0xDEAD0)  # which a GPU that is there might not survive
    plan.run([images], scores)
    assert scores.numpy().any()


@on_gpu
def test_another_gpus_array_is_refused(gpu: int) -> None:
    plan, images = compiled(gpu).plan, IMAGES[:3].reshape(3, -1)
    scores = DeviceArray(np.zeros((3, 10), np.float32))
    with pytest.raises(ValueError, match="inputs must be in the memory of device 0"):
        plan.run([DeviceArray(images, gpu=1)], scores)


class DeviceOfCupy:
    """Stands in for cupy's: says in whose ``with`` a computation happens."""

    current = 0

    def __init__(self, index: int) -> None:
        self.index = index

    def __enter__(self) -> None:
        self.before, DeviceOfCupy.current = DeviceOfCupy.current, self.index

    def __exit__(self, *_: object) -> None:
        DeviceOfCupy.current = self.before


class ArrayOfCupy(np.ndarray):
    """Stands in for cupy's on GPU 1, which computes where that is the current one."""

    def __array_ufunc__(self, ufunc: np.ufunc, method: str, *inputs: Any, **how: Any) -> Any:
        assert DeviceOfCupy.current == 1
        found = getattr(ufunc, method)(*(np.asarray(one) for one in inputs), **how)
        return as_cupys(found) if isinstance(found, np.ndarray) else found

    def get(self) -> np.ndarray:
        return np.asarray(self)


def as_cupys(array: np.ndarray) -> ArrayOfCupy:
    return array.view(ArrayOfCupy)


@pytest.fixture(params=["numpy", "torch", "cupy"])
def kind(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> tuple[Arrays, Callable[[np.ndarray], Any]]:
    """A kind of arrays, and how one of the host's becomes one of them without any GPU."""
    if request.param == "numpy":
        return _Host(torch=False), np.asarray
    if request.param == "torch":
        return _TorchOnGpu(0), pytest.importorskip("torch").from_numpy
    cupy = SimpleNamespace(
        cuda=SimpleNamespace(Device=DeviceOfCupy), asarray=as_cupys, isfinite=np.isfinite
    )
    monkeypatch.setitem(sys.modules, "cupy", cupy)
    return _CupyOnGpu(1), as_cupys


def test_which_samples_are_finite(kind: tuple[Arrays, Callable[[np.ndarray], Any]]) -> None:
    arrays, of = kind
    images = np.zeros((3, 2, 4, 4), np.float32)
    images[1, 1, 2, 3] = np.inf
    assert arrays.finite(of(images)).tolist() == [True, False, True]
    none = arrays.finite(of(images[:0]))
    assert (none.shape, none.dtype) == ((0,), np.bool_)


def test_which_values_lie_within_bounds(kind: tuple[Arrays, Callable[[np.ndarray], Any]]) -> None:
    arrays, of = kind
    images = np.zeros((3, 2, 4, 4), np.float32)
    images[1, 1, 2, 3] = 5
    low = np.zeros((1, 1, 1), np.float32)
    high = np.float32([4, 5]).reshape(2, 1, 1)
    assert arrays.within(of(images), low, high)
    assert not arrays.within(of(images), low, high[:1])
    assert not arrays.within(of(images), high, high)
    assert arrays.within(of(images[:0]), high, low)


# ---- runs that are recorded --------------------------------------------------------------------


def assert_same(found: Result, expected: Result) -> None:
    """Bit for bit."""
    for name in ("relevance", "scores", "target"):
        np.testing.assert_array_equal(getattr(found, name), getattr(expected, name))
    for name in ("intermediate", "activations"):
        of, wanted = getattr(found, name), getattr(expected, name)
        assert of.keys() == wanted.keys()
        for node in wanted:
            np.testing.assert_array_equal(of[node], wanted[node])
    assert found.ledger is not None
    assert expected.ledger is not None
    for field in fields(Ledger):
        np.testing.assert_array_equal(
            getattr(found.ledger, field.name), getattr(expected.ledger, field.name)
        )


def replays(of: Callable[[], object]) -> int:
    """How many recordings something replays; the emulator alone can tell."""
    before = runtime().relprop_graph_launches()
    of()
    return int(runtime().relprop_graph_launches() - before)


@on_gpu
@pytest.mark.parametrize("n", [1, 3, 8])
def test_a_replay_has_the_bits_of_a_plain_run(
    gpu: int, n: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    explainer = Explainer(network(), "epsilon_plus_flat", device="cuda")
    batches = [IMAGES[first : first + n] for first in (0, 40, 80, 100)]
    monkeypatch.setenv("RELPROP_GRAPHS", "0")
    plain = [explainer(batch, intermediate=["pool"]) for batch in batches]
    monkeypatch.setenv("RELPROP_GRAPHS", "1")
    for batch, expected in zip(batches, plain):
        assert_same(explainer(batch, intermediate=["pool"]), expected)


@on_gpu
def test_every_request_has_a_recording_of_its_own(
    gpu: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """More than a lane keeps, and it needs more memory while they come."""
    rng = np.random.default_rng(3)
    explainer = Explainer(network(), "epsilon", device="cuda")

    def arguments(kind: str, n: int) -> dict[str, Any]:
        return {
            "argmax": {},
            "one": {"initial": "one"},
            "pool": {"intermediate": ["pool"]},
            "left": {"intermediate": ["left"]},  # as large as the other
            "classes": {"target": rng.integers(0, 10, n)},
            "mask": {"target": rng.random((n, 10)) < 0.3},
            "given": {"target": rng.standard_normal((n, 10)).astype(np.float32)},
        }[kind]

    kinds = ("argmax", "one", "pool", "left", "classes", "mask", "given")
    calls = [(kind, n) for n in (1, 2) for kind in kinds for _ in range(3)]
    for i in rng.permutation(len(calls)):
        kind, n = calls[i]
        first = int(rng.integers(0, 100))
        images, how = IMAGES[first : first + n], arguments(kind, n)
        found = explainer(images, **how)
        with monkeypatch.context() as patch:
            patch.setenv("RELPROP_GRAPHS", "0")
            assert_same(found, explainer(images, **how))


@on_gpu
def test_the_second_run_is_recorded_and_replayed_from_then_on(gpu: int) -> None:
    explainer = Explainer(network(), "epsilon", device="cuda")

    def replays_of(n: int, **how: Any) -> int:
        return replays(lambda: explainer(IMAGES[:n], **how))

    assert [replays_of(2) for _ in range(4)] == [0, 1, 1, 1]
    assert [replays_of(3) for _ in range(3)] == [0, 1, 1]
    assert [replays_of(2, target=4) for _ in range(3)] == [0, 1, 1]
    assert [replays_of(32) for _ in range(2)] == [0, 1]
    assert [replays_of(33) for _ in range(2)] == [0, 0]


@on_gpu
def test_no_recording_outlives_its_memory(gpu: int) -> None:
    held = runtime().relprop_graphs_held
    before = held()
    explainer = Explainer(network(), "epsilon", device="cuda")
    expected = explainer(IMAGES[:20]).relevance
    other = Explainer(network(), "epsilon", device="cuda")
    for n in (2, 2, 1, 1):
        other(IMAGES[:n])
    assert held() == before + 2
    other(IMAGES[:20])
    assert held() == before
    for _ in range(3):
        np.testing.assert_array_equal(other(IMAGES[:2]).relevance, expected[:2])
    assert held() == before + 1
    del other
    assert held() == before


@on_gpu
def test_no_recording_is_made_where_none_is_wanted(
    gpu: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    explainer = Explainer(network(), "epsilon", device="cuda")
    monkeypatch.setenv("RELPROP_GRAPHS", "0")
    assert replays(lambda: [explainer(IMAGES[:1]) for _ in range(3)]) == 0
    monkeypatch.setenv("RELPROP_GRAPHS", "1")
    plan = compiled(gpu).plan
    scores, seconds = np.zeros((1, 10), np.float32), np.zeros((plan.steps, 2))
    images = IMAGES[:1].reshape(1, -1)
    assert replays(lambda: [plan.run([images], scores, seconds=seconds) for _ in range(3)]) == 0
    assert seconds.sum() > 0.0


@on_gpu
@pytest.mark.parametrize("value", ["", "2", "yes"])
def test_another_word_for_recordings_is_refused(
    gpu: int, value: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    explainer = Explainer(network(), "epsilon", device="cuda")
    monkeypatch.setenv("RELPROP_GRAPHS", value)
    with pytest.raises(RuntimeError, match=f'RELPROP_GRAPHS must be 0 or 1, not "{value}"'):
        explainer(IMAGES[:1])


@on_gpu
def test_a_replay_finds_what_is_not_finite(gpu: int) -> None:
    explainer = Explainer(network(), "epsilon", device="cuda")
    expected = explainer(IMAGES[:3]).relevance
    bad = IMAGES[:3].copy()
    bad[1:] = 3e38
    for _ in range(3):
        with pytest.raises(ValueError, match="the output is not finite for sample 1 "):
            explainer(bad)
        np.testing.assert_array_equal(explainer(IMAGES[:3]).relevance, expected)


@on_gpu
def test_callers_of_one_plan_replay_at_once(gpu: int) -> None:
    explainer = Explainer(network(), "epsilon", device="cuda")
    expected = explainer(IMAGES[:3]).relevance
    with ThreadPoolExecutor(2) as pool:
        for found in pool.map(lambda i: explainer(IMAGES[: 2 + i % 2]).relevance, range(24)):
            np.testing.assert_array_equal(found, expected[: len(found)])


@on_gpu
def test_one_recording_serves_arrays_at_any_address(
    gpu: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan, n = compiled(gpu).plan, 3
    kept = []  # so that the next arrays lie elsewhere

    def run(images: np.ndarray) -> list[np.ndarray]:
        given = images[:, :10]
        arrays = [DeviceArray(images), DeviceArray(given)]
        arrays += [DeviceArray(np.zeros_like(like)) for like in (given, images)]
        kept.extend(arrays)
        inputs, of_output, scores, relevance = arrays
        plan.run([inputs], scores, initial="given", given=of_output, relevance=[relevance])
        return [array.numpy() for array in arrays]

    batches = [IMAGES[first : first + n].reshape(n, -1) for first in (0, 40, 80, 100)]
    monkeypatch.setenv("RELPROP_GRAPHS", "0")
    plain = [run(batch) for batch in batches]
    monkeypatch.setenv("RELPROP_GRAPHS", "1")
    found = []
    assert replays(lambda: found.extend(map(run, batches))) == 3
    for arrays, expected in zip(found, plain):
        for array, wanted in zip(arrays, expected):
            np.testing.assert_array_equal(array, wanted)


# ---- little memory -----------------------------------------------------------------------------

IN_LITTLE_MEMORY = """
import sys
import numpy as np
from relprop import Explainer
from test_threads import IMAGES, network
explainer = Explainer(network(), "epsilon", device="cuda")
np.save(sys.argv[1], explainer(IMAGES).relevance)
"""


def explain_in(megabytes: float, path: Path) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"RELPROP_EMULATED_MEMORY": str(int(megabytes * 1e6))}
    command = [sys.executable, "-c", IN_LITTLE_MEMORY, path]
    place = Path(__file__).parent
    return subprocess.run(command, env=environment, cwd=place, capture_output=True, text=True)


@on_gpu
def test_memory_decides_how_many_samples_run_at_once(gpu: int, tmp_path: Path) -> None:
    DeviceArray(np.zeros(1, np.float32))  # it can be made small in the emulator alone
    maps = []
    for megabytes in (1000, 40, 20):  # in the last there is room for one lane
        done = explain_in(megabytes, tmp_path / "maps.npy")
        assert done.returncode == 0, done.stderr
        maps.append(np.load(tmp_path / "maps.npy"))
    for smaller in maps[1:]:
        np.testing.assert_array_equal(smaller, maps[0])
    done = explain_in(0.02, tmp_path / "none.npy")
    assert done.returncode == 1
    assert "the GPU has no room for" in done.stderr
