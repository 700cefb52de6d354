"""The benchmarks run and say what they mean to, on tiny networks; no time is held to anything."""

from __future__ import annotations

import copy
import gc
import json
import subprocess
import sys
import time
import warnings
import weakref
from collections.abc import Iterator
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch._subclasses import FakeTensor

import relprop
from command_line import Run
from conftest import without_gpu
from peers import peer
from relprop import _core
from relprop.benchmark import ceilings, memory, networks, records
from relprop.benchmark.ceilings import fma_ceiling
from relprop.benchmark.contenders import (
    CONTENDERS,
    GRADIENT,
    GRAPH,
    PEERS,
    draw_batches,
    draw_images,
    in_turn,
    relprop_run,
)
from relprop.benchmark.layers import measure_steps
from relprop.benchmark.place import CPU, Cpu, Gpu, Holding, Turn, place_of
from relprop.benchmark.timing import (
    cosine,
    lacks_room,
    measure,
    spread,
    take_turns,
    turns_with_room,
)
from relprop.compile import compile_plan

TINY = ("-n", "tiny_network:make", "--shape", "3,16,16", "-b", "2", "-t", "1", "--repeat", "2")
TORCH = {
    f"torch {passes}{memory}"
    for passes in ("forward", "gradient")
    for memory in ("", ", channels last")
}


@pytest.fixture(autouse=True)
def threads() -> Iterator[None]:
    """What a benchmark sets lasts as long as its test."""
    before = _core.threads(), torch.get_num_threads()
    yield
    relprop.set_threads(before[0])
    torch.set_num_threads(before[1])


@pytest.fixture
def report(run: Run) -> dict[str, Any]:
    """What a run without the other libraries writes."""
    code, _, err = run(
        "bench", *TINY, "-c", "epsilon", "--peer", "none", "--no-memory", "-o", "report.json"
    )
    assert (code, err) == (0, "")
    return json.loads(Path("report.json").read_text())


def test_a_report(report: dict[str, Any]) -> None:
    assert report["format"] == records.FORMAT
    assert report["date"].endswith("+00:00")
    assert {"processor", "cores", "instruction_set"} < set(report["machine"])
    assert report["versions"]["torch"] == torch.__version__
    assert report["ceilings"]["1"] > 0
    (run,) = report["runs"]
    assert (run["network"], run["batch"], run["threads"]) == ("tiny_network:make", 2, 1)
    assert run["preset"] == "epsilon"
    assert set(run["contenders"]) == {*TORCH, "relprop"}
    assert run["reference"].startswith("torch gradient")
    assert run["contenders"][run["reference"]]["ratio"] == {"median": 1, "low": 1, "high": 1}
    for found in run["contenders"].values():
        for figure in ("seconds", "cpu_seconds", "ratio"):
            assert 0 <= found[figure]["low"] <= found[figure]["median"] <= found[figure]["high"]
        assert found["images_per_second"] == pytest.approx(2 / found["seconds"]["median"])
    # Multiply-adds of both layers, twice as many operations, two products, two images.
    work = 2 * 2 * 2 * (4 * 27 * 16 * 16 + 64 * 3)
    ours = run["contenders"]["relprop"]
    assert ours["gflops"] == pytest.approx(1e-9 * work / ours["seconds"]["median"])


@pytest.mark.skipif(not memory.available(), reason="needs Linux's /proc/self/clear_refs")
def test_memory_is_that_of_each(run: Run) -> None:
    code, out, _ = run("bench", *TINY, "-c", "epsilon", "--peer", "none", "-o", "report.json")
    assert code == 0
    report = records.read(Path("report.json"))
    held = {one["contender"]: one for one in report["memory"]}
    assert set(held) == {report["runs"][0]["reference"], "relprop"}
    assert all(one["faults_per_run"] >= 0 and "peak_bytes" in one for one in held.values())
    assert "tiny_network:make, relprop" in out
    figures = {change.figure for change in records.compare(report, report)}
    assert figures == {"ratio", "peak MiB"}


@pytest.mark.skipif(not memory.available(), reason="needs Linux's /proc/self/clear_refs")
def test_memory_of_what_fails(run: Run) -> None:
    task = memory.Task("relprop", "tiny_network:broken", (3, 16, 16), 1, 1, "epsilon")
    assert "KeyError" in memory.measure(task)["skipped"]


