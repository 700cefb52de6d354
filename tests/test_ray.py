"""A run shared by two workers of a real Ray cluster on this machine."""

from __future__ import annotations

import json
import os
import signal
import socket
import sys
import threading
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from relprop import Explainer
from relprop.aggregation.ray import aggregate_on_ray, merged
from relprop.aggregation.run import RunResult, Tally, aggregate
from relprop.aggregation.run_state import RunState
from relprop.datasets import open_dataset
from relprop.errors import TooManyRejectedError
from relprop.runs.checkpoint import Checkpoint
from synthetic_run import Elements, network, synthetic

COUNT, SHARDS = 300, 7
REGIONS = ("thirds", "grid:2x2")
MAKE = partial(Explainer, network(), "epsilon_plus_flat")


@pytest.fixture(scope="module")
def cluster() -> Iterator[None]:
    """Two processors, on which workers find what this process would import."""
    ray = pytest.importorskip("ray", reason="needs Ray: pip install 'relprop[ray]'")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", os.pathsep.join(filter(None, sys.path)))
        patch.setenv("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
        ray.init("local", num_cpus=2, include_dashboard=False, log_to_driver=False)
        yield
        ray.shutdown()


def shared(folder: Path, dataset: Any = None, **options: Any) -> RunResult:
    options = {"actors": 2, "shards": SHARDS, **options}
    return aggregate_on_ray(MAKE, dataset or synthetic(COUNT), REGIONS, folder=folder, **options)


def alone(folder: Path) -> RunResult:
    return aggregate(MAKE(), synthetic(COUNT), REGIONS, folder=folder)


def check_equal(one: RunResult, other: RunResult) -> None:
    """Counts, extremes and texts are equal, sums to 1e-12 of each other."""
    assert (one.items, sorted(one.rejected)) == (other.items, sorted(other.rejected))
    tables, others = one.state.tables(), other.state.tables()
    assert tables.keys() == others.keys()
    for name, rows in tables.items():
        assert len(rows) == len(others[name])
        for row, expected in zip(rows, others[name], strict=True):
            for key, value in row.items():
                if isinstance(value, float):
                    assert value == pytest.approx(expected[key], rel=1e-12, abs=1e-12)
                else:
                    assert value == expected[key]
    maps, other_maps = one.state.average_maps(), other.state.average_maps()
    for label, summary in maps.items():
        assert summary.count == other_maps[label].count
        np.testing.assert_allclose(summary.mean, other_maps[label].mean, rtol=1e-12, atol=1e-12)


@pytest.mark.usefixtures("cluster")
def test_two_workers_give_what_one_process_does(tmp_path: Path) -> None:
    result = shared(tmp_path / "shared")
    check_equal(result, alone(tmp_path / "alone"))
    content = json.loads((tmp_path / "shared/result.json").read_text())
    assert content["items"] == COUNT
    again = shared(tmp_path / "shared")
    assert again.before
    check_equal(again, result)


class Deadly(Elements):
    """Kills the process that reads an image, the first times that one does."""

    def __init__(self, count: int, folder: Path, times: int) -> None:
        super().__init__(count)
        self._marks = [folder / f"killed{i}" for i in range(times)]

    def __getitem__(self, index: int) -> Any:
        if index == 150:
            for mark in self._marks:
                if not mark.exists():
                    mark.touch()
                    os.kill(os.getpid(), signal.SIGKILL)
        return super().__getitem__(index)


@pytest.mark.usefixtures("cluster")
def test_a_killed_worker_costs_its_shard_alone(tmp_path: Path) -> None:
    dataset = open_dataset(Deadly(COUNT, tmp_path, times=1), name="synthetic")
    result = shared(tmp_path / "killed", dataset)
    assert (tmp_path / "killed0").exists()
    check_equal(result, alone(tmp_path / "alone"))
    shared(tmp_path / "whole")
    for name in ("result.json", "rejected.csv", "average_maps.npz", "regions.csv"):
        assert (tmp_path / "killed" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()


@pytest.mark.usefixtures("cluster")
def test_a_shard_that_kills_every_worker_ends_the_run_and_the_rest_is_kept(
    tmp_path: Path,
) -> None:
    dataset = open_dataset(Deadly(COUNT, tmp_path, times=3), name="synthetic")
    with pytest.raises(RuntimeError, match=f"shard {150 % SHARDS} was lost 3 times"):
        shared(tmp_path / "killed", dataset)
    files = (tmp_path / "killed/shards").iterdir()
    finished = {path: path.stat().st_mtime_ns for path in files}
    assert finished
    result = shared(tmp_path / "killed", dataset)  # it kills no more
    assert all(path.stat().st_mtime_ns == written for path, written in finished.items())
    check_equal(result, alone(tmp_path / "alone"))


@pytest.mark.usefixtures("cluster")
def test_an_interrupted_run_goes_on_with_the_shards_that_are_missing(tmp_path: Path) -> None:
    timer = threading.Timer(1.0, os.kill, (os.getpid(), signal.SIGINT))
    timer.start()
    with pytest.raises(KeyboardInterrupt, match=r"stopped after \d+ items; the same call goes on"):
        shared(tmp_path / "stopped", synthetic(COUNT, seconds=0.05))
    timer.join()
    assert not (tmp_path / "stopped/result.json").exists()
    check_equal(shared(tmp_path / "stopped"), alone(tmp_path / "alone"))


@pytest.mark.usefixtures("cluster")
def test_refusals(tmp_path: Path) -> None:
    shared(tmp_path)
    with pytest.raises(FileExistsError, match="shards: 7 there, 8 here"):
        shared(tmp_path, shards=8)
    with pytest.raises(FileExistsError, match="shards: 7 there, nothing here"):
        alone(tmp_path)
    with pytest.raises(RuntimeError, match="the Ray cluster has no GPU"):
        shared(tmp_path / "gpu", device="cuda")
    with pytest.raises(ValueError, match="shards must be at least 1"):
        shared(tmp_path, shards=0)
    with pytest.raises(TooManyRejectedError, match=r"rejected\.csv"):
        shared(tmp_path / "strict", most_rejected=0.01)


def test_a_cluster_that_is_not_there(tmp_path: Path) -> None:
    ray = pytest.importorskip("ray", reason="needs Ray: pip install 'relprop[ray]'")
    ray.shutdown()
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{taken.getsockname()[1]}"  # where nobody listens
        with pytest.raises(ConnectionError, match=f"no Ray cluster at '{address}': "):
            shared(tmp_path, address=address)


def test_the_order_of_merging_depends_on_the_number_of_states_alone() -> None:
    """Every state is merged once, neighbours first."""

    class Text:
        def __init__(self, text: str) -> None:
            self.text = text

        def merge(self, other: Text) -> None:
            self.text = f"({self.text}{other.text})"

    def tree(count: int) -> str:
        states: Any = (Text(str(i)) for i in range(count))
        result: Any = merged(states)
        return str(result.text)

    assert tree(1) == "0"
    assert tree(5) == "(((01)(23))4)"
    assert tree(7) == "(((01)(23))((45)6))"
    assert tree(8) == "(((01)(23))((45)(67)))"


def test_a_shards_file_holds_its_state(tmp_path: Path) -> None:
    state = RunState(("a",), {"thirds": ("top",)}, (2, 2))
    Tally(state).checkpoint({}, finished=True).write(tmp_path / "00000")
    read = Checkpoint.read(tmp_path / "00000")
    assert RunState.from_bytes(read.state).tables() == state.tables()
