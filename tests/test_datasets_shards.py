"""Tar shards: samples, labels, and archives that are broken or mean harm."""

from __future__ import annotations

import io
import json
import tarfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from annotated_photos import items, photo, rejected, write
from fuzzing import fuzz
from relprop.datasets import Box, Item, Rejected, open_dataset, shards
from relprop.datasets.shards import expanded

BOXES = {"label": "dog", "boxes": [[0, 0, 2, 2, "cat"], [2, 0, 8, 6]]}


def packed(*files: tuple[str, bytes | str], form: int = tarfile.GNU_FORMAT) -> bytes:
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w", format=form) as tar:
        for name, content in files:
            data = content.encode() if isinstance(content, str) else content
            member = tarfile.TarInfo(name)
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    return archive.getvalue()


def opened(path: Path, *files: tuple[str, bytes | str], **options: object) -> object:
    return open_dataset(write(path / "a.tar", packed(*files)), **options)


def test_samples_and_their_labels(tmp_path: Path) -> None:
    dataset = opened(
        tmp_path,
        ("x/0.jpg", photo()),
        ("x/0.cls", "3\n"),
        ("x/1.txt", " dog "),
        ("x/1.seg.npy", "passed over"),
        ("x/1.JPEG", photo()),
        ("2.json", json.dumps(BOXES)),
        ("2.jpg", photo(color=9)),
        ("3.jpg", photo()),
    )
    found = items(dataset)
    assert [(item.key, item.label) for item in found] == [
        ("a.tar/x/0", 3),
        ("a.tar/x/1", "dog"),
        ("a.tar/2", "dog"),
        ("a.tar/3", None),
    ]
    assert found[2].boxes == (Box(0, 0, 2, 2, "cat"), Box(2, 0, 8, 6))
    assert found[2].read() == photo(color=9)
    assert items(dataset)[0].key == "a.tar/x/0"  # a second pass gives the same


@pytest.mark.parametrize(
    ("files", "text"),
    [
        ({".cls": "1"}, "one photo and at most one file of a kind, not .cls"),
        ({".jpg": photo(), ".png": photo()}, "one photo and at most one file of a kind"),
        ({".jpg": photo(), ".cls": "2"}, "'2' is not among the classes"),
        ({".jpg": photo(), ".cls": "-1"}, "a class index, not '-1'"),
        ({".jpg": photo(), ".cls": "9" * 5000}, "a class index, not '9999"),
        ({".jpg": photo(), ".txt": "cow"}, "'cow' is not among the classes"),
        ({".jpg": photo(), ".txt": b"\xff"}, "can't decode"),
        ({".jpg": photo(), ".json": "{"}, "cannot be read as JSON"),
        ({".jpg": photo(), ".json": "[]"}, "it must be an object"),
        ({".jpg": photo(), ".json": '{"label": [1]}'}, "'[1]' is not among the classes"),
        ({".jpg": photo(), ".json": '{"label": true}'}, "'True' is not among the classes"),
        ({".jpg": photo(), ".json": '{"boxes": 3}'}, "boxes must be a list"),
        ({".jpg": photo(), ".json": '{"boxes": [3]}'}, "a box must be left, top"),
        ({".jpg": photo(), ".json": '{"boxes": [[1, 2, 3, null]]}'}, "the sides of a box must be"),
        ({".jpg": photo(), ".json": '{"boxes": [[1, 2, 1, 4]]}'}, "a box must have an area"),
        ({".jpg": photo(), ".txt": "x" * 1_100_000}, "more than the 1048576 bytes allowed"),
    ],
)
def test_bad_samples_are_rejected(tmp_path: Path, files: dict[str, bytes | str], text: str) -> None:
    bad = [(f"bad{suffix}", content) for suffix, content in files.items()]
    dataset = opened(tmp_path, *bad, ("good.jpg", photo()), classes=["cat", "dog"])
    assert text in rejected(dataset)["a.tar/bad"]
    assert [item.key for item in dataset if not isinstance(item, Rejected)] == ["a.tar/good"]


def test_a_key_that_comes_again(tmp_path: Path) -> None:
    dataset = opened(tmp_path, ("0.jpg", photo()), ("1.jpg", photo()), ("0.jpg", photo()))
    assert rejected(dataset) == {"a.tar/0": "the key was given before."}


@pytest.mark.parametrize("cut", [0, 100, 700, 2100])
def test_cut_archives(tmp_path: Path, cut: int) -> None:
    whole = packed(("0.jpg", b"x" * 512), ("1.jpg", b"x" * 512))
    write(tmp_path / "a.tar", whole[:cut])
    write(tmp_path / "b.tar", whole)
    found = list(open_dataset(tmp_path))
    assert "it is damaged" in rejected(found)["a.tar"]
    assert [each.key for each in found[-2:]] == ["b.tar/0", "b.tar/1"]


def test_a_broken_header_is_not_taken_for_the_end(tmp_path: Path) -> None:
    whole = bytearray(packed(*((f"{n}.jpg", b"x" * 512) for n in range(3))))
    whole[2048:2100] = b"?" * 52
    found = list(open_dataset(write(tmp_path / "a.tar", bytes(whole))))
    assert [each.key for each in found] == ["a.tar/0", "a.tar"]
    assert "does not end as a tar file does" in rejected(found)["a.tar"]


