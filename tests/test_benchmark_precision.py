"""The table of errors runs and means what it says, on a tiny network and on one photo."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch

import relprop
from real_data import real
from relprop import Explainer
from relprop.benchmark import networks

SCRIPT = Path(__file__).parent.parent / "benchmarks/precision.py"


@pytest.fixture(scope="module")
def script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("precision", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_errors_are_those_of_what_is_measured(
    script: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    graph = relprop.load(networks.tiny(), (3, 8, 8)).graph
    x = torch.randn(3, 3, 8, 8, generator=torch.Generator().manual_seed(0)).numpy()
    sample = graph, x, {"low": (-6.0,), "high": (6.0,)}
    for preset in script.PRESETS:
        (found,) = script.measure(sample, preset, [("cpu", "float32")])
        assert (found["preset"], found["device"]) == (preset, "cpu")
        assert max(found["scores"]) < 1e-6
        assert max(found["relevance"]) < 1e-5
        assert max(found["closure"]) < 1e-6
        assert min(found["rank"]) > 0.999

    explain = Explainer.__call__

    def rounded(self: Explainer, *arguments: object, **options: object) -> object:
        result = explain(self, *arguments, **options)
        result.relevance[:] = result.relevance.astype(np.float16)
        result.relevance[0] *= -1
        return result

    monkeypatch.setattr(Explainer, "__call__", rounded)
    (found,) = script.measure(sample, "epsilon_plus_flat", [("cpu", "float32")])
    assert found["relevance"][0] == pytest.approx(2, rel=1e-3)
    assert found["rank"][0] == pytest.approx(-1, abs=1e-3)
    assert 1e-5 < max(found["relevance"][1:]) < 1e-3
    row = script.row("tiny", found)
    assert row.startswith("| tiny | epsilon_plus_flat | cpu | float32 |")
    assert "2.0e+00" in row


def test_the_script(tmp_path: Path) -> None:
    real("models/squeezenet_v1.1.caffemodel")
    command = [sys.executable, SCRIPT, "-n", "squeezenet", "--photos", "1", "--device", "cpu"]
    command += ["-c", "epsilon_gamma_box", "-o", tmp_path / "out.json"]
    done = subprocess.run(command, capture_output=True, text=True, env=os.environ)
    assert done.returncode == 0, done.stderr
    (found,) = json.loads((tmp_path / "out.json").read_text())
    assert found["relevance"][0] < 1e-5
    assert "| squeezenet | epsilon_gamma_box | cpu | float32 |" in done.stdout
