"""VOC's layout: boxes, sets, difficult objects, and annotations of all kinds of harm."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from annotated_photos import encoded, extent, items, photo, rejected, write
from real_data import real
from relprop.datasets import Box, Rejected, open_dataset, open_photo


def described(*objects: tuple[str, tuple[float, ...]], difficult: int = 0) -> str:
    """An annotation of a photo of 6 x 8 pixels; sides count from 1 and include the last pixel."""
    text = "<size><width>8</width><height>6</height><depth>3</depth></size>"
    for name, sides in objects:
        tags = "".join(
            f"<{tag}>{side}</{tag}>" for tag, side in zip(("xmin", "ymin", "xmax", "ymax"), sides)
        )
        flag = f"<difficult>{difficult}</difficult>"
        text += f"<object><name>{name}</name>{flag}<bndbox>{tags}</bndbox></object>"
    return f"<annotation>{text}</annotation>"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for name in ("a", "b"):
        write(tmp_path / f"JPEGImages/{name}.jpg", photo())
    write(tmp_path / "Annotations/a.xml", described(("cat", (1, 1, 2, 2)), ("dog", (3, 1, 8, 6))))
    write(tmp_path / "Annotations/b.xml", described(("cat", (1.5, 1, 2, 6))))
    write(tmp_path / "ImageSets/Main/val.txt", "b\na\n")
    write(tmp_path / "ImageSets/Main/cat_val.txt", "b  1\na -1\n")
    write(tmp_path / "ImageSets/Main/dog_val.txt", "b -1\na  1\n")
    return tmp_path


def test_boxes_and_labels(root: Path) -> None:
    dataset = open_dataset(root)
    assert (dataset.classes, len(dataset)) == (("cat", "dog"), 2)
    first, second = items(dataset)
    assert (first.key, first.label, first.size) == ("JPEGImages/a.jpg", "dog", (6, 8))
    assert first.boxes == (Box(0, 0, 2, 2, "cat"), Box(2, 0, 8, 6, "dog"))
    assert second.boxes == (Box(0.5, 0, 2, 6, "cat"),)


def test_image_sets(root: Path) -> None:
    def keys(split: str) -> list[str]:
        return [item.key for item in items(open_dataset(root, split=split))]

    assert keys("val") == ["JPEGImages/b.jpg", "JPEGImages/a.jpg"]
    assert keys("cat_val") == ["JPEGImages/b.jpg"]
    with pytest.raises(FileNotFoundError, match=r"ImageSets/Main/test\.txt: there is no such"):
        open_dataset(root, split="test")


def test_one_item_for_each_class_of_a_photo(root: Path) -> None:
    dataset = open_dataset(root, per_class=True)
    assert [(item.key, item.label, len(item.boxes)) for item in items(dataset)] == [
        ("JPEGImages/a.jpg#cat", "cat", 2),
        ("JPEGImages/a.jpg#dog", "dog", 2),
        ("JPEGImages/b.jpg#cat", "cat", 1),
    ]
    assert items(dataset)[0].read() == photo()
    write(root / "Annotations/b.xml", "<broken")
    assert list(rejected(open_dataset(root, per_class=True))) == ["JPEGImages/b.jpg"]


def test_difficult_objects(root: Path) -> None:
    write(root / "Annotations/b.xml", described(("cat", (1, 1, 2, 6)), difficult=1))
    item = items(open_dataset(root))[1]
    assert (item.label, item.boxes) == (None, ())
    assert items(open_dataset(root, difficult=True))[1].boxes == (Box(0, 0, 2, 6, "cat"),)


def test_masks_of_objects(root: Path) -> None:
    numbers = np.full((6, 8), 255, np.uint8)  # between objects
    numbers[:2, :2], numbers[:, 2:] = 1, 2
    write(root / "SegmentationObject/a.png", encoded(numbers))
    first, second = items(open_dataset(root))
    assert [mask.label for mask in first.masks] == ["cat", "dog"] and second.masks == ()
    assert [extent(mask) for mask in open_photo(first).masks()] == [(0, 0, 2, 2), (2, 0, 8, 6)]


@pytest.mark.parametrize(
    ("content", "text"),
    [
        (None, "Annotations/b.xml: there is no such file"),
        ("", "cannot be read as XML"),
        ("<annotation><object>", "cannot be read as XML"),
        (described(("cow", (1, 1, 2, 2))), "the class 'cow' is not among the classes"),
        (described(("cat", (3, 1, 2, 2))), "a box must have an area"),
        (described(("cat", (1, 1, 2))), "there is no bndbox/ymax"),
        (described(("cat", (1, 1, 2, "x"))), "could not convert"),
        (described(("cat", (1, 1, 2, "nan"))), "bndbox/ymax is nan"),
        (described(("cat", (1, 1, 2, "1e99"))), "bndbox/ymax is 1e99"),
        ("<a><size><width>8</width></size></a>", "there is no size/height"),
        ('<?xml version="1.0" encoding="no-such"?><a/>', "cannot be read as XML"),
        ('<!DOCTYPE a [<!ENTITY b "c">]><a>&b;</a>', "a document type is not allowed"),
        ('<!DOCTYPE a SYSTEM "file:///etc/passwd"><a/>', "a document type is not allowed"),
        ("<a>" * 100_000, "cannot be read as XML"),
        (" " * 1_100_000, "more than the 1048576 bytes allowed"),
    ],
)
def test_harmful_annotations(root: Path, content: str | None, text: str) -> None:
    (root / "Annotations/b.xml").unlink()
    if content is not None:
        write(root / "Annotations/b.xml", content)
    dataset = open_dataset(root)
    ((key, reason),) = rejected(dataset).items()
    assert key == "JPEGImages/b.jpg" and text in reason
    assert [item.key for item in dataset if not isinstance(item, Rejected)] == ["JPEGImages/a.jpg"]


def test_missing_and_repeated_photos(root: Path) -> None:
    write(root / "ImageSets/Main/odd.txt", "a\nnone\na\n../x\n")
    assert rejected(open_dataset(root, split="odd")).keys() == {
        "JPEGImages/none.jpg",
        "JPEGImages/a.jpg",
        "JPEGImages/../x.jpg",
    }
    with pytest.raises(FileNotFoundError, match="VOC's layout has a folder JPEGImages"):
        open_dataset(root / "Annotations", kind="voc")


def test_the_challenges_classes_where_there_are_no_sets(root: Path) -> None:
    for path in (root / "ImageSets/Main").iterdir():
        path.unlink()
    dataset = open_dataset(root)
    assert len(dataset.classes) == 20 and {"cat", "dog"} <= set(dataset.classes)
    assert len(items(dataset)) == 2


def test_zeros_for_a_size_are_no_size(root: Path) -> None:
    text = described(("cat", (1, 1, 2, 2))).replace(">8<", ">0<").replace(">6<", ">0<")
    write(root / "Annotations/b.xml", text)
    assert items(open_dataset(root))[1].size is None


def test_the_animals() -> None:
    (root,) = real("voc_animals")
    dataset = open_dataset(root)
    found = items(dataset)
    assert len(found) == 596 and dataset.classes == ("cat", "cow", "dog", "horse", "sheep")
    counts = Counter(box.label for item in found for box in item.boxes)
    xml = "".join(path.read_text() for path in (root / "Annotations").glob("*.xml"))
    assert counts == {name: xml.count(f"<name>{name}</name>") for name in dataset.classes}
    for item in found:
        assert open_photo(item).image.size[::-1] == item.size
    sets = [items(open_dataset(root, split=split)) for split in ("train", "val")]
    assert {item.key for part in sets for item in part} == {item.key for item in found}