def test_nothing_is_taken_but_regular_files(tmp_path: Path) -> None:
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w") as tar:
        for kind in (tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE, tarfile.DIRTYPE):
            member = tarfile.TarInfo("../../link.jpg")
            member.type, member.linkname = kind, "/etc/passwd"
            tar.addfile(member)
    assert list(open_dataset(write(tmp_path / "a.tar", archive.getvalue()))) == []


def test_members_and_headers_of_great_size(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shards, "MAX_FILE", 2000)
    dataset = opened(tmp_path, ("0.jpg", b"x" * 2001), ("1.jpg", photo()))
    assert rejected(dataset) == {"a.tar/0": "0.jpg: it has more than the 2000 bytes allowed."}
    long = packed((f"{'y' * 9000}.jpg", photo()), form=tarfile.PAX_FORMAT)
    found = list(open_dataset(write(tmp_path / "b.tar", long)))
    assert "bytes at once" in rejected(found)["b.tar"]


def test_a_negative_size_does_not_lead_around(tmp_path: Path) -> None:
    whole = bytearray(packed(("0.jpg", b"x" * 512), ("1.jpg", b"x" * 512)))
    header = tarfile.TarInfo.frombuf(bytes(whole[1024:1536]), "utf-8", "strict")
    header.size = -1024
    whole[1024:1536] = header.tobuf(tarfile.GNU_FORMAT)
    found = list(open_dataset(write(tmp_path / "a.tar", bytes(whole))))
    assert [each.key for each in found] == ["a.tar"]
    assert "1.jpg: its size is -1024" in found[0].reason


@fuzz(100)
@given(st.lists(st.tuples(st.integers(0, 5000), st.binary(min_size=1, max_size=12)), max_size=4))
def test_a_damaged_archive_gives_items_or_reasons(
    tmp_path_factory: pytest.TempPathFactory, damage: list[tuple[int, bytes]]
) -> None:
    form = tarfile.PAX_FORMAT if len(damage) % 2 else tarfile.GNU_FORMAT
    whole = bytearray(packed(("0.jpg", photo()), (f"{'n' * 200}.jpg", photo()), form=form))
    for place, data in damage:
        whole[place : place + len(data)] = data
    path = write(tmp_path_factory.getbasetemp() / "damaged.tar", bytes(whole))
    assert all(isinstance(each, (Item, Rejected)) for each in open_dataset(path))


def test_compressed_archives_are_refused(tmp_path: Path) -> None:
    import gzip

    write(tmp_path / "a.tar", gzip.compress(packed(("0.jpg", photo()))))
    assert "it is damaged" in rejected(open_dataset(tmp_path / "a.tar"))["a.tar"]


def test_several_shards(tmp_path: Path) -> None:
    for n in range(4):
        write(tmp_path / f"s-00{n}.tar", packed((f"{n}.jpg", photo())))
    keys = [f"s-00{n}.tar/{n}" for n in range(4)]
    paths = [tmp_path / f"s-00{n}.tar" for n in range(4)]
    for spec in (tmp_path, str(tmp_path / "s-{000..003}.tar"), paths):
        assert [item.key for item in items(open_dataset(spec))] == keys
    dataset = open_dataset(tmp_path)
    assert [item.key for item in items(dataset.shard(1, 3))] == keys[1:2]
    assert [item.key for item in items(dataset.shard(0, 3))] == keys[::3]
    with pytest.raises(FileNotFoundError, match=r"s-004\.tar: there is no such"):
        open_dataset(str(tmp_path / "s-{003..004}.tar"))
    with pytest.raises(ValueError, match="two tar files have the same name"):
        open_dataset([paths[0], paths[0]])
    with pytest.raises(ValueError, match="there are no tar files"):
        open_dataset(write(tmp_path / "none/x", "").parent, kind="shards")


def test_the_names_of_tar_files_have_a_digest(tmp_path: Path) -> None:
    opened(tmp_path, ("0.jpg", photo()))
    first = open_dataset(tmp_path).digest()
    assert open_dataset(tmp_path / "a.tar").digest() == first
    (tmp_path / "a.tar").rename(tmp_path / "b.tar")
    assert open_dataset(tmp_path).digest() != first


def test_braces() -> None:
    assert expanded("a.tar") == ["a.tar"]
    assert expanded("{a,b}-{08..10}.tar") == [
        f"{side}-{n}.tar" for side in "ab" for n in ("08", "09", "10")
    ]
    with pytest.raises(ValueError, match="too many names"):
        expanded("{0..99999999999}.tar")


def test_remote_shards(tmp_path: Path) -> None:
    pytest.importorskip("fsspec", reason="remote places need fsspec")
    from fsspec.implementations.memory import MemoryFileSystem

    MemoryFileSystem().pipe("/relprop-shards/a.tar", packed(("0.jpg", photo()), ("0.cls", "1")))
    for spec in ("memory://relprop-shards", "memory://relprop-shards/{a}.tar"):
        (item,) = items(open_dataset(spec))
        assert (item.key, item.label, item.read()) == ("a.tar/0", 1, photo())
    MemoryFileSystem().rm("/relprop-shards", recursive=True)
