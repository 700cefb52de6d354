"""Lists of photos."""

from __future__ import annotations

from pathlib import Path

import pytest

from annotated_photos import items, photo, rejected, write
from real_data import real
from relprop.datasets import Rejected, open_dataset, read_ahead
from relprop.preprocessing import Preprocessing


def listed(tmp_path: Path, text: str, **options: object) -> object:
    return open_dataset(write(tmp_path / "photos.csv", text), **options)


def test_paths_and_labels(tmp_path: Path) -> None:
    write(tmp_path / "a.jpg", photo())
    text = '\ufeffpath,label\n# a comment\n\na.jpg,cat\n "b, c.jpg" , dog\nd.jpg\n'
    dataset = listed(tmp_path, text)
    assert [(item.key, item.label) for item in items(dataset)] == [
        ("a.jpg", "cat"),
        ("b, c.jpg", "dog"),
        ("d.jpg", None),
    ]
    assert dataset.classes == ("cat", "dog")
    assert items(dataset)[0].read() == photo()


def test_labels_are_names_or_indices(tmp_path: Path) -> None:
    """Names are counted from 0 in alphabetical order: an index beside them would mean one."""
    numbered = listed(tmp_path, "a.jpg,7\nb.jpg\nc.jpg,0\n")
    assert (numbered.classes, [item.label for item in items(numbered)]) == ((), [7, None, 0])
    text = "a.jpg,dog\nb.jpg,7\nc.jpg,cat\n"
    with pytest.raises(
        ValueError, match=r"photos\.csv: labels must be names or indices, not 'cat'"
    ):
        listed(tmp_path, text)
    mixed = listed(tmp_path, text, classes=[f"class {n}" for n in range(7)] + ["dog", "cat"])
    assert [item.label for item in items(mixed)] == ["dog", 7, "cat"]


def test_bad_lines_are_rejected(tmp_path: Path) -> None:
    text = "a.jpg,cat\na.jpg,cat\nb.jpg,dog\nc.jpg,cat,1\n,cat\nd.jpg,2\ne.jpg,1\n"
    dataset = listed(tmp_path, text, classes=["cat", "cow"])
    assert rejected(dataset) == {
        "a.jpg": "the key was given before.",
        "b.jpg": "line 3: 'dog' is not among the classes.",
        "c.jpg": "line 4: a line is a path, or a path, a comma and a label.",
        "": "line 5: a line is a path, or a path, a comma and a label.",
        "d.jpg": "line 6: class index 2 is not less than 2.",
    }
    assert [each.key for each in dataset if not isinstance(each, Rejected)] == ["a.jpg", "e.jpg"]


def test_no_path_leads_out(tmp_path: Path) -> None:
    write(tmp_path / "secret.jpg", photo())
    write(tmp_path / "lists/a.txt", "../secret.jpg\n")
    dataset = open_dataset(tmp_path / "lists/a.txt")
    fit = Preprocessing((4, 4), (0, 0, 0), (1, 1, 1))
    assert "leads out" in rejected(read_ahead(dataset, fit))["../secret.jpg"]
    write(tmp_path / "lists/a.txt", "secret.jpg\n")
    dataset = open_dataset(tmp_path / "lists/a.txt", root=tmp_path)
    assert items(dataset)[0].read() == photo()


def test_what_is_no_list(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes(b"\xff\xfe\0")
    with pytest.raises(ValueError, match=r"a\.txt: a list must be UTF-8 text"):
        open_dataset(tmp_path / "a.txt")
    with pytest.raises(ValueError, match="a list is a file, not a folder"):
        open_dataset(tmp_path, kind="list")


def test_the_imagenet_sample(tmp_path: Path) -> None:
    (root,) = real("imagenet_sample")
    names = sorted(path.name for path in root.glob("*.jpg"))
    lines = [f"{name},{4 * n}" for n, name in enumerate(names)]
    dataset = listed(tmp_path, "\n".join(lines), root=root)
    fit = Preprocessing((64, 64), (0, 0, 0), (1, 1, 1), resize=64)
    samples = items(read_ahead(dataset.shard(0, 10), fit))
    assert [sample.label for sample in samples] == list(range(0, 1000, 40))
    assert {sample.pixels.shape for sample in samples} == {(3, 64, 64)}
