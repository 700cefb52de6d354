"""Regions: which part of an image each pixel belongs to.

A region counts pixels by their centres. Pixels of no region are labelled -1.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Sequence
from difflib import get_close_matches
from typing import Protocol, TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray

from relprop.errors import MissingAnnotation

Labels: TypeAlias = NDArray[np.int32]
Label: TypeAlias = "str | int | None"

NO_REGION = -1
"""The label of a pixel that belongs to no region."""


class Box(Protocol):
    """A box in input coordinates: pixel (x, y) covers [x, x + 1) x [y, y + 1)."""

    @property
    def left(self) -> float:
        """Where it begins."""

    @property
    def top(self) -> float:
        """Where it begins."""

    @property
    def right(self) -> float:
        """Where it ends, exclusive."""

    @property
    def bottom(self) -> float:
        """Where it ends, exclusive."""

    @property
    def label(self) -> Label:
        """The class of what is in it."""


class Sample(Protocol):
    """What regions read of a sample; :class:`relprop.datasets.Sample` is one."""

    @property
    def key(self) -> str:
        """The sample's name, unique in its data set."""

    @property
    def label(self) -> Label:
        """The true class."""

    @property
    def pixels(self) -> NDArray[np.float32]:
        """The network's input, (C, H, W)."""

    @property
    def boxes(self) -> Sequence[Box]:
        """Where objects are."""

    @property
    def masks(self) -> Sequence[NDArray[np.bool_]]:
        """Which pixels objects cover, each (H, W)."""

    @property
    def mask_labels(self) -> Sequence[Label]:
        """The class of each mask."""


class Regions(Protocol):
    """A way of cutting images into named regions."""

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the regions."""

    @property
    def shared(self) -> bool:
        """Whether the labels depend on the sample's height and width alone."""

    def labels(self, sample: Sample) -> Labels:
        """The number of each pixel's region, or -1, (H, W)."""


class Grid:
    """Rows times columns of rectangles, named r1c1, r1c2 and so on from the top left.

    Where the height or the width does not divide, sizes differ by at most one pixel.
    """

    shared = True

    def __init__(self, rows: int, columns: int) -> None:
        if rows < 1 or columns < 1:
            raise ValueError(f"rows and columns must be >= 1, not {rows} and {columns}.")
        self.rows = rows
        self.columns = columns
        self.names = tuple(f"r{r + 1}c{c + 1}" for r in range(rows) for c in range(columns))

    def labels(self, sample: Sample) -> Labels:
        """The number of each pixel's rectangle, (H, W)."""
        height, width = sample.pixels.shape[-2:]
        return _parts(height, self.rows)[:, None] * self.columns + _parts(width, self.columns)


class Thirds(Grid):
    """Top, middle and bottom third; where the height does not divide, they differ by one row."""

    def __init__(self) -> None:
        super().__init__(3, 1)
        self.names = ("top", "middle", "bottom")


class _Inside:
    """Inside and outside of what annotations of a class cover."""

    names = ("inside", "outside")
    shared = False
    what: str

    def __init__(self, of: str = "label", classes: Sequence[str] = ()) -> None:
        self.of = of
        self.classes = tuple(classes)

    def _name(self, label: Label) -> Label:
        known = isinstance(label, int) and 0 <= label < len(self.classes)
        return self.classes[int(label)] if known else label  # type: ignore[arg-type]

    def _chosen(self, sample: Sample, labels: Sequence[Label]) -> list[int]:
        """The places of the annotations that count, of which there must be one."""
        wanted = self._name(sample.label) if self.of == "label" else self.of
        found = [
            i
            for i, label in enumerate(labels)
            if self.of == "any" or (label is not None and self._name(label) == wanted)
        ]
        if not found:
            of_class = "" if self.of == "any" else f" of class {wanted!r}"
            raise MissingAnnotation(f"{sample.key}: there is no {self.what}{of_class}.")
        return found


class InsideBoxes(_Inside):
    """Inside any box of a class, and outside; a pixel is inside where its centre is.

    Parameters
    ----------
    of
        ``"label"`` for boxes of the sample's own class, ``"any"`` for all boxes, or the name of a
        class.
    classes
        The names of classes, where samples or boxes number them.
    """

    what = "box"

    def labels(self, sample: Sample) -> Labels:
        """0 inside, 1 outside, (H, W); without a box of the class MissingAnnotation is raised."""
        chosen = self._chosen(sample, [box.label for box in sample.boxes])
        inside = box_mask((sample.boxes[i] for i in chosen), *sample.pixels.shape[-2:])
        labels: Labels = (~inside).astype(np.int32)
        return labels


