"""What ``relprop explain`` writes: one record per image, its pictures and arrays, the sheets."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping, Sequence
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
    """What is told of one preset and one image; gradients have no ledger.

    ``completeness`` is how far integrated gradients are from f(x) - f(baseline).
    """

    preset: str
    relevance_sum: float
    absorbed: dict[str, float] | None
    closure_error: float | None
    completeness: float | None = None
    files: dict[str, Path] = field(default_factory=dict)


@dataclass
class Record:
    """One image: its scores, the class explained, what is told of the explanations."""

    image: Path
    name: str
    scores: NDArray[np.float32]
    target: int
    explanations: list[Explanation]


Maps = Mapping[str, NDArray[np.float32]]
"""One image's relevance under each preset: too large to be held for all images."""


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


def write_arrays(record: Record, maps: Maps, folder: Path) -> None:
    """Write the relevance of every explanation."""
    for explanation in record.explanations:
        explanation.files = _files(folder, record.name, explanation.preset)
        path = explanation.files["relevance"]
        with _written(path):
            np.savez_compressed(
                path,
                relevance=maps[explanation.preset],
                scores=record.scores,
                target=record.target,
            )


def read_arrays(record: Record) -> Maps:
    """Read the relevance that was written."""
    maps = {}
    for explanation in record.explanations:
        with np.load(explanation.files["relevance"]) as arrays:
            maps[explanation.preset] = arrays["relevance"]
    return maps


class Pictures:
    """Heatmaps and overlays, image by image, and the sheets that show several of them.

    Parameters
    ----------
    folder
        Where they are written.
    cmap
        Their colours.
    bounds
        For each preset the relevance that gets the strongest colour; else each image's largest.
    """

    def __init__(self, folder: Path, cmap: str, bounds: Mapping[str, float]) -> None:
        self.sheets: list[Path] = []
        self._folder = folder
        self._cmap = cmap
        self._bounds = bounds
        self._rows: list[list[Image.Image]] = []
        self._names: list[str] = []
        self._columns: list[str] = []

    def write(self, record: Record, view: NDArray[np.uint8], maps: Maps) -> None:
        """Write an image's pictures, and the sheet that they fill; ``view`` is what was seen."""
        row, self._columns = [Image.fromarray(view)], ["photo"]
        for one in record.explanations:
            bound = self._bounds.get(one.preset)
            heat = heatmap(maps[one.preset], cmap=self._cmap, bound=bound)
            over = overlay(maps[one.preset], view, cmap=self._cmap, bound=bound)
            _save(heat, one.files["heatmap"])
            _save(over, one.files["overlay"])
            row += [heat, over]
            self._columns += [one.preset, "over the photo"]
        self._rows.append(row)
        self._names.append(record.image.name)
        if len(self._rows) == SHEET_ROWS:
            self._write_sheet()

    def finish(self) -> list[Path]:
        """Write the last sheet, and return all; one image under one preset needs none."""
        alone = not self.sheets and len(self._rows) == 1 and len(self._rows[0]) == 3
        if self._rows and not alone:
            self._write_sheet()
        return self.sheets

    def _write_sheet(self) -> None:
        path = _sheet(self._folder, len(self.sheets))
        _save(contact_sheet(self._rows, self._names, self._columns), path)
        self.sheets.append(path)
        self._rows, self._names = [], []


def widen(bounds: dict[str, float], maps: Maps) -> None:
    """Let each preset's bound hold one more image's largest relevance of a pixel."""
    for preset, relevance in maps.items():
        largest = float(np.abs(pixel_relevance(relevance)).max())
        if largest > bounds.get(preset, 0.0):
            bounds[preset] = largest


def _save(picture: Image.Image, path: Path) -> None:
    with _written(path):
        picture.save(path)


@contextmanager
def _written(path: Path) -> Iterator[None]:
    """Leave no part of a file behind where there is no room for all of it, or no time."""
    try:
        yield
    except OSError as error:
        path.unlink(missing_ok=True)
        raise OSError(f"cannot write {path}: {error.strerror or error}.") from None
    except KeyboardInterrupt:
        path.unlink(missing_ok=True)
        raise


def _files(folder: Path, name: str, preset: str) -> dict[str, Path]:
    endings = {"heatmap": "heatmap.png", "overlay": "overlay.png", "relevance": "npz"}
    return {kind: folder / f"{name}.{preset}.{ending}" for kind, ending in endings.items()}


def _sheets(folder: Path, images: int, presets: int) -> list[Path]:
    """Paths of the contact sheets; one image under one preset needs none."""
    count = -(-images // SHEET_ROWS) if images * presets > 1 else 0
    return [_sheet(folder, number) for number in range(count)]


def _sheet(folder: Path, number: int) -> Path:
    return folder / (f"sheet-{number + 1}.png" if number else "sheet.png")
