"""COCO's layout: boxes, masks in every form, crowds, and files of all kinds of harm."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from annotated_photos import extent, items, photo, rejected, write
from fuzzing import fuzz
from real_data import real
from relprop.datasets import Box, Rejected, RunLengths, Sample, open_dataset, open_photo, read_ahead
from relprop.preprocessing import Preprocessing

POLYGON = [1, 1, 4, 1, 4, 3, 1, 3]
CATEGORIES = [{"id": 7, "name": "dog"}, {"id": 3, "name": "cat"}]


def annotation(**changes: Any) -> dict[str, Any]:
    return {
        "id": 1,
        "image_id": 10,
        "category_id": 3,
        "bbox": [1, 1, 3, 2],
        "segmentation": [POLYGON],
        "iscrowd": 0,
    } | changes


def content(*annotations: dict[str, Any]) -> dict[str, Any]:
    image = {"id": 10, "file_name": "a.jpg", "height": 6, "width": 8}
    return {"images": [image], "annotations": list(annotations), "categories": CATEGORIES}


def saved(root: Path, record: Any) -> Path:
    write(root / "images/val/a.jpg", photo())
    return write(root / "annotations/instances_val.json", json.dumps(record))


def opened(root: Path, record: Any) -> Any:
    return open_dataset(saved(root, record))


def test_boxes_masks_and_classes(tmp_path: Path) -> None:
    dataset = opened(tmp_path, content(annotation(), annotation(category_id=7, bbox=[0, 0, 8, 6])))
    assert (dataset.classes, len(dataset)) == (("cat", "dog"), 1)
    (item,) = items(dataset)
    assert (item.key, item.label, item.size) == ("a.jpg", "dog", (6, 8))
    assert item.boxes == (Box(1, 1, 4, 3, "cat"), Box(0, 0, 8, 6, "dog"))
    assert [extent(mask) for mask in open_photo(item).masks()] == [(1, 1, 4, 3)] * 2


@pytest.mark.parametrize("counts", [[6, 6, 36], "66T1"])
def test_run_lengths(tmp_path: Path, counts: Any) -> None:
    runs = {"size": [6, 8], "counts": counts}
    (item,) = items(opened(tmp_path, content(annotation(segmentation=runs))))
    assert item.masks[0].runs == RunLengths(6, 8, counts if isinstance(counts, str) else (6, 6, 36))
    assert extent(next(open_photo(item).masks())) == (1, 0, 2, 6)


def test_a_crowd_is_a_mask_without_a_box(tmp_path: Path) -> None:
    (item,) = items(opened(tmp_path, content(annotation(iscrowd=1))))
    assert (item.boxes, len(item.masks), item.label) == ((), 1, None)


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"category_id": 4}, "annotation 1: the category 4 is not among the categories"),
        ({"category_id": [3]}, "the category [3] is not"),
        ({"bbox": [1, 1, 0, 2]}, "a box must have an area"),
        ({"bbox": [1, 1, 2]}, "bbox must be 4 numbers, not 3"),
        ({"bbox": None}, "bbox must be a list of numbers"),
        ({"bbox": [1, 1, float("inf"), 2]}, "bbox must be finite numbers"),
        ({"bbox": [1, 1, True, 2]}, "bbox must be a list of numbers"),
        ({"segmentation": 5}, "segmentation must be a list of polygons"),
        ({"segmentation": [5]}, "a polygon must be a list of numbers"),
        ({"segmentation": {"size": [6, 8]}}, "counts must be a list of numbers"),
        ({"segmentation": {"size": [6, 8], "counts": [0.5]}}, "counts must be whole numbers"),
        ({"segmentation": {"counts": [48]}}, "size must be a list of numbers"),
    ],
)
def test_a_bad_annotation_rejects_its_photo(
    tmp_path: Path, changes: dict[str, Any], text: str
) -> None:
    assert text in rejected(opened(tmp_path, content(annotation(**changes))))["a.jpg"]


def test_records_that_belong_to_nothing(tmp_path: Path) -> None:
    record = content(annotation(), annotation(image_id=11, id=2), annotation(image_id=[1], id=3))
    record["images"] += [
        {"id": 10, "file_name": "b.jpg"},
        {"id": 12, "file_name": "a.jpg"},
        {"id": "x", "file_name": "c.jpg"},
    ]
    assert rejected(opened(tmp_path, record)) == {
        "b.jpg": "the image id 10 was given before.",
        "a.jpg": "the key was given before.",
        "image 3": "an image must have a file_name and a whole number as id.",
        "annotation 2": "it belongs to the unknown image 11.",
        "annotation 3": "it belongs to the unknown image [1].",
    }


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "cannot be read as JSON"),
        ("[" * 100_000, "cannot be read as JSON"),
        ("9" * 10_000, "cannot be read as JSON"),
        ("[1]", "COCO's form has images, annotations and categories"),
        ('{"images": 1, "annotations": [], "categories": []}', "images must be a list of objects"),
        ('{"images": [], "annotations": [1], "categories": []}', "annotations must be a list"),
        ('{"images": [], "annotations": [], "categories": [{"id": 1}]}', "a category must have"),
        (
            '{"images": [], "annotations": [], "categories": [{"id": 1, "name": "a"},'
            '{"id": 1, "name": "b"}]}',
            "two categories have the id 1",
        ),
    ],
)
def test_what_is_no_file_of_coco(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        open_dataset(write(tmp_path / "a.json", text))


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5) | st.just(3),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=3), inner),
    max_leaves=8,
)
RECORD = st.fixed_dictionaries(
    dict.fromkeys(("category_id", "bbox", "segmentation", "iscrowd", "id"), VALUES)
)


@fuzz(100)
@given(RECORD, st.dictionaries(st.sampled_from(["height", "width", "file_name", "id"]), VALUES))
def test_any_values_give_items_or_reasons(
    tmp_path_factory: pytest.TempPathFactory, changes: dict[str, Any], image: dict[str, Any]
) -> None:
    fit = Preprocessing((4, 4), (0, 0, 0), (1, 1, 1))
    for name in changes:
        record = content(annotation(**{name: changes[name]}))
        record["images"].append({"id": 11, "file_name": "b.jpg"} | image)
        dataset = opened(tmp_path_factory.getbasetemp() / "coco", record)
        assert all(isinstance(each, (Sample, Rejected)) for each in read_ahead(dataset, fit))


@pytest.mark.parametrize("folder", ["images/val", "val", "images", "annotations"])
def test_where_the_photos_lie(tmp_path: Path, folder: str) -> None:
    path = write(tmp_path / "annotations/a_val.json", json.dumps(content()))
    write(tmp_path / folder / "a.jpg", photo())
    assert items(open_dataset(path))[0].read() == photo()
    assert items(open_dataset(tmp_path, split="val"))[0].read() == photo()


def test_a_folder_with_several_files_needs_a_split(tmp_path: Path) -> None:
    saved(tmp_path, content())
    write(tmp_path / "annotations/instances_train.json", json.dumps(content()))
    with pytest.raises(ValueError, match=r"split=None must leave one of .*_train\.json, ann"):
        open_dataset(tmp_path)
    assert len(open_dataset(tmp_path, split="val")) == 1


@pytest.mark.parametrize(("split", "photos"), [("train2017", 32), ("val2017", 6)])
def test_tinycoco(split: str, photos: int) -> None:
    (root,) = real("tinycoco")
    found = items(open_dataset(root, split=split))
    assert len(found) == photos
    record = json.loads((root / f"annotations/instances_{split}.json").read_text())
    for item in found:
        image = next(each for each in record["images"] if each["file_name"] == item.key)
        known = [each for each in record["annotations"] if each["image_id"] == image["id"]]
        opened = open_photo(item)
        masks = list(opened.masks())
        assert len(masks) == len(known) and len(opened.boxes) <= len(known)
        for mask, each in zip(masks, known):
            check_mask(mask, each)


def check_mask(mask: np.ndarray, record: dict[str, Any]) -> None:
    """The area to 2 pixels and 7 per cent, the extent to tips thinner than a pixel."""
    if record["iscrowd"]:  # the file's polygons leave out parts of the area that it states
        assert 0.7 * record["area"] <= mask.sum() <= 1.02 * record["area"]
        return
    assert abs(mask.sum() - record["area"]) <= 5 + 0.06 * record["area"]
    x, y, width, height = record["bbox"]
    given = np.array([x, y, x + width, y + height])
    assert np.abs(given - extent(mask)).max() <= 5
