"""The files of a finished run: tables, average heatmaps, and everything as JSON."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from relprop.aggregation.kept_maps import FILES as KEPT_FILES
from relprop.aggregation.run_state import RunState
from relprop.atomic import atomic_file
from relprop.heatmaps import heatmap
from relprop.runs.checkpoint import Checkpoint
from relprop.runs.file_names import file_name
from relprop.runs.folder import CHECKPOINT
from relprop.runs.rejections import REJECTED, Rejections
from relprop.runs.tables import versions, write_json, write_table

LAST = "result.json"
"""The file that is written when all others are."""

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


def is_complete(folder: Path, state: RunState) -> bool:
    """Whether every file is there that :func:`write_results` writes."""
    tables = state.tables()
    names = [LAST, REJECTED, CONSERVATION, AVERAGES, *(f"{n}.csv" for n in TABLES if n in tables)]
    names += [_map_name(*numbered) for numbered in enumerate(state.average_maps())]
    return all((folder / name).exists() for name in names)


def write_results(
    folder: Path, state: RunState, checkpoint: Checkpoint, command: Sequence[str]
) -> None:
    """Write every file; the folder holds a complete run once ``result.json`` is there."""
    tables = state.tables()
    Rejections(checkpoint.position, checkpoint.rejected).write(folder)
    for name in TABLES:
        if name in tables:
            write_table(folder / f"{name}.csv", tables[name])
    conservation = {name: tables[name] for name in ("conservation", "beyond")}
    write_json(folder / CONSERVATION, conservation)
    _write_maps(folder, state)
    content = {
        "versions": versions(),
        "command": list(command),
        "fingerprint": checkpoint.fingerprint,
        "items": checkpoint.position,
        "used": state.count,
        "rejected": [{"key": key, "reason": reason} for key, reason in checkpoint.rejected],
        **tables,
    }
    write_json(folder / LAST, content)


def _write_maps(folder: Path, state: RunState) -> None:
    """Write the average map of each class as a picture, and all of them as arrays."""
    averages = state.average_maps()
    (folder / MAPS).mkdir(exist_ok=True)
    for number, (name, summary) in enumerate(averages.items()):
        with atomic_file(folder / _map_name(number, name)) as part:
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


def _map_name(number: int, name: str | None) -> str:
    """The file of a class's average map."""
    return f"{MAPS}/{number:04}-{file_name(name) if name else 'unlabelled'}.png"