class InsideMasks(_Inside):
    """Inside any mask of a class, and outside; the arguments are those of InsideBoxes."""

    what = "mask"

    def labels(self, sample: Sample) -> Labels:
        """0 inside, 1 outside, (H, W); without a mask of the class MissingAnnotation is raised."""
        labels = np.ones(sample.pixels.shape[-2:], np.int32)
        for i in self._chosen(sample, sample.mask_labels):
            mask = np.asarray(sample.masks[i])
            if mask.dtype != np.bool_ or mask.shape != labels.shape:
                raise ValueError(
                    f"{sample.key}: a mask must be bool of shape {labels.shape}, not {mask.dtype} "
                    f"of {mask.shape}."
                )
            labels[mask] = 0
        return labels


class LabelMap:
    """Regions that the user's function knows.

    Parameters
    ----------
    names
        The names of the regions.
    read
        Returns for a sample's key whole numbers (H, W), each a region's place in ``names`` or -1.
    """

    shared = False

    def __init__(self, names: Sequence[str], read: Callable[[str], ArrayLike]) -> None:
        if not names or len(set(names)) != len(names):
            raise ValueError(f"names must be given and differ, not {tuple(names)!r}.")
        self.names = tuple(names)
        self._read = read

    def labels(self, sample: Sample) -> Labels:
        """What the function says of the sample, checked, (H, W)."""
        found = np.asarray(self._read(sample.key))
        shape = sample.pixels.shape[-2:]
        if found.dtype.kind not in "iu" or found.shape != shape:
            raise ValueError(
                f"{sample.key}: labels must be whole numbers of shape {shape}, not "
                f"{found.dtype} of {found.shape}."
            )
        least, largest = int(found.min(initial=0)), int(found.max(initial=0))
        if least < NO_REGION or largest >= len(self.names):
            bad = least if least < NO_REGION else largest
            raise ValueError(
                f"{sample.key}: labels must lie in [-1, {len(self.names)}), not be {bad}."
            )
        return found.astype(np.int32)


def box_mask(boxes: Iterable[Box], height: int, width: int) -> NDArray[np.bool_]:
    """Which pixels have their centre in any of the boxes, (height, width)."""
    inside = np.zeros((height, width), np.bool_)
    for box in boxes:
        inside[_centres(box.top, box.bottom, height), _centres(box.left, box.right, width)] = True
    return inside


def regions_of(word: str, classes: Sequence[str] = ()) -> Regions:
    """Make the regions that the command line's word names.

    Parameters
    ----------
    word
        ``"thirds"``, ``"grid:3x4"`` (rows times columns), ``"boxes"`` or ``"masks"`` (of the
        sample's own class), ``"boxes:any"``, ``"boxes:horse"`` and so on.
    classes
        The names of the dataset's classes, where they are known.

    Raises
    ------
    ValueError
        If the word names none, or a class that is not among ``classes``.
    """
    if word == "thirds":
        return Thirds()
    if grid := re.fullmatch(r"grid:([1-9][0-9]{0,3})x([1-9][0-9]{0,3})", word):
        return Grid(int(grid[1]), int(grid[2]))
    if annotated := re.fullmatch(r"(boxes|masks)(?::(.+))?", word):
        inside = InsideBoxes if annotated[1] == "boxes" else InsideMasks
        of = annotated[2] or "label"
        if classes and of not in ("label", "any", *classes):
            close = ", ".join(get_close_matches(of, classes))
            hint = f"; close are {close}" if close else ""
            raise ValueError(f"regions {word!r}: the dataset has no class {of!r}{hint}.")
        return inside(of, classes)
    raise ValueError(
        "regions must be thirds, grid:ROWSxCOLUMNS, boxes, boxes:any, boxes:CLASS, masks, "
        f"masks:any or masks:CLASS, not {word!r}."
    )


def _parts(size: int, count: int) -> Labels:
    """Which of ``count`` equal parts each of ``size`` places lies in."""
    parts: Labels = (np.arange(size, dtype=np.int64) * count // max(size, 1)).astype(np.int32)
    return parts


def _centres(begin: float, end: float, size: int) -> slice:
    """The pixels of an axis whose centres lie in [begin, end)."""
    first, last = (math.ceil(min(max(at - 0.5, 0.0), float(size))) for at in (begin, end))
    return slice(first, last)
