"""PASCAL VOC's layout: JPEGImages, Annotations and ImageSets/Main below one folder."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple
from xml.etree import ElementTree

from relprop.datasets.folder import is_photo
from relprop.datasets.items import Box, Item, Mask, Rejected, main_class
from relprop.datasets.listed import Listed, once
from relprop.datasets.places import Place

MAX_XML = 1 << 20
"""Bytes of an annotation; larger ones are refused."""

MAX_SET = 1 << 26
"""Bytes of a list of an image set; larger ones are refused."""

CLASSES = (
    "aeroplane bicycle bird boat bottle bus car cat chair cow diningtable dog horse motorbike "
    "person pottedplant sheep sofa train tvmonitor"
)
"""The classes of the VOC challenges."""


@dataclass(frozen=True)
class _Source:
    """What all items have in common."""

    place: Place
    classes: tuple[str, ...]
    difficult: bool
    masks: frozenset[str]


class _Annotated(NamedTuple):
    """The boxes of a photo, the objects' numbers, and the (height, width) that is told."""

    boxes: tuple[Box, ...]
    numbers: tuple[int, ...]
    size: tuple[int, int] | None


def voc_dataset(
    place: Place,
    split: str | None = None,
    classes: Sequence[str] | None = None,
    difficult: bool = False,
    per_class: bool = False,
) -> Listed[str | None]:
    """Return the photos of an image set with their boxes, keyed by the photo's path.

    ``split`` names a file of ImageSets/Main, None takes all photos; of a class's own set (a name
    with 1, 0 or -1 in each line) those that show the class are taken. ``classes`` are those that
    have sets of their own, or else the twenty of the challenges. Objects marked difficult are
    left out unless ``difficult``. Masks come from the photo's image in SegmentationObject, where
    there is one. A photo's label is the class of its largest box. With
    ``per_class`` there is an item for each class in a photo, with this label, all boxes and the
    key ``path#class``; that reads all annotations at once.

    Raises
    ------
    OSError, ValueError
        If the layout or the set is not to be found, or is broken.
    """
    if not place.is_folder("JPEGImages"):
        raise FileNotFoundError(f"{place.name}: VOC's layout has a folder JPEGImages.")
    known = tuple(_own_classes(place) if classes is None else classes)
    source = _Source(place, known, difficult, _files(place, "SegmentationObject"))
    photos = _photos(place, None if split is None else _members(place, split, difficult))
    entries = _by_class(source, photos) if per_class else ((key, None) for key in photos)
    name = place.name if split is None else f"{place.name}:{split}"
    return Listed(name, known, once(entries), partial(_item, source))


def _files(place: Place, folder: str) -> frozenset[str]:
    return frozenset(place.files(folder) if place.is_folder(folder) else ())


def _own_classes(place: Place) -> list[str]:
    names = "\n".join(path.rpartition("/")[2] for path in _files(place, "ImageSets/Main"))
    own = set(re.findall(r"^(.+)_(?:train|val|trainval|test)\.txt$", names, re.M))
    return sorted(own) or CLASSES.split()


def _members(place: Place, split: str, difficult: bool) -> list[str]:
    """The names of a set: a line is a name, and in a class's set whether it shows the class."""
    text = place.read(f"ImageSets/Main/{split}.txt", MAX_SET).decode()
    lines = [line.split() for line in text.splitlines() if line.strip()]
    shown = ("1", "0") if difficult else ("1",)
    return [line[0] for line in lines if len(line) == 1 or line[1] in shown]


def _photos(place: Place, members: list[str] | None) -> list[str]:
    found = [path for path in place.files("JPEGImages") if is_photo(path)]
    if members is None:
        return found
    by_stem = {_stem(path): path for path in found}
    return [by_stem.get(name, f"JPEGImages/{name}.jpg") for name in members]


def _stem(path: str) -> str:
    return path.removeprefix("JPEGImages/").rpartition(".")[0]


def _by_class(source: _Source, photos: list[str]) -> Iterator[tuple[str, str | Rejected]]:
    for key in photos:
        try:
            boxes = _annotated(source, key).boxes
        except (OSError, ValueError) as error:
            yield key, Rejected(key, str(error))
            continue
        for label in dict.fromkeys(str(box.label) for box in boxes):
            yield f"{key}#{label}", label


def _item(source: _Source, key: str, label: str | None) -> Item:
    path = key if label is None else key.removesuffix(f"#{label}")
    boxes, numbers, size = _annotated(source, path)
    read = partial(source.place.read, path)
    masks: tuple[Mask, ...] = ()
    image = f"SegmentationObject/{_stem(path)}.png"
    if image in source.masks:
        shown = partial(source.place.read, image)
        masks = tuple(Mask(box.label, read=shown, value=n) for box, n in zip(boxes, numbers))
    return Item(key, read, None, label or main_class(boxes), boxes, masks, size)


def _annotated(source: _Source, path: str) -> _Annotated:
    name = f"Annotations/{_stem(path)}.xml"
    root = _parsed(source.place.read(name, MAX_XML), name)
    objects = {
        number: each
        for number, each in enumerate(root.iterfind("object"), 1)
        if source.difficult or not _difficult(each)
    }
    try:
        boxes = tuple(_box(each, source.classes) for each in objects.values())
        return _Annotated(boxes, tuple(objects), _size(root))
    except ValueError as error:
        raise ValueError(f"{name}: {error}") from None


class _NoDoctype(ElementTree.TreeBuilder):
    """Only a document type can declare entities, which can grow or name other files."""

    def doctype(self, name: str, pubid: str | None, system: str | None) -> None:
        raise ValueError("a document type is not allowed.")


def _parsed(data: bytes, name: str) -> ElementTree.Element:
    try:
        return ElementTree.fromstring(data, ElementTree.XMLParser(target=_NoDoctype()))
    except (ElementTree.ParseError, ValueError, LookupError) as error:
        raise ValueError(f"{name}: cannot be read as XML: {error}") from None


def _difficult(each: ElementTree.Element) -> bool:
    return each.findtext("difficult", "0").strip() == "1"


def _box(each: ElementTree.Element, classes: tuple[str, ...]) -> Box:
    label = each.findtext("name", "").strip()
    if label not in classes:
        raise ValueError(f"the class {label!r} is not among the classes.")
    sides = (_number(each, f"bndbox/{side}") for side in ("xmin", "ymin", "xmax", "ymax"))
    left, top, right, bottom = sides  # counted from 1, the last pixel included
    return Box(left - 1, top - 1, right, bottom, label)


def _size(root: ElementTree.Element) -> tuple[int, int] | None:
    if root.find("size") is None:
        return None
    height, width = int(_number(root, "size/height")), int(_number(root, "size/width"))
    return (height, width) if height or width else None  # some tools write zeros


def _number(element: ElementTree.Element, path: str) -> float:
    text = element.findtext(path)
    if text is None:
        raise ValueError(f"there is no {path}.")
    value = float(text)
    if not abs(value) < 1e9:
        raise ValueError(f"{path} is {text}.")
    return value
