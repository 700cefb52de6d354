"""The files of a finished run: tables, plots, and all that is not of single images as JSON."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

from relprop.evaluation.image_tables import CURVES, METRICS, ImageTables
from relprop.evaluation.plots import SUFFIXES, write_plots
from relprop.evaluation.record_file import RecordFile
from relprop.evaluation.settings import Settings
from relprop.evaluation.statistics import TABLES, Tables, tables_of
from relprop.optional import import_optional
from relprop.runs.checkpoint import Checkpoint
from relprop.runs.file_names import file_name
from relprop.runs.folder import CHECKPOINT
from relprop.runs.rejections import REJECTED, Rejections
from relprop.runs.tables import versions, write_json, write_table

LAST = "result.json"
"""The file that is written when all others are."""

RECORDS = "records"
"""What is known of every image, until the results are written."""


def results_in(folder: Path) -> list[Path]:
    """Return the files of a run that are there, the one first that says that it is complete."""
    names = [LAST, CHECKPOINT, REJECTED, CURVES, METRICS, RECORDS]
    found = [folder / name for name in [*names, *(f"{name}.csv" for name in TABLES)]]
    for suffix in SUFFIXES:
        found += [folder / f"aopc.{suffix}", *sorted(folder.glob(f"curves-*.{suffix}"))]
    there = [path for path in found if path.exists()]
    if there == [folder / RECORDS] and not there[0].is_dir() and there[0].stat().st_size == 0:
        return []  # of a run that was killed before its first checkpoint
    return there


def require_packages() -> None:
    """Import what writing results needs.

    Raises
    ------
    ImportError
        If a package is not installed.
    """
    import_optional("pyarrow", "evaluation", "a table of every image")
    import_optional("matplotlib", "evaluation", "plotting")


class Results:
    """Writes the results of a run.

    Parameters
    ----------
    classes, outputs
        The names of the classes and of the model's outputs.
    methods
        The names of the methods.
    settings
        The run's.
    """

    def __init__(
        self,
        classes: Sequence[str],
        outputs: Sequence[str],
        methods: Sequence[str],
        settings: Settings,
    ) -> None:
        self._images = ImageTables(classes, outputs, methods, settings)
        self._methods = methods
        self._settings = settings

    def write(
        self, folder: Path, records: RecordFile, checkpoint: Checkpoint, command: Sequence[str]
    ) -> dict[str, Any]:
        """Write every file, and return what ``result.json`` holds, whose presence says it is done.

        The records go; the tables hold what they held.
        """
        settings = self._settings
        tables = tables_of(records, records.count, self._methods, settings)
        Rejections(checkpoint.position, checkpoint.rejected).write(folder)
        for name, columns in TABLES.items():
            if tables[name]:
                write_table(folder / f"{name}.csv", tables[name], columns)
        self._images.write(folder, records)
        names = list(settings.perturbations)
        write_plots(folder, tables, names, self._methods, settings.score)
        content = {
            "versions": versions()
            | {package: version(package) for package in ("pyarrow", "matplotlib")},
            "command": list(command),
            "fingerprint": checkpoint.fingerprint,
            "seed": settings.seed,
            "items": checkpoint.position,
            "used": records.count,
            "rejected": [{"key": key, "reason": reason} for key, reason in checkpoint.rejected],
            **_without_curves(tables),
        }
        write_json(folder / LAST, content)
        records.close()
        (folder / RECORDS).unlink()
        return content

    def read(self, folder: Path) -> dict[str, Any]:
        """Read what a finished run left in ``result.json``.

        Raises
        ------
        FileNotFoundError
            If another of its files has gone: what was known of each image is no longer there.
        OSError, ValueError
            If it cannot be read.
        """
        content: dict[str, Any] = json.loads((folder / LAST).read_text(encoding="utf-8"))
        missing = [name for name in self._files(content) if not (folder / name).exists()]
        if missing:
            raise FileNotFoundError(
                f"{folder}: {', '.join(missing)} {'is' if len(missing) == 1 else 'are'} missing "
                "from what a finished run left: take another folder, or overwrite it (force, "
                "--force)."
            )
        (folder / RECORDS).unlink(missing_ok=True)  # of a run that was killed just before the end
        return content

    def _files(self, content: Mapping[str, Any]) -> list[str]:
        """The names of all files but ``result.json``, which holds ``content``."""
        tables = [f"{name}.csv" for name in TABLES if name not in content or content[name]]
        of_images = [CURVES, METRICS] if self._settings.metrics else [CURVES]
        plots = ["aopc", *(f"curves-{file_name(name)}" for name in self._settings.perturbations)]
        drawn = [f"{stem}.{suffix}" for stem in plots for suffix in SUFFIXES]
        return [REJECTED, *tables, *of_images, *drawn]


def _without_curves(tables: Tables) -> Tables:
    """What is in ``mean_curves.csv`` would make most of the file."""
    return {name: rows for name, rows in tables.items() if name != "mean_curves"}
