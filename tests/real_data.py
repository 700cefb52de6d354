"""Trained networks and photos, which lie beside the checkout and are not part of it."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

DATA = Path(__file__).parents[2] / "shared/data"


def real(*names: str) -> list[Path]:
    """Paths of files of the folder; the test is skipped where one is missing, but never in CI."""
    paths = [DATA / name for name in names]
    if not all(path.exists() for path in paths) and not os.environ.get("CI"):
        pytest.skip(f"trained networks and photos are not at {DATA}")
    return paths
