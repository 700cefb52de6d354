"""What ``relprop explain`` writes: one record per image, its pictures and arrays, the sheets."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from relprop.heatmaps import contact_sheet, heatmap, overlay, pixel_relevance

ABSORBED = ("bias", "stabilizer", "constants", "zero")
"""The ledger's categories."""

SHEET_ROWS = 24
"""Images on one contact sheet."""


@dataclass
class Explanation:
    """What one preset says about one image; gradients have no ledger.

    ``completeness`` is how far integrated gradients are from f(x) - f(baseline).
    """

    preset: str
    relevance: NDArray[np.float32]
    absorbed: dict[str, float] | None
    closure_error: float | None
    completeness: float | None = None
    files: dict[str, Path] = field(default_factory=dict)


@dataclass
class Record:
    """One image: what the network saw, its scores, the class explained, the explanations."""

    image: Path
    name: str
    view: NDArray[np.uint8]
    scores: NDArray[np.float32]
    target: int
    explanations: list[Explanation]


def result_names(images: Sequence[Path]) -> list[str]:
    """Name each image's results after its file; equal names get a number."""
    names: list[str] = []
    for image in images:
        name, count = image.stem, 1
        while name in names:
            count += 1
            name = f"{image.stem}-{count}"
        names.append(name)
    return names


def check_folder(folder: Path, names: Sequence[str], presets: Sequence[str], force: bool) -> None:
    """Create the folder and make sure that results can be written, before any are made.

    Raises
    ------
    FileExistsError
        If a result exists already and may not be overwritten.
    OSError
        If the folder cannot be created or written to.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise OSError(f"cannot write to the folder {folder}: {error.strerror}.") from None
    if force:
        return
    paths = [path for n in names for p in presets for path in _files(folder, n, p).values()]
    paths += _sheets(folder, len(names), len(presets))
    existing = [path for path in paths if path.exists()]
    if existing:
        more = f" and {len(existing) - 1} more" if len(existing) > 1 else ""
        raise FileExistsError(f"results exist already: {existing[0]}{more}; --force overwrites.")


def write_arrays(record: Record, folder: Path) -> None:
    """Write the relevance of every explanation."""
    for explanation in record.explanations:
        explanation.files = _files(folder, record.name, explanation.preset)
        path = explanation.files["relevance"]
        with _written(path):
            np.savez_compressed(
                path,
                relevance=explanation.relevance,
                scores=record.scores,
                target=record.target,
            )


def write_pictures(records: Sequence[Record], folder: Path, cmap: str, shared: bool) -> list[Path]:
    """Write heatmaps and overlays, and return the sheets that show several of them.

    With ``shared`` all images of a preset have the same scale of colours.
    """
    bounds = _bounds(records) if shared else {}
    rows = []
    for record in records:
        pictures = [Image.fromarray(record.view)]
        for one in record.explanations:
            bound = bounds.get(one.preset)
            heat = heatmap(one.relevance, cmap=cmap, bound=bound)
            over = overlay(one.relevance, record.view, cmap=cmap, bound=bound)
            _save(heat, one.files["heatmap"])
            _save(over, one.files["overlay"])
            pictures += [heat, over]
        rows.append(pictures)
    presets = [one.preset for one in records[0].explanations] if records else []
    columns = ["photo", *(label for preset in presets for label in (preset, "over the photo"))]
    sheets = _sheets(folder, len(rows), len(presets))
    for number, path in enumerate(sheets):
        part = slice(number * SHEET_ROWS, (number + 1) * SHEET_ROWS)
        _save(contact_sheet(rows[part], [r.image.name for r in records[part]], columns), path)
    return sheets


def _save(picture: Image.Image, path: Path) -> None:
    with _written(path):
        picture.save(path)


@contextmanager
def _written(path: Path) -> Iterator[None]:
    """Leave no part of a file behind where there is no room for all of it."""
    try:
        yield
    except OSError as error:
        path.unlink(missing_ok=True)
        raise OSError(f"cannot write {path}: {error.strerror or error}.") from None


def _files(folder: Path, name: str, preset: str) -> dict[str, Path]:
    endings = {"heatmap": "heatmap.png", "overlay": "overlay.png", "relevance": "npz"}
    return {kind: folder / f"{name}.{preset}.{ending}" for kind, ending in endings.items()}


def _sheets(folder: Path, images: int, presets: int) -> list[Path]:
    """Paths of the contact sheets; one image under one preset needs none."""
    count = -(-images // SHEET_ROWS) if images * presets > 1 else 0
    return [folder / ("sheet.png" if i == 0 else f"sheet-{i + 1}.png") for i in range(count)]


def _bounds(records: Sequence[Record]) -> dict[str, float]:
    """For each preset the largest relevance of a pixel in any image."""
    bounds: dict[str, float] = {}
    for record in records:
        for one in record.explanations:
            largest = float(np.abs(pixel_relevance(one.relevance)).max())
            bounds[one.preset] = max(bounds.get(one.preset, 0.0), largest)
    return {preset: bound for preset, bound in bounds.items() if bound > 0}
