"""The emulator of tests/gpu/emulator, which runs the CUDA kernels on the host, and what it runs."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from conftest import GPU_CHECKS

pytestmark = pytest.mark.emulator

BUILD = Path(__file__).parent.parent / "build" / "emulated"


def built(name: str) -> Path:
    """What the emulated build made."""
    path = BUILD / name
    if not path.exists():
        pytest.skip(f"build/emulated/{name} is not built: make emulated")
    return path


def run(program: str, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run a program of the emulated build."""
    return subprocess.run(
        [built(program), *arguments],
        capture_output=True,
        text=True,
        check=False,
        timeout=600,  # for a busy machine
        env=os.environ | environment,
    )


@pytest.mark.parametrize("seed", ["0", "1", "2"])
@pytest.mark.parametrize("check", ["emulator_check", "emulator_runtime_check"])
def test_emulator_does_what_cuda_does(check: str, seed: str) -> None:
    done = run(check, RELPROP_EMULATED_SEED=seed, RELPROP_EMULATED_MEMORY=str(64 * 1024**2))
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize(
    ("name", "message"),
    [
        (
            "half_waits",
            "100 threads wait at __syncthreads(), "
            "0 for lanes of their warp, 0 for their warpgroup, "
            "0 for what does not arrive, and 156 ",
        ),
        (
            "two_places",
            "32 threads wait at __syncthreads(), "
            "31 for lanes of their warp, 0 for their warpgroup, "
            "0 for what does not arrive, and 193 ",
        ),
        (
            "masks",
            "0 threads wait at __syncthreads(), "
            "32 for lanes of their warp, 0 for their warpgroup, "
            "0 for what does not arrive, and 224 ",
        ),
        ("stranger", "a shuffle reads from a lane that its mask does not name"),
        ("beyond", "a kernel wrote beyond an allocation"),
        ("not_global", "an instruction for global memory is given shared memory"),
        ("open_copy", "a block ends before its copies to shared memory are done"),
        ("crooked_copy", "a copy to shared memory is not aligned to its size"),
        ("hidden_weights", "read what is being copied"),
        ("hasty_pipeline", "waits for what was before the last time"),
        ("hidden_registers", "tensor cores read registers that were not shown to them"),
        ("lonely", "start it by RELPROP_LAUNCH_BLOCKS"),
    ],
)
def test_what_cuda_leaves_undefined_ends_the_program(name: str, message: str) -> None:
    done = run("emulator_check", name)
    assert done.returncode < 0, done.stdout
    assert message in done.stderr


@pytest.mark.parametrize(
    ("name", "message"),
    [("stale_graph", "a graph copies from or to memory that was released"), ("host_reads", "")],
)
def test_what_the_runtime_does_not_forgive_ends_the_program(name: str, message: str) -> None:
    done = run("emulator_runtime_check", name)
    assert done.returncode < 0, done.stdout
    assert message in done.stderr


@pytest.mark.parametrize("check", GPU_CHECKS)
def test_the_programs_of_tests_gpu_succeed(check: str) -> None:
    done = run(check)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("check", ["kernels_check", "pool_check", "product_check"])
def test_slow_checks_end_by_themselves(check: str) -> None:
    done = run(check, RELPROP_CHECK_SECONDS="0")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "cases, after 0 seconds" in done.stdout


@pytest.mark.parametrize(
    ("environment", "message"),
    [
        ({"RELPROP_EMULATED_MODEL": "none"}, "there is no GPU 0: this machine has 0."),
        (
            {"RELPROP_EMULATED_MODEL": "turing"},
            "GPU 0 has compute capability 7.5; relprop needs 8.0 (Ampere) or newer.",
        ),
        (
            {"RELPROP_EMULATED_MODEL": "ampere", "RELPROP_TENSOR_CORES": "warpgroup"},
            "RELPROP_TENSOR_CORES=warpgroup needs a GPU of compute capability 9.0 (Hopper), "
            "not 8.0.",
        ),
        (
            {"RELPROP_TENSOR_CORES": "fast"},
            "RELPROP_TENSOR_CORES must be warp or warpgroup, not fast.",
        ),
    ],
)
def test_gpus_that_cannot_be_used_are_refused(environment: dict[str, str], message: str) -> None:
    package = built("relprop").parent
    done = subprocess.run(
        [sys.executable, "-c", "from relprop import _core; _core.Plan(0)"],
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | {"PYTHONPATH": str(package)} | environment,
    )
    assert done.returncode == 1
    assert done.stderr.endswith(f"RuntimeError: {message}\n")