def test_what_was_measured_before_an_error_is_kept(run: Run) -> None:
    arguments = (*TINY, "-n", "tiny_network:broken", "--peer", "none", "-o", "r.json")
    code, _, err = run("bench", *arguments)
    assert code == 3
    assert "tiny_network:broken failed with KeyError" in err
    assert {one["network"] for one in records.read(Path("r.json"))["runs"]} == {TINY[1]}


def test_an_existing_report_is_kept(run: Run) -> None:
    Path("report.json").write_text("mine")
    code, _, err = run("bench", *TINY, "-o", "report.json")
    assert code == 3
    assert "--force" in err
    assert Path("report.json").read_text() == "mine"
    code, _, err = run("bench", *TINY, "-o", "nowhere/report.json")
    assert code == 3
    assert "nowhere" in err


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("-c", "gamma_only"), "epsilon_plus"),
        (("--peer", "innvestigate"), "zennit"),
        (("--batch", "0"), "--batch"),
        (("-n", "tiny_network:make"), "shape"),
        (("-n", "resnet51"), "resnet50"),
        (("-n", "tiny_network:NAMES", "--shape", "3,16,16"), "NAMES"),
        (("--compare", "no.json", "no.json"), "no.json"),
        (("--floors", "400", "0"), "--floors"),
        (("--floors", "nan", "3"), "must be finite and > 0, not nan"),
        (("--floors", "400", "inf"), "must be finite and > 0, not inf"),
        (("--compare", "no.json", "no.json", "-o", "new.json"), "goes without --compare"),
    ],
)
def test_wrong_use_is_told(run: Run, arguments: tuple[str, ...], told: str) -> None:
    code, _, err = run("bench", *arguments)
    assert code in (2, 3)
    assert told in err


@pytest.mark.parametrize(
    ("arguments", "told"),
    [(("-n", "resnet51"), "not 'resnet51'"), (("-n", "tiny_network:make"), "its shape must be")],
)
def test_names_are_checked_before_anything_is_measured(
    run: Run, arguments: tuple[str, ...], told: str
) -> None:
    code, out, err = run("bench", "-n", "resnet18", *arguments)
    assert (code, out) == (3, "")
    assert told in err


@pytest.mark.parametrize(
    ("output", "told"),
    [
        ("{'out': self.net(x)}", "wrapped:make must return a tensor (samples, classes), not dict."),
        ("self.net[:2](x)", "(samples, classes), not one of shape (1, 4, 16, 16)."),
    ],
)
def test_other_outputs_are_refused(run: Run, output: str, told: str) -> None:
    Path("wrapped.py").write_text(f"""
import tiny_network
from torch import nn

class Wrapped(nn.Module):
    def __init__(self):
        super().__init__()
        self.net = tiny_network.make()

    def forward(self, x):
        return {output}

make = Wrapped
""")
    sys.modules.pop("wrapped", None)
    code, _, err = run("bench", "-n", "wrapped:make", *TINY[2:], "--peer", "none")
    assert code == 3
    assert told in err


