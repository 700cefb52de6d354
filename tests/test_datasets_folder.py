"""Folders of class folders."""

from __future__ import annotations

from pathlib import Path

import pytest

from annotated_photos import items, photo, rejected, write
from relprop.datasets import open_dataset, open_photo


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for name in ("dog/b.jpg", "dog/deep/a.jpg", "cat/z.JPG", "cat/.DS_Store"):
        write(tmp_path / name, photo())
    return tmp_path


def test_the_folder_is_the_class(root: Path) -> None:
    dataset = open_dataset(root)
    assert (dataset.classes, len(dataset)) == (("cat", "dog"), 3)
    found = [(item.key, item.label) for item in items(dataset)]
    assert found == [("cat/z.JPG", "cat"), ("dog/b.jpg", "dog"), ("dog/deep/a.jpg", "dog")]
    assert open_photo(items(dataset)[0]).image.size == (8, 6)


def test_shards_are_disjoint_and_complete(root: Path) -> None:
    dataset = open_dataset(root)
    parts = [[item.key for item in items(dataset.shard(index, 2))] for index in (0, 1)]
    assert parts == [["cat/z.JPG", "dog/deep/a.jpg"], ["dog/b.jpg"]]
    assert [item.key for item in items(dataset.shard(1, 2).shard(0, 1))] == parts[1]
    with pytest.raises(ValueError, match="index must be at least 0 and less than count=2, not 2"):
        dataset.shard(2, 2)


def test_classes_may_be_given(root: Path) -> None:
    dataset = open_dataset(root, classes=["dog", "horse"])
    assert dataset.classes == ("dog", "horse")
    assert rejected(dataset) == {"cat/z.JPG": "'cat' is not among the classes."}


def test_photos_outside_of_the_class_folders(root: Path) -> None:
    write(root / "loose.png", photo())
    write(root / "README", "no photo")
    assert rejected(open_dataset(root)) == {"loose.png": "it lies in no class folder."}


def test_a_folder_of_photos_has_no_labels(tmp_path: Path) -> None:
    write(tmp_path / "a.jpg", photo())
    write(tmp_path / "notes.md", "no photo")
    dataset = open_dataset(tmp_path)
    assert dataset.classes == ()
    assert [(item.key, item.label) for item in items(dataset)] == [("a.jpg", None)]


def test_a_split_is_a_folder(root: Path) -> None:
    write(root / "val/cow/c.jpg", photo())
    dataset = open_dataset(root, kind="folder", split="val")
    assert [(item.key, item.label) for item in items(dataset)] == [("cow/c.jpg", "cow")]
    with pytest.raises(FileNotFoundError):
        open_dataset(root, kind="folder", split="test")


def test_keys_and_labels_have_a_digest(root: Path) -> None:
    first = open_dataset(root).digest()
    assert open_dataset(root).digest() == first
    assert open_dataset(root).sliced(slice(1)).digest() != first
    (root / "dog/b.jpg").rename(root / "cat/b.jpg")
    moved = open_dataset(root).digest()
    (root / "cat/b.jpg").rename(root / "cat/c.jpg")
    assert len({first, moved, open_dataset(root).digest()}) == 3
