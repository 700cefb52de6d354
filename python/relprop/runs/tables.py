"""Tables and JSON as files that appear whole or not at all."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

from relprop.atomic import write_atomically


def write_table(path: Path, rows: Sequence[Mapping[str, Any]], header: Sequence[str] = ()) -> None:
    """Write rows as CSV; the header is the first row's, where none is given."""
    text = io.StringIO()
    names = header or list(rows[0] if rows else ())
    writer = csv.DictWriter(text, names, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    write_atomically(path, text.getvalue().encode())


def write_json(path: Path, content: Any) -> None:
    """Write what JSON can hold; a number that is not finite is refused."""
    write_atomically(path, json.dumps(content, indent=1, allow_nan=False).encode())


def versions() -> dict[str, str]:
    """Return what made a result: packages and their versions."""
    return {package: version(package) for package in ("relprop", "numpy", "Pillow")}
