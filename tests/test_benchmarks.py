"""The benchmarks run, so that they do not rot."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from peers import peer

BENCHMARKS = Path(__file__).parent.parent / "benchmarks"


def test_compare(tmp_path: Path) -> None:
    peer("zennit")
    rows = tmp_path / "rows.json"
    selected = "--network squeezenet --preset epsilon_plus epsilon_gamma_box --batch 1 --threads 1"
    command = [sys.executable, BENCHMARKS / "compare.py", *selected.split()]
    subprocess.run([*command, "--repeat", "1", "--json", rows], check=True, stdout=subprocess.PIPE)
    measured = json.loads(rows.read_text())
    assert [row["preset"] for row in measured] == ["epsilon_plus", "epsilon_gamma_box"]
    assert all(row["relprop_ms"] > 0 for row in measured)


def test_toys() -> None:
    command = [sys.executable, BENCHMARKS / "toys.py", "--tool", "relprop"]
    printed = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
    rows = dict(line.strip("| ").split(" | ") for line in printed.splitlines()[2:])
    assert rows["residual in place"] == "1.000"
    assert rows["lstm"] == "UnsupportedOperatorError"
