"""The CUDA kernels against the CPU's, by the programs of tests/gpu, where a GPU is."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from conftest import GPU_CHECKS

ROOT = Path(__file__).parent.parent


@pytest.mark.gpu
@pytest.mark.parametrize("check", GPU_CHECKS)
def test_the_programs_of_tests_gpu_succeed(check: str) -> None:
    if not Path("/dev/nvidia0").exists():
        pytest.skip("this machine has no NVIDIA GPU")
    programs = [path for path in ROOT.glob(f"build/*/{check}") if path.parent.name != "emulated"]
    assert programs, f"build/*/{check} is missing: build with nvcc and RELPROP_GPU_CHECKS=ON."
    newest = max(programs, key=lambda path: path.stat().st_mtime)
    done = subprocess.run([newest], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
