"""The files of a finished run: tables, average heatmaps, and everything as JSON."""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from shutil import rmtree
from typing import Any

import numpy as np

from relprop.aggregation.checkpoint import Checkpoint
from relprop.aggregation.kept_maps import FILES as KEPT_FILES
from relprop.aggregation.run_state import RunState
from relprop.aggregation.states import Row
from relprop.atomic import atomic_file, write_atomically
from relprop.heatmaps import heatmap

CHECKPOINT = "checkpoint"
LAST = "result.json"
"""The file that is written when all others are."""

REJECTED = "rejected.csv"
CONSERVATION = "conservation.json"
MAPS, AVERAGES = "maps", "average_maps.npz"
SHARDS = "shards"
"""The folder of what the shards of a run beyond one process add up to."""

TABLES = ("regions", "classes", "pairs", "extremes", "context", "channels")
"""Tables that are files of their own."""


def results_in(folder: Path) -> list[Path]:
    """Return the files of a run that are there, the one first that says that it is complete."""
    names = [LAST, CHECKPOINT, REJECTED, CONSERVATION, AVERAGES, *(f"{n}.csv" for n in TABLES)]
    found = [folder / name for name in names]
    digits = "[0-9]" * 4
    for pattern in (f"{MAPS}/{digits}-*.png", f"{SHARDS}/{digits}?", *KEPT_FILES):
        found += sorted(folder.glob(pattern))
    return [path for path in found if path.exists()]


def remove_results(folder: Path) -> None:
    """Remove the files of a run, the one first that says that it is complete."""
    for path in results_in(folder):
        if path.is_dir():
            rmtree(path)
        else:
            path.unlink()


def remove_parts(folder: Path) -> None:
    """Remove the beginnings of files that a killed run left behind."""
    for place in (folder, folder / MAPS, folder / SHARDS):
        for part in place.glob(".*.part"):
            part.unlink()


def write_rejected(folder: Path, rejected: Iterable[tuple[str, str]]) -> None:
    """Write which items were not used, and why."""
    rows = [{"key": key, "reason": reason} for key, reason in rejected]
    _write_table(folder / REJECTED, rows, ("key", "reason"))


def write_results(
    folder: Path, state: RunState, checkpoint: Checkpoint, command: Sequence[str]
) -> None:
    """Write every file; the folder holds a complete run once ``result.json`` is there."""
    tables = state.tables()
    write_rejected(folder, checkpoint.rejected)
    for name in TABLES:
        if name in tables:
            _write_table(folder / f"{name}.csv", tables[name])
    conservation = {name: tables[name] for name in ("conservation", "beyond")}
    _write_json(folder / CONSERVATION, conservation)
    _write_maps(folder, state)
    content = {
        "versions": _versions(),
        "command": list(command),
        "fingerprint": checkpoint.fingerprint,
        "items": checkpoint.position,
        "used": state.count,
        "rejected": [{"key": key, "reason": reason} for key, reason in checkpoint.rejected],
        **tables,
    }
    _write_json(folder / LAST, content)


def _write_table(path: Path, rows: Sequence[Row], header: Sequence[str] = ()) -> None:
    text = io.StringIO()
    names = header or list(rows[0] if rows else ())
    writer = csv.DictWriter(text, names, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    write_atomically(path, text.getvalue().encode())


def _write_json(path: Path, content: Any) -> None:
    write_atomically(path, json.dumps(content, indent=1, allow_nan=False).encode())


def _write_maps(folder: Path, state: RunState) -> None:
    """Write the average map of each class as a picture, and all of them as arrays."""
    averages = state.average_maps()
    (folder / MAPS).mkdir(exist_ok=True)
    for number, (name, summary) in enumerate(averages.items()):
        path = folder / MAPS / f"{number:04}-{_file_name(name)}.png"
        with atomic_file(path) as part:
            heatmap(summary.mean).save(part, format="PNG")
    summaries = list(averages.values())
    with atomic_file(folder / AVERAGES) as part, part.open("wb") as file:
        np.savez_compressed(
            file,
            classes=np.array([name or "" for name in averages], str),
            counts=np.array([one.count for one in summaries], np.int64),
            means=np.array([one.mean for one in summaries]),
            deviations=np.array([one.deviation for one in summaries]),
        )


def _file_name(name: str | None) -> str:
    """A class's name as a file may be called."""
    return re.sub(r"[^\w.-]+", "_", name)[:60] if name else "unlabelled"


def _versions() -> dict[str, str]:
    from importlib.metadata import version

    return {package: version(package) for package in ("relprop", "numpy", "Pillow")}
