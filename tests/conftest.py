"""What several test files use, how hypothesis draws, and which tests run on every device."""

from __future__ import annotations

import gc
import os
from collections.abc import Iterator

import pytest
from hypothesis import settings

from command_line import run
from relprop import _core

__all__ = ["run"]

# In CI the same draws every time, so that what fails is what changed; elsewhere new ones.
settings.register_profile("ci", derandomize=True)
if "CI" in os.environ:
    settings.load_profile("ci")

# Ray's workers give way to every other process; beside the tests of two cores they hardly run.
os.environ.setdefault("RAY_worker_niceness", "0")

ON_EVERY_DEVICE = frozenset(
    f"test_{name}"
    for name in (
        "attention",
        "bindings",
        "branching_networks",
        "captum",
        "conv",
        "conv_transpose",
        "dense",
        "einsum",
        "embedding",
        "explain",
        "gradient",
        "inputs",
        "long_sums",
        "lxt",
        "merge",
        "messages",
        "move",
        "norm",
        "onnx_round_trip",
        "pointwise",
        "pool",
        "precision",
        "ranges",
        "real_networks",
        "rectifiers",
        "rules",
        "scarce",
        "toy_matrix",
        "upsample",
        "whole_graphs",
        "zennit",
    )
)
"""Test files whose tests run once on the CPU and once, marked ``gpu``, on a GPU."""


GPU_CHECKS = (
    "device_check",
    "kernels_check",
    "pool_check",
    "product_check",
    "recording_check",
    "wgmma_check",
)
"""Programs of tests/gpu that run on a GPU, and where CUDA is emulated."""


def without_gpu() -> str:
    """Why no test can run on a GPU here; empty where one can."""
    try:
        _core.Plan(0)
    except RuntimeError as error:
        return str(error)
    return ""


@pytest.fixture(scope="module", autouse=True)
def device(request: pytest.FixtureRequest) -> Iterator[None]:
    """The device that Explainers use where they are told none."""
    name: str | None = getattr(request, "param", None)
    if name == "cuda" and (reason := without_gpu()):
        pytest.skip(f"no GPU: {reason}")
    with pytest.MonkeyPatch.context() as patch:
        if name:
            patch.setenv("RELPROP_DEVICE", name)
        yield


def pytest_collection_finish() -> None:
    """Spare the collector what is imported by now and stays: 4 to 17 % of a few files' time."""
    gc.freeze()


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if metafunc.module.__name__ in ON_EVERY_DEVICE:
        devices = ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)]
        metafunc.parametrize("device", devices, indirect=True, scope="module")
