"""The benchmark of perturbation analysis runs and says what it means to; no time is held to any."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

from command_line import NETWORK

SCRIPT = Path(__file__).parent.parent / "benchmarks/evaluate.py"


def test_it_measures(tmp_path: Path) -> None:
    beside_quantus = find_spec("quantus") is not None or "CI" in os.environ
    (tmp_path / "tiny_network.py").write_text(NETWORK)
    paths = [str(tmp_path), *filter(None, [os.environ.get("PYTHONPATH")])]
    done = subprocess.run(
        [sys.executable, str(SCRIPT), "--network", "tiny_network:make", "--shape", "3,16,16",
         "--images", "2", "--steps", "3", "--repeats", "2", "--batch", "5", "--turns", "1",
         "--threads", "1", "-o", str(tmp_path / "out.json"),
         *([] if beside_quantus else ["--no-quantus"])],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(paths)},
        capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    report = json.loads((tmp_path / "out.json").read_text())
    protocol = report["protocol"]
    assert protocol["samples"] == 2 * (1 + 2 * 2 * 3)
    assert len(protocol["bare_per_second"]) == len(protocol["protocol_per_second"]) == 2
    assert 0 < protocol["share_of_time_in_forward"] < 1
    assert ("quantus" in report) == beside_quantus
    if beside_quantus:
        beside = report["quantus"]
        assert beside["largest_difference"] < 1e-4 * max(1, beside["largest_drop"])
        assert set(beside["seconds"]) == {"quantus", "relprop", "torch forward"}
    assert "protocol / bare" in done.stdout
