"""A folder of class folders: the folder that a photo lies in is its class."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import PurePosixPath

from relprop.datasets.items import Item, Rejected
from relprop.datasets.listed import Listed, once
from relprop.datasets.places import Place

SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".tif", ".tiff", ".bmp", ".gif", ".ppm", ".pgm")
"""What the names of photos end in, in lower case."""


def folder_dataset(place: Place, classes: Sequence[str] | None = None) -> Listed[str | None]:
    """Return all files below the class folders, keyed by their path.

    The classes are the folders in alphabetical order, or those of ``classes``. Where there are no
    folders, the photos of the folder itself are the items, without labels.
    """
    found = place.folders()
    known = tuple(found if classes is None else classes)
    entries = once([*_loose(place, labelled=bool(found)), *_labelled(place, found, known)])
    return Listed(place.name, known, entries, partial(_item, place), all_of=place)


def is_photo(name: str) -> bool:
    """Whether a file's name is that of a photo."""
    return PurePosixPath(name).suffix.lower() in SUFFIXES


def _loose(place: Place, labelled: bool) -> Iterator[tuple[str, Rejected | None]]:
    for path in filter(is_photo, place.files(deep=False)):
        yield path, Rejected(path, "it lies in no class folder.") if labelled else None


def _labelled(
    place: Place, folders: Sequence[str], classes: tuple[str, ...]
) -> Iterator[tuple[str, str | Rejected]]:
    for label in folders:
        for path in place.files(label):
            known = label in classes
            yield path, label if known else Rejected(path, f"{label!r} is not among the classes.")


def _item(place: Place, key: str, label: str | None) -> Item:
    return Item(key, read=partial(place.read, key), label=label)
