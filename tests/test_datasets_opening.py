"""Telling the kinds of datasets apart, here and through fsspec."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path

import pytest

from annotated_photos import items, photo, write
from relprop.datasets import open_dataset

ANNOTATION = "<annotation><size><width>8</width><height>6</height></size></annotation>"
COCO = {
    "images": [{"id": 1, "file_name": "a.jpg"}],
    "annotations": [],
    "categories": [],
}
KINDS: dict[str, dict[str, bytes | str]] = {
    "folder": {"cat/a.jpg": photo()},
    "voc": {"JPEGImages/a.jpg": photo(), "Annotations/a.xml": ANNOTATION},
    "coco": {"annotations/x_val.json": json.dumps(COCO), "images/a.jpg": photo()},
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("where", ["local", "memory", "zip"])
def test_a_folder_tells_its_kind(kind: str, where: str, tmp_path: Path) -> None:
    spec = str(tmp_path / "data")
    if where == "local":
        for name, content in KINDS[kind].items():
            write(tmp_path / "data" / name, content)
    else:
        spec = remote(where, kind, tmp_path)
    for dataset in (open_dataset(spec), open_dataset(spec, kind=kind)):
        (item,) = items(dataset)
        assert item.key.endswith("a.jpg") and item.read() == photo()


def remote(where: str, kind: str, tmp_path: Path) -> str:
    pytest.importorskip("fsspec", reason="remote places need fsspec")
    from fsspec.implementations.memory import MemoryFileSystem

    if where == "memory":
        for name, content in KINDS[kind].items():
            data = content if isinstance(content, bytes) else content.encode()
            MemoryFileSystem().pipe(f"/relprop-opening/{kind}/{name}", data)
        return f"memory://relprop-opening/{kind}"
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        for name, content in KINDS[kind].items():
            archive.writestr(name, content)
    return f"zip://::{tmp_path / 'a.zip'}"


def test_a_file_tells_its_kind(tmp_path: Path) -> None:
    write(tmp_path / "a.jpg", photo())
    for name, content in (("a.txt", "a.jpg"), ("a.csv", "a.jpg,3"), ("a.json", json.dumps(COCO))):
        (item,) = items(open_dataset(write(tmp_path / name, content)))
        assert item.key == "a.jpg" and item.read() == photo()


@pytest.mark.parametrize(("name", "spec"), [("x/readme.md", "x"), ("a.parquet", "a.parquet")])
def test_what_was_looked_for(tmp_path: Path, name: str, spec: str) -> None:
    write(tmp_path / name, "")
    with pytest.raises(ValueError, match=rf"{spec}: no dataset of a known kind. Looked for"):
        open_dataset(tmp_path / spec)


def test_what_is_refused(tmp_path: Path) -> None:
    write(tmp_path / "list.txt", "a.jpg")
    with pytest.raises(ValueError, match=r"kind must be one of auto, folder, .*, not 'lmdb'"):
        open_dataset(tmp_path, kind="lmdb")
    with pytest.raises(ValueError, match="kind 'list' has no splits, but split is 'val'"):
        open_dataset(tmp_path / "list.txt", split="val")
    with pytest.raises(ValueError, match="a dataset of kind 'voc' is a folder"):
        open_dataset(tmp_path / "list.txt", kind="voc")
    with pytest.raises(ValueError, match="root must be a folder, not the file"):
        open_dataset(tmp_path / "list.txt", root=tmp_path / "list.txt")
    with pytest.raises(TypeError, match="difficult"):
        open_dataset(tmp_path / "list.txt", difficult=True)
    with pytest.raises(FileNotFoundError, match="there is no such file or folder"):
        open_dataset(tmp_path / "none")
