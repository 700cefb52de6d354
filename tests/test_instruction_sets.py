"""Every instruction set computes the same, and the environment can choose one."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

import relprop
from networks import ResNet20, initialise

EXPLAIN = """
import sys
import numpy, relprop
from relprop import _core

path, folder = sys.argv[1:]
model = relprop.load(path)
images = numpy.random.default_rng(0).standard_normal((2, 3, 32, 32), numpy.float32)
for preset in ("epsilon", "epsilon_plus_flat", "epsilon_alpha2_beta1", "gradient"):
    relevance = relprop.Explainer(model, preset)(images).relevance
    numpy.save(f"{folder}/{preset}.npy", relevance)
print(_core.instruction_set())
"""


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A network's file, so that no process needs torch."""
    path = tmp_path_factory.mktemp("network") / "resnet20.relprop"
    relprop.load(initialise(ResNet20()), torch.zeros(1, 3, 32, 32)).save(path)
    return path


def explain(instruction_set: str, model: Path, folder: Path) -> subprocess.CompletedProcess[str]:
    """Explain by one instruction set in a process of its own; "" is the best one."""
    folder.mkdir()
    environment = {**os.environ, "RELPROP_ISA": instruction_set}
    if not instruction_set:
        del environment["RELPROP_ISA"]
    command = [sys.executable, "-c", EXPLAIN, model, folder]
    return subprocess.run(command, env=environment, capture_output=True, text=True)


@pytest.fixture(scope="module")
def best(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("sets") / "best"
    done = explain("", model, folder)
    assert done.returncode == 0, done.stderr
    return folder


@pytest.mark.parametrize("name", ["portable", "avx2", "avx512"])
def test_instruction_sets_agree(name: str, model: Path, best: Path, tmp_path: Path) -> None:
    done = explain(name, model, tmp_path / name)
    if name != "portable" and "RELPROP_ISA must name" in done.stderr:
        pytest.skip(f"this machine has no {name}")
    assert done.stdout.strip() == name, done.stderr
    for path in sorted(best.iterdir()):
        expected, got = np.load(path), np.load(tmp_path / name / path.name)
        error = np.linalg.norm(got - expected) / np.linalg.norm(expected)
        assert error < 1e-4, path.stem


def test_an_unknown_instruction_set_is_refused(model: Path, tmp_path: Path) -> None:
    done = explain("sse9", model, tmp_path / "none")
    assert done.returncode != 0
    assert 'not "sse9"' in done.stderr
