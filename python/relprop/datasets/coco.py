"""COCO's layout: one JSON file with images, annotations and categories, and a folder of photos."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from relprop.datasets.items import Box, Item, Mask, Rejected, main_class
from relprop.datasets.json_text import numbers, objects, parsed
from relprop.datasets.listed import Listed, once
from relprop.datasets.places import Place
from relprop.datasets.run_lengths import RunLengths

MAX_JSON = 1 << 30
"""Bytes of an annotation file; larger ones are refused."""


@dataclass(frozen=True)
class _Image:
    """An entry of the file's images, and the annotations that name it."""

    record: dict[str, Any]
    annotations: list[dict[str, Any]] = field(default_factory=list)


def coco_dataset(place: Place, name: str, root: Place | None = None) -> Listed[_Image]:
    """Return the photos that a file of annotations lists, keyed by their file name.

    The photos lie in ``root``, or else in the first of these beside the file or one folder
    higher: ``images/<split>``, ``<split>``, ``images``, where the file's name ends in
    ``_<split>.json``; or else beside the file. A photo's label is the class of its largest box.
    Regions of crowds give masks, but no boxes. Annotations of an unknown photo or class reject
    themselves or the photo.

    Raises
    ------
    OSError, ValueError
        If the file cannot be read or does not have COCO's form.
    """
    content = parsed(place.read(name, MAX_JSON), name)
    if not isinstance(content, dict) or not {"images", "annotations", "categories"} <= set(content):
        raise ValueError(f"{name}: COCO's form has images, annotations and categories.")
    categories = _categories(objects(content["categories"], f"{name}: categories"))
    images = objects(content["images"], f"{name}: images")
    annotations = objects(content["annotations"], f"{name}: annotations")
    classes = tuple(categories.values())
    make = partial(_item, root or _photos(place, name), categories)
    return Listed(name, classes, once(_entries(images, annotations)), make)


def _categories(records: list[dict[str, Any]]) -> dict[int, str]:
    found: dict[int, str] = {}
    for record in records:
        key, name = record.get("id"), record.get("name")
        if type(key) is not int or not isinstance(name, str):
            raise ValueError("a category must have a whole number as id and a text as name.")
        if key in found:
            raise ValueError(f"two categories have the id {key}.")
        found[key] = name
    return dict(sorted(found.items()))


def _photos(place: Place, name: str) -> Place:
    folder, _, file = name.rpartition("/")
    split = file.removesuffix(".json").rpartition("_")[2]
    beside = place.below(folder)
    for around in (beside, beside.above()):
        for below in (f"images/{split}", split, "images"):
            if around.is_folder(below):
                return around.below(below)
    return beside


def _entries(
    records: list[dict[str, Any]], annotations: list[dict[str, Any]]
) -> Iterator[tuple[str, _Image | Rejected]]:
    images: dict[Any, _Image] = {}
    for number, record in enumerate(records):
        key, identity = record.get("file_name"), record.get("id")
        image = _Image(record)
        if not isinstance(key, str) or type(identity) is not int:
            key = f"image {number}"
            yield key, Rejected(key, "an image must have a file_name and a whole number as id.")
        elif identity in images:
            yield key, Rejected(key, f"the image id {identity} was given before.")
        else:
            images[identity] = image
            yield key, image
    yield from _unknown(images, annotations)


def _unknown(
    images: dict[Any, _Image], annotations: list[dict[str, Any]]
) -> Iterator[tuple[str, Rejected]]:
    """Hand each annotation to its image; those that have none are left."""
    for number, record in enumerate(annotations):
        identity = record.get("image_id")
        if type(identity) is int and identity in images:
            images[identity].annotations.append(record)
        else:
            key = f"annotation {record.get('id', number)}"
            yield key, Rejected(key, f"it belongs to the unknown image {identity!r}.")


def _item(root: Place, categories: dict[int, str], key: str, image: _Image) -> Item:
    size = _size(image.record)
    boxes: list[Box] = []
    masks: list[Mask] = []
    for record in image.annotations:
        try:
            _annotate(record, categories, boxes, masks)
        except ValueError as error:
            raise ValueError(f"annotation {record.get('id')}: {error}") from None
    read = partial(root.read, key)
    return Item(key, read, None, main_class(boxes), tuple(boxes), tuple(masks), size)


def _size(record: dict[str, Any]) -> tuple[int, int] | None:
    size = record.get("height"), record.get("width")
    if size == (None, None):
        return None
    height, width = numbers(list(size), "height and width", 2)
    return int(height), int(width)


def _annotate(
    record: dict[str, Any], categories: dict[int, str], boxes: list[Box], masks: list[Mask]
) -> None:
    category = record.get("category_id")
    if type(category) is not int or category not in categories:
        raise ValueError(f"the category {category!r} is not among the categories.")
    label = categories[category]
    if not record.get("iscrowd"):
        x, y, width, height = numbers(record.get("bbox"), "bbox", 4)
        boxes.append(Box(x, y, x + width, y + height, label))
    segmentation = record.get("segmentation")
    if segmentation:
        masks.append(_mask(segmentation, label))


def _mask(segmentation: Any, label: str) -> Mask:
    if isinstance(segmentation, dict):
        return Mask(label, runs=_runs(segmentation))
    if not isinstance(segmentation, list):
        raise ValueError("segmentation must be a list of polygons or an object of run lengths.")
    return Mask(label, tuple(tuple(numbers(each, "a polygon")) for each in segmentation))


def _runs(segmentation: dict[str, Any]) -> RunLengths:
    height, width = numbers(segmentation.get("size"), "size", 2)
    counts = segmentation.get("counts")
    if isinstance(counts, str):
        return RunLengths(int(height), int(width), counts)
    runs = numbers(counts, "counts")
    if any(each != int(each) for each in runs):
        raise ValueError("counts must be whole numbers.")
    return RunLengths(int(height), int(width), tuple(int(each) for each in runs))