def test_without_torch(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("torch", "relprop.benchmark.networks"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    monkeypatch.setitem(sys.modules, "torch", None)
    code, _, err = run("bench", *TINY)
    assert code == 3
    assert "pip install 'relprop[torch]'" in err


def test_files_are_compared_without_torch(
    report: dict[str, Any], run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in [name for name in sys.modules if name.startswith("relprop.benchmark")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "torch", None)
    code, out, err = run("bench", "--compare", "report.json", "report.json")
    assert (code, err) == (0, "")
    assert "tiny_network:make" in out
    assert "1.00" in out


def test_changes_between_two_reports(report: dict[str, Any]) -> None:
    later = copy.deepcopy(report)
    ours = later["runs"][0]["contenders"]["relprop"]["ratio"]
    before = report["runs"][0]["contenders"]["relprop"]["ratio"]
    for key in ours:
        ours[key] = 2 * before["high"]
    (change,) = records.compare(report, later)
    assert (change.contender, change.before) == ("relprop", before["median"])
    assert change.factor == pytest.approx(2 * before["high"] / before["median"])
    assert change.clear
    assert not any(c.clear for c in records.compare(report, report))
    later["runs"][0]["batch"] = 3
    assert list(records.compare(report, later)) == []


@pytest.mark.parametrize(
    "text",
    [
        "[",
        "[]",
        "{}",
        '{"format": 99, "runs": [], "memory": []}',
        '{"format": 1, "runs": null, "memory": []}',
        '{"format": 1, "runs": [], "memory": null}',
    ],
)
def test_other_files_are_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "other.json"
    path.write_text(text)
    with pytest.raises(ValueError, match=r"other\.json"):
        records.read(path)


def test_layers_on_the_command_line(run: Run) -> None:
    code, out, err = run("bench", "--layers", *TINY, "-o", "layers.json")
    assert (code, err) == (0, "")
    (layer,) = json.loads(Path("layers.json").read_text())["layers"]
    assert layer["layer"] in out
    assert (layer["kernel"], layer["input"], layer["output"]) == ([3, 3], [3, 16, 16], [4, 16, 16])
    assert layer["gflop"] == pytest.approx(2e-9 * 2 * 4 * 27 * 16 * 16)
    for way in ("forward", "backward"):
        for who in ("relprop", "torch"):
            rate = layer["gflop"] / layer[way][f"{who}_seconds"]
            assert layer[way][f"{who}_gflops"] == pytest.approx(rate)


def test_layers_of_any_padding(run: Run) -> None:
    Path("uneven.py").write_text("""
import torch
from torch import nn

def make():
    pad = nn.ZeroPad2d((0, 1, 0, 1))
    return nn.Sequential(pad, nn.Conv2d(3, 4, 3, 2), nn.ReLU(), nn.Flatten(), nn.Linear(256, 3))

def signal():
    return nn.Sequential(nn.Conv1d(3, 4, 3, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(64, 3))
""")
    sys.modules.pop("uneven", None)
    for name, shape in (("make", (3, 16, 16)), ("signal", (3, 16))):
        (layer,) = measure_steps(f"uneven:{name}", shape, 1, 1, repeat=1).layers(repeat=1)
        assert layer["backward"]["torch_seconds"] > 0


@pytest.mark.parametrize("gpu", [None, pytest.param(0, marks=pytest.mark.gpu)])
def test_the_core_times_its_steps(gpu: int | None) -> None:
    if gpu is not None and (reason := without_gpu()):
        pytest.skip(f"no GPU: {reason}")
    module = networks.tiny()
    graph = relprop.load(module, (3, 8, 8)).graph
    rules = relprop.Explainer(graph, "epsilon").rules
    plan = compile_plan(graph, rules, gpu).plan
    scores, relevance = np.empty((1, 3), np.float32), np.empty((1, 192), np.float32)
    seconds = np.full((plan.steps, 2), -1.0)
    images = np.ones((1, 192), np.float32)
    plan.run([images], scores, seconds=seconds)
    assert (seconds[:, 0] > 0).all()
    assert (seconds[:, 1] == 0).all()  # there was no relevance pass
    begun = time.perf_counter()
    plan.run(
        [images], scores, targets=np.zeros(1, np.int64), relevance=[relevance], seconds=seconds
    )
    assert (seconds > 0).any(axis=0).all()
    assert seconds.sum() < time.perf_counter() - begun  # of which they are parts
    with pytest.raises(ValueError, match="seconds"):
        plan.run([images], scores, seconds=seconds[1:])


@pytest.mark.parametrize("name", ["zennit", "captum"])
def test_peers_that_are_right_take_part(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    peer(name)
    monkeypatch.setitem(networks.NETWORKS, "tiny", (networks.tiny, (3, 8, 8)))
    presets = ["epsilon", "epsilon_plus", "gradient"]
    epsilon, plus, gradient = measure("tiny", None, 2, 1, presets, [name], 1)
    assert name in epsilon["contenders"]
    assert (name in gradient["contenders"]) == (name == "zennit")
    assert (name in plus["contenders"]) == (name == "zennit")
    assert ("captum" in plus["skipped"]) == (name == "captum")


def test_peers_that_are_missing_or_wrong_do_not(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "lxt", None)
    noise = torch.randn(2, 3, 8, 8)
    monkeypatch.setitem(PEERS, "captum", lambda *_: lambda: noise)
    monkeypatch.setitem(networks.NETWORKS, "tiny", (networks.tiny, (3, 8, 8)))
    (found,) = measure("tiny", None, 2, 1, ["epsilon"], ["lxt", "captum"], 1)
    assert set(found["contenders"]) == {*TORCH, "relprop"}
    assert found["skipped"]["lxt"] == "lxt is not installed"
    assert "cosine" in found["skipped"]["captum"]


def test_a_gradient_that_is_not_torchs_is_not_timed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(networks.NETWORKS, "tiny", (networks.tiny, (3, 8, 8)))
    noise = torch.randn(2, 3, 8, 8)
    monkeypatch.setattr("relprop.benchmark.timing.relprop_run", lambda *_: lambda: noise)
    with pytest.raises(RuntimeError, match=r"the gradient is not torch's: cosine"):
        next(measure("tiny", None, 2, 1, ["gradient"], [], 1))


# ---- memory that is held, and memory that is lacking ---------------------------------------------


def tensors() -> int:
    """Bytes of all tensors that anybody holds."""
    gc.collect()
    found = [one for one in gc.get_objects() if issubclass(type(one), torch.Tensor)]
    dense = [one for one in found if one.layout == torch.strided and not one.is_nested]
    held = [one.untyped_storage() for one in dense if not isinstance(one, FakeTensor)]
    return sum({storage.data_ptr(): storage.nbytes() for storage in held}.values())


def hungry(*_: Any) -> Any:
    raise torch.OutOfMemoryError("CUDA out of memory.")


@pytest.mark.parametrize("name", ["zennit", "captum"])
def test_a_library_holds_nothing_while_others_run(name: str) -> None:
    peer(name)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        batches = draw_batches(2, (3, 8, 8), CPU, 1)
        run = PEERS[name](networks.tiny(), batches, "epsilon", CPU)
        made = tensors()
        held: list[int] = []
        take_turns({name: run, "other": lambda: held.append(tensors())}, 2)
    assert held == [made] * 4


@pytest.mark.parametrize("name", ["zennit", "captum", "autolrp"])
def test_a_preset_leaves_no_tensors(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    peer(name)
    monkeypatch.setitem(networks.NETWORKS, "tiny", (networks.tiny, (3, 8, 8)))
    list(measure("tiny", None, 2, 1, ["epsilon"], [name], 1))  # what is made once is so now
    before = tensors()
    presets = ["epsilon", "epsilon_plus", "epsilon"]
    held = [tensors() for _ in measure("tiny", None, 2, 1, presets, [name], 1)]
    assert len(set(held)) == 1
    assert tensors() == before


def test_a_library_without_room_is_left_out() -> None:
    skipped: dict[str, str] = {}
    runs: dict[str, Any] = {
        "torch gradient": bool, "relprop": bool, "zennit": hungry, "captum": bool
    }  # fmt: skip
    turns = turns_with_room(runs, skipped, 2, CPU)
    assert set(turns) == {"torch gradient", "relprop", "captum"}
    assert skipped == {
        "zennit": "OutOfMemoryError: CUDA out of memory. (it runs alone, but not beside the others)"
    }


@pytest.mark.parametrize("name", ["torch gradient", "relprop"])
def test_libraries_leave_first(name: str) -> None:
    skipped: dict[str, str] = {}
    runs: dict[str, Any] = {
        "torch forward": bool, "torch gradient": bool, "torch gradient, CUDA graph": bool,
        "relprop": bool, "zennit": bool, "captum": bool,
    }  # fmt: skip
    runs[name] = hungry
    turns = turns_with_room(runs, skipped, 2, CPU)
    assert list(skipped) == ["captum", "zennit", "torch gradient, CUDA graph", name]
    assert skipped["captum"].startswith(f"{name} has no room beside it: OutOfMemoryError")
    assert turns == {}  # there is nothing to compare


def test_who_leaves_holds_nothing() -> None:
    """The memory is given back once nobody refers to it, not while an error's frames still do."""
    held: list[weakref.ref[torch.Tensor]] = []
    free: list[bool] = []
    dropped: list[bool] = []

    class Watched(Cpu):
        def release(self) -> None:
            free.append(all(one() is None for one in held))

    def greedy() -> None:
        much = torch.zeros(1)
        held.append(weakref.ref(much))
        hungry()

    skipped: dict[str, str] = {}
    runs: dict[str, Any] = {"torch gradient": bool, "relprop": bool}
    runs["zennit"] = Holding(greedy, lambda: dropped.append(True))
    turns_with_room(runs, skipped, 1, Watched())
    assert (free, dropped) == ([True], [True])


NO_ROOM = (
    torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 1.53 GiB."),
    MemoryError("std::bad_alloc"),
    RuntimeError("the GPU has no room for 9 bytes; 8 are free."),
    RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
)


@pytest.mark.parametrize("error", NO_ROOM, ids=["torch", "host", "relprop", "cublas"])
def test_a_preset_without_room_is_left_out(
    error: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    def compiled(model: Any, batches: Any, preset: str, place: Any) -> Any:
        if preset == "epsilon":
            raise error
        return relprop_run(model, batches, preset, place)

    monkeypatch.setattr("relprop.benchmark.timing.relprop_run", compiled)
    monkeypatch.setitem(networks.NETWORKS, "tiny", (networks.tiny, (3, 8, 8)))
    monkeypatch.setitem(PEERS, "captum", lambda *_: pytest.fail("has nothing to be compared with"))
    epsilon, gradient = measure("tiny", None, 2, 1, ["epsilon", "gradient"], [], 1)
    assert epsilon["contenders"] == {}
    assert list(epsilon["skipped"]) == ["relprop"]
    assert set(gradient["contenders"]) == {*TORCH, "relprop"}
    (epsilon,) = measure("tiny", None, 2, 1, ["epsilon"], ["captum"], 1)
    assert list(epsilon["skipped"]) == ["relprop"]


def test_torch_without_room_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("relprop.benchmark.contenders.gradient", hungry)
    monkeypatch.setitem(networks.NETWORKS, "tiny", (networks.tiny, (3, 8, 8)))
    (found,) = measure("tiny", None, 2, 1, ["gradient"], [], 1)
    assert found["contenders"] == {}
    assert set(found["skipped"]) == set(GRADIENT)


def test_other_errors_are_errors(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(RuntimeError) as lacking:
        torch.empty(1 << 50)
    assert lacks_room(lacking.value)

    def wrong(*_: Any) -> Any:
        raise RuntimeError("CUDA error: an illegal memory access was encountered")

    monkeypatch.setattr("relprop.benchmark.timing.relprop_run", wrong)
    monkeypatch.setitem(networks.NETWORKS, "tiny", (networks.tiny, (3, 8, 8)))
    with pytest.raises(RuntimeError, match="illegal memory access"):
        next(measure("tiny", None, 2, 1, ["epsilon"], [], 1))
    runs: dict[str, Any] = {"torch gradient": bool, "relprop": wrong, "zennit": bool}
    with pytest.raises(RuntimeError, match="illegal memory access"):
        turns_with_room(runs, {}, 1, CPU)


def test_what_has_no_room_is_told(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def compiled(model: Any, batches: Any, preset: str, place: Any) -> Any:
        return (hungry if preset in lacking else relprop_run)(model, batches, preset, place)

    monkeypatch.setattr("relprop.benchmark.timing.relprop_run", compiled)
    arguments = ("-c", "epsilon", "-c", "gradient", "--peer", "none", "--no-memory")
    arguments += ("-o", "report.json")
    lacking = {"epsilon"}
    code, out, err = run("bench", *TINY, *arguments)
    assert (code, err) == (0, "")
    assert "tiny_network:make, epsilon, batch 2, 1 thread: not measured\n" in out
    assert "not relprop: OutOfMemoryError: CUDA out of memory." in out
    (measured,) = records.read(Path("report.json"))["runs"]
    assert measured["preset"] == "gradient"

    Path("report.json").unlink()
    lacking = {"epsilon", "gradient"}
    code, out, err = run("bench", *TINY, *arguments)
    assert code == 3
    assert "nothing is measured" in err
    assert out.count("not measured") == 2
    assert not Path("report.json").exists()


def test_networks_are_frozen_and_in_eval_mode() -> None:
    module, shape = networks.build("squeezenet")
    assert not module.training
    assert not any(parameter.requires_grad for parameter in module.parameters())
    assert shape == (3, 224, 224)


def test_every_contender_is_a_command_line_choice() -> None:
    from relprop import cli_bench

    assert set(cli_bench.LIBRARIES) < set(CONTENDERS)
    assert set(cli_bench.NETWORKS) < set(networks.NETWORKS)
    assert draw_images(2, (3, 4, 4)).abs().max() <= 3


def test_a_timed_run_follows_one_of_its_own() -> None:
    ran: list[str] = []
    turns = take_turns({name: partial(ran.append, name) for name in "ab"}, 2)
    assert "".join(ran) == "aabbaabb"
    assert {name: len(own) for name, own in turns.items()} == {"a": 2, "b": 2}


def test_figures() -> None:
    assert spread([4, 1, 2, 3, 5]) == {"median": 3, "low": 2, "high": 4}
    assert cosine(np.float32([[1, 0], [0, 2], [1, 1]]), np.float32([[2, 0], [0, 1], [1, -1]])) == 1


def test_the_ceiling_counts_what_it_does() -> None:
    assert fma_ceiling(1, rounds=10, repeat=1) > 0
    per_round = _core.multiply_adds(1)
    assert per_round >= 32
    assert _core.multiply_adds(7) == 7 * per_round
    relprop.set_threads(3)
    assert _core.multiply_adds(7) == 3 * 7 * per_round
    with pytest.raises(ValueError, match="rounds must be >= 0, not -1"):
        _core.multiply_adds(-1)


def test_toys() -> None:
    script = Path(__file__).parent.parent / "benchmarks/toys.py"
    command = [sys.executable, script, "--tool", "relprop"]
    printed = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
    rows = dict(line.strip("| ").split(" | ") for line in printed.splitlines()[2:])
    assert "lstm" in rows
    assert set(rows.values()) == {"1.000"}


# ---- a GPU, as far as it can be played -----------------------------------------------------------


class PlayedGpu(Gpu):
    """What a GPU is for the benchmarks, on the host."""

    device = "cpu"

    def label(self, threads: int) -> str:
        return f"a GPU, {self.precision}"

    def facts(self) -> dict[str, Any]:
        return {"device": {"name": "a GPU", "driver": None, "cuda": "13.0"}}

    def settings(self) -> Any:
        return nullcontext()

    def autocast(self) -> Any:
        on = self.precision == "bf16"
        return torch.autocast("cpu", torch.bfloat16, enabled=on, cache_enabled=False)

    def given(self, images: torch.Tensor) -> Any:
        return images.numpy()

    def captured(self, run: Any) -> Any:
        return run

    def turn(self, run: Any) -> Turn:
        return CPU.turn(run)

    def release(self) -> None:
        pass


@pytest.fixture
def played(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make ``--device cuda`` the host."""
    monkeypatch.setattr(_core, "with_cuda", True)
    monkeypatch.setattr("relprop.benchmark.place.place_of", lambda *_: PlayedGpu(0))
    for name, least in (("product_ceiling", 8), ("copy_ceiling", 64)):
        measured = partial(getattr(ceilings, name), size=least, repeat=1)
        monkeypatch.setattr(ceilings, name, measured)


def test_a_gpu_on_the_command_line(run: Run, played: None) -> None:
    arguments = (*TINY[:6], "--repeat", "2", "--device", "cuda", "-c", "epsilon", "-c", "gradient")
    code, out, err = run("bench", *arguments, "--peer", "none", "-o", "report.json")
    assert (code, err) == (0, "")
    report = records.read(Path("report.json"))
    assert report["machine"]["device"]["name"] == "a GPU"
    assert min(report["ceilings"].values()) > 0
    assert set(report["ceilings"]) == {
        "product_gflops", "tf32_product_gflops", "copy_gbytes_per_second"
    }  # fmt: skip
    for measured in report["runs"]:
        floor = measured["floor"]
        bound = floor["bound_by_operations"] + floor["bound_by_bytes"]
        assert floor["seconds"] == pytest.approx(bound)
        assert bound > 0
        assert measured["threads"] == 1
        last = {name for name in TORCH if name.endswith("channels last")}
        assert set(measured["contenders"]) == {*last, *GRAPH, "relprop"}
    assert out.startswith("a GPU, driver unknown, CUDA 13.0; ")
    assert "tiny_network:make, epsilon, batch 2, a GPU, float32" in out
    assert "ratio to torch's gradient, batch  " in out
    assert "relprop takes" in out
    assert "/ floor " in out
    assert "thread" not in out
    assert "faults" not in out
    assert {change.figure for change in records.compare(report, report)} >= {"ratio"}


def test_batches_of_a_gpu(run: Run, played: None, monkeypatch: pytest.MonkeyPatch) -> None:
    measured: list[tuple[Any, ...]] = []

    def nothing(*arguments: Any) -> Iterator[Any]:
        measured.append(arguments)
        return iter(())

    monkeypatch.setattr("relprop.benchmark.timing.measure", nothing)
    code, _, err = run("bench", *TINY[:4], "--device", "cuda:1", "--no-memory")
    assert (code, err) == (0, "")
    assert [(images, threads) for _, _, images, threads, *_ in measured] == [
        (1, 1), (32, 1), (128, 1)
    ]  # fmt: skip


def test_layers_of_a_gpu(run: Run, played: None) -> None:
    arguments = (*TINY[:6], "--repeat", "1", "--device", "cuda", "--layers", "-o", "layers.json")
    code, out, err = run("bench", *arguments)
    assert (code, err) == (0, "")
    report = json.loads(Path("layers.json").read_text())
    assert len(report["layers"]) == 1
    kinds = {kind["kind"]: kind for kind in report["kinds"]}
    assert set(kinds) == {"Conv", "MaxPool", "Reshape", "Dense"}
    assert kinds["Conv"]["steps"] == 1
    (layer,) = report["layers"]
    for way in ("forward", "backward"):
        assert kinds["Conv"][f"{way}_seconds"] == layer[way]["relprop_seconds"]
    floors = (layer[way]["floor_seconds"] for way in ("forward", "backward"))
    assert kinds["Conv"]["floor_seconds"] == pytest.approx(sum(floors))
    # Two images of four planes become as many of a sixteenth; on the way back both are read, and
    # what is as large as the input is written.
    values = 2 * 4 * (256 + 16 + 256 + 16 + 256)
    assert kinds["MaxPool"]["gbytes"] == pytest.approx(4e-9 * values)
    assert "of copy" in out
    assert "of peak" in out
    assert "MaxPool" in out


def test_floors_on_the_command_line(run: Run) -> None:
    arguments = (*TINY[:6], "-c", "epsilon", "-c", "gradient", "--precision", "bf16")
    code, out, err = run("bench", "--floors", "400", "3000", *arguments, "-o", "floors.json")
    assert (code, err) == (0, "")
    epsilon, gradient = records.read(Path("floors.json"))["floors"]
    assert (epsilon["preset"], epsilon["batch"]) == ("epsilon", 2)
    assert epsilon["ratio"] == pytest.approx(epsilon["seconds"] / gradient["seconds"])
    assert gradient["ratio"] == 1
    assert "share" not in out
    code, out, err = run("bench", "--floors", "0.001", "3000", *arguments, "--layers")
    assert (code, err) == (0, "")
    assert out.count("100%") == 4  # so slow is the product that bytes do not matter


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("--device", "tpu"), "device must be"),
        (("--device", "cuda:x"), "device must be"),
        (("--precision", "half"), "float32, tf32, bf16"),
        (("--precision", "tf32"), "is for a GPU"),
    ],
)
def test_other_devices_are_refused(run: Run, arguments: tuple[str, ...], told: str) -> None:
    code, _, err = run("bench", *TINY, *arguments)
    assert code == 2
    assert told in err


def test_threads_mean_nothing_on_a_gpu(run: Run, played: None) -> None:
    code, _, err = run("bench", *TINY, "--device", "cuda")
    assert code == 2
    assert "--threads" in err


def test_a_gpu_needs_both_builds(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    arguments = ("bench", *TINY[:6], "--device", "cuda")
    monkeypatch.setattr(_core, "with_cuda", False)
    code, _, err = run(*arguments)
    assert code == 2
    assert "built without CUDA" in err
    monkeypatch.setattr(_core, "with_cuda", True)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    code, _, err = run(*arguments)
    assert code == 3
    assert "it sees 0 GPUs" in err
    assert err.count("\n") == 1
    with pytest.raises(ValueError, match="precision must be float32 on a CPU"):
        place_of("cpu", "bf16")


def test_batches_take_turns() -> None:
    seen: list[int] = []
    run = in_turn(seen.append, [1, 2, 3])
    for _ in range(4):
        run()
    assert seen == [1, 2, 3, 1]
    one, other = draw_batches(1, (3, 4, 4), PlayedGpu(0), 2)
    assert not torch.equal(one, other)
    assert torch.equal(one, draw_images(1, (3, 4, 4)))


@pytest.mark.parametrize("name", [*GRADIENT, *GRAPH, "zennit", "captum"])
def test_contenders_in_bfloat16(name: str) -> None:
    if name in PEERS:
        peer(name)
    place, module = PlayedGpu(0, "bf16"), networks.tiny()
    batches = draw_batches(2, (3, 8, 8), place, 2)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        exact = {**CONTENDERS, **GRAPH}[name](module, batches, "epsilon", PlayedGpu(0))
        less = {**CONTENDERS, **GRAPH}[name](module, batches, "epsilon", place)
        for _ in range(3):
            truth, found = exact(), less()
            assert found.dtype == torch.float32
            assert 0.9 < cosine(found, truth) < 1
    assert {parameter.dtype for parameter in module.parameters()} == {torch.float32}


@pytest.mark.parametrize("precision", ["float32", "tf32", "bf16"])
def test_what_torch_is_set_to(precision: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "device", lambda _: nullcontext())

    def settings() -> tuple[bool, bool, bool]:
        backends = torch.backends
        return backends.cudnn.benchmark, backends.cudnn.allow_tf32, backends.cuda.matmul.allow_tf32

    before = settings()
    with Gpu(0, precision).settings():
        assert settings() == (True, precision == "tf32", precision == "tf32")
    assert settings() == before


def test_a_gpus_time_is_between_its_events(monkeypatch: pytest.MonkeyPatch) -> None:
    did: list[str] = []

    class Event:
        def __init__(self, enable_timing: bool) -> None:
            assert enable_timing

        def record(self) -> None:
            did.append("record")

        def elapsed_time(self, end: Event) -> float:
            return 5.0

    monkeypatch.setattr(torch.cuda, "Event", Event)
    monkeypatch.setattr(torch.cuda, "synchronize", lambda: did.append("synchronize"))
    assert Gpu(0).turn(lambda: did.append("run")).wall == 0.005
    assert did == ["record", "run", "record", "synchronize"]


def test_memory_of_a_gpu() -> None:
    class Counting(PlayedGpu):
        """Torch's tensors and all that is used, in bytes."""

        def used(self) -> int:
            return 1000 + 10 * len(ran)

        def tensors_held(self) -> int:
            return 100

        def tensors_peak(self) -> int:
            return 170

    ran: list[None] = []
    prepare = partial(partial, ran.append, None)
    assert memory.on_gpu(Counting(0), prepare, of_torch=True) == {"peak_bytes": 70}
    ran.clear()
    expected = 10 * (memory.WARM + memory.STEADY)
    assert memory.on_gpu(Counting(0), prepare, of_torch=False) == {"peak_bytes": expected}


@pytest.mark.gpu
@pytest.mark.parametrize("precision", ["float32", "tf32", "bf16"])
def test_a_gpu_that_is_there(run: Run, precision: str) -> None:
    if reason := without_gpu():
        pytest.skip(f"no GPU: {reason}")
    if not torch.cuda.is_available():
        pytest.skip("torch has no GPU")
    arguments = (*TINY[:6], "--repeat", "2", "--device", "cuda", "--precision", precision)
    code, out, err = run("bench", *arguments, "-c", "epsilon", "-o", "report.json")
    assert (code, err) == (0, "")
    report = records.read(Path("report.json"))
    (measured,) = report["runs"]
    assert {*TORCH, *GRAPH, "relprop"} <= set(measured["contenders"]), measured["skipped"]
    assert all(held["peak_bytes"] > 0 for held in report["memory"])
    assert f"{report['machine']['device']['name']}, {precision}" in out
    code, out, err = run("bench", *arguments, "--layers")
    assert (code, err) == (0, "")
    assert "MaxPool" in out
