"""What a benchmark leaves behind: one JSON file, and what changed between two of them."""

from __future__ import annotations

import json
import math
import os
import platform
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timezone
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from relprop import _core

FORMAT = 1
"""Counts up when the file's structure changes."""

PACKAGES = ("relprop", "torch", "numpy", "zennit", "captum", "lxt", "autolrp")


def new_report() -> dict[str, Any]:
    """Begin a report: where, when and with what; the measurements are still to come."""
    return {
        "format": FORMAT,
        "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "machine": {
            "processor": _processor(),
            "cores": os.cpu_count(),
            "instruction_set": _core.instruction_set(),
            "system": platform.platform(),
            "python": platform.python_version(),
        },
        "versions": {name: found for name in PACKAGES if (found := _version(name))},
        "ceilings": {},
        "runs": [],
        "memory": [],
        "layers": [],
    }


def write(report: dict[str, Any], path: Path) -> None:
    """Write a report."""
    path.write_text(json.dumps(report, indent=1, allow_nan=False) + "\n", encoding="utf-8")


def read(path: Path) -> dict[str, Any]:
    """Read a report.

    Raises
    ------
    OSError
        If the file cannot be read.
    ValueError
        If it holds something else, or is of another format.
    """
    try:
        report = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path} is no JSON: {error}.") from None
    if not isinstance(report, dict) or not {"format", "runs", "memory"} <= report.keys():
        raise ValueError(f"{path} was not written by relprop bench.")
    if report["format"] != FORMAT:
        raise ValueError(f"{path} must be of format {FORMAT}, not {report['format']}.")
    for key in ("runs", "memory"):
        if not isinstance(report[key], list):
            raise ValueError(f"{path}: {key} must be a list, not {report[key]!r}.")
    return report


@dataclass(frozen=True)
class Change:
    """One figure in two reports."""

    network: str
    batch: int
    threads: int
    preset: str
    contender: str
    figure: str
    before: float
    after: float
    clear: bool
    """Whether it changed by more than its spread: the quartiles do not overlap."""

    @property
    def factor(self) -> float:
        """The later figure over the earlier one."""
        return self.after / self.before if self.before else math.inf


def compare(before: dict[str, Any], after: dict[str, Any]) -> Iterator[Change]:
    """Compare what two reports have in common.

    Times are compared as ratios to torch's gradient in the same report, so that the reports may
    be of different days, or machines; torch's own rows are left out.
    """
    old = dict(_figures(before))
    for key, new in _figures(after):
        if key in old:
            was = old[key]
            clear = new["low"] > was["high"] or new["high"] < was["low"]
            yield Change(*key, was["median"], new["median"], clear)


Key = tuple[str, int, int, str, str, str]


def _figures(report: dict[str, Any]) -> Iterator[tuple[Key, dict[str, float]]]:
    for run in report["runs"]:
        where = (run["network"], run["batch"], run["threads"], run["preset"])
        for name, found in run["contenders"].items():
            if not name.startswith("torch"):
                yield (*where, name, "ratio"), found["ratio"]
    for held in report["memory"]:
        if "peak_bytes" in held:
            where = (held["network"], held["batch"], held["threads"], held["preset"])
            peak = held["peak_bytes"] / 2**20
            values = {"median": peak, "low": 0.99 * peak, "high": 1.01 * peak}
            yield (*where, held["contender"], "peak MiB"), values


def _processor() -> str:
    """The processor's name as the system gives it."""
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        for line in cpuinfo.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None
