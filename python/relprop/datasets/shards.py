"""Tar shards as webdataset writes them: the files of a sample follow each other, by one stem."""

from __future__ import annotations

import re
import tarfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from typing import Any, BinaryIO, cast

from relprop.datasets.folder import SUFFIXES
from relprop.datasets.items import (
    Box,
    Item,
    Label,
    Rejected,
    check_shard,
    digest_of,
    main_class,
)
from relprop.datasets.json_text import numbers, parsed
from relprop.datasets.places import MAX_FILE, Place

MAX_TEXT = 1 << 20
"""Bytes of a label or an annotation; larger ones are refused."""

_PHOTOS = frozenset(suffix[1:] for suffix in SUFFIXES)
_TEXTS = ("json", "txt", "cls")


@dataclass(frozen=True)
class Shards:
    """The samples of tar files, which are read in order and never unpacked to disk.

    ``tars`` are the place and the name of each; its name starts the keys: ``a-000.tar/stem``.
    """

    name: str
    classes: tuple[str, ...]
    tars: tuple[tuple[Place, str], ...]

    def __iter__(self) -> Iterator[Item | Rejected]:
        for place, tar in self.tars:
            yield from _samples(place, tar, self.classes)

    def shard(self, index: int, count: int) -> Shards:
        """Return every ``count``-th tar file from ``index`` on."""
        check_shard(index, count)
        return replace(self, tars=self.tars[index::count])

    def digest(self) -> str:
        """Return a hash of the tar files' names; none of them is read."""
        return digest_of(name for _, name in self.tars)


def shards_dataset(
    name: str, tars: Sequence[tuple[Place, str]], classes: Sequence[str] = ()
) -> Shards:
    """Return the samples of uncompressed tar files.

    A sample is a photo, by the suffix of its name, and beside it the label: ``.json`` with
    ``{"label": ..., "boxes": [[left, top, right, bottom, label], ...]}``, or ``.txt`` with the
    class's name, or ``.cls`` with its index; the first of them counts. Other files are passed over.

    Raises
    ------
    ValueError
        If there are none, or two have the same name.
    """
    names = [tar for _, tar in tars]
    if not names:
        raise ValueError(f"{name}: there are no tar files.")
    if len(set(names)) < len(names):
        raise ValueError(f"{name}: two tar files have the same name; keys would not be unique.")
    return Shards(name, tuple(classes), tuple(tars))


def expanded(spec: str) -> list[str]:
    """Return the names that braces stand for: ``a-{000..002}.tar`` or ``{train,val}.tar``."""
    found = re.search(r"\{(?:(\d+)\.\.(\d+)|([^{}]*))\}", spec)
    if not found:
        return [spec]
    first, last, choices = found.groups()
    inner = choices.split(",") if first is None else _counted(first, last)
    before, after = spec[: found.start()], expanded(spec[found.end() :])
    return [f"{before}{each}{rest}" for each in inner for rest in after]


def _counted(first: str, last: str) -> list[str]:
    if int(last) - int(first) > 1_000_000:
        raise ValueError(f"{{{first}..{last}}} stands for too many names.")
    return [str(n).zfill(len(first)) for n in range(int(first), int(last) + 1)]


class _Bounded:
    """A file that refuses to read much at once, as the headers of a tar file can ask for."""

    def __init__(self, file: BinaryIO) -> None:
        self.file = file
        self.seek, self.tell = file.seek, file.tell

    def read(self, size: int) -> bytes:
        if not 0 <= size <= MAX_FILE + tarfile.BLOCKSIZE:
            raise tarfile.ReadError(f"it asks for {size} bytes at once.")
        return self.file.read(size)


def _samples(place: Place, tar: str, classes: tuple[str, ...]) -> Iterator[Item | Rejected]:
    seen: set[str] = set()
    try:
        with place.open(tar) as file:
            bounded = cast(BinaryIO, _Bounded(file))
            for stem, members in groupby(_members(bounded), lambda member: _split(member[0])[0]):
                files = [(_split(name)[1], content) for name, content in members]
                key = f"{tar}/{stem}"
                if stem in seen:
                    yield Rejected(key, "the key was given before.")
                    continue
                seen.add(stem)
                yield _sample(key, files, classes)
    except (OSError, ValueError, tarfile.TarError) as error:
        reason = (
            f"it is damaged; its last sample that can be read may be cut and is left out: {error}"
        )
        yield Rejected(tar, reason)


def _members(file: BinaryIO) -> Iterator[tuple[str, bytes | str]]:
    """Name and content of each file that may be part of a sample, or why it has none."""
    try:
        yield from _walked(file)
    except Exception as error:  # the module raises anything on broken data
        raise tarfile.ReadError(str(error)) from error


def _walked(file: BinaryIO) -> Iterator[tuple[str, bytes | str]]:
    with tarfile.open(fileobj=file, mode="r:") as tar:
        while (member := tar.next()) is not None:
            if tar.offset <= member.offset:  # a negative size would lead around for ever
                raise tarfile.ReadError(f"{member.name}: its size is {member.size}.")
            tar.members = []  # type: ignore[attr-defined]  # it would keep all of them
            suffix = _split(member.name)[1]
            if member.isreg() and suffix in (*_PHOTOS, *_TEXTS):
                yield member.name, _content(tar, member, suffix)
        # the module takes a broken header for the end
        file.seek(tar.offset)
        if file.read(tarfile.BLOCKSIZE) != tarfile.NUL * tarfile.BLOCKSIZE:
            raise tarfile.ReadError("it does not end as a tar file does.")


def _content(tar: tarfile.TarFile, member: tarfile.TarInfo, suffix: str) -> bytes | str:
    limit = MAX_TEXT if suffix in _TEXTS else MAX_FILE
    if member.size > limit:
        return f"{member.name}: it has more than the {limit} bytes allowed."
    opened = tar.extractfile(member)
    assert opened is not None
    return opened.read()


def _split(name: str) -> tuple[str, str]:
    """The stem and the suffix in lower case: a name is split at the first dot after its folders."""
    folder, slash, file = name.rpartition("/")
    stem, _, suffix = file.partition(".")
    return folder + slash + stem, suffix.lower()


def _sample(
    key: str, files: list[tuple[str, bytes | str]], classes: tuple[str, ...]
) -> Item | Rejected:
    try:
        return _item(key, files, classes)
    except ValueError as error:
        return Rejected(key, str(error))


def _item(key: str, files: list[tuple[str, bytes | str]], classes: tuple[str, ...]) -> Item:
    for _, content in files:
        if isinstance(content, str):
            raise ValueError(content)
    found = cast(dict[str, bytes], dict(files))
    photos = [suffix for suffix in found if suffix in _PHOTOS]
    if len(photos) != 1 or len(found) < len(files):
        named = ", ".join(f".{suffix}" for suffix, _ in files)
        raise ValueError(f"a sample is one photo and at most one file of a kind, not {named}.")
    label, boxes = _annotated(found, classes)
    return Item(key, lambda: found[photos[0]], None, label, boxes)


def _annotated(
    found: dict[str, bytes], classes: tuple[str, ...]
) -> tuple[Label | None, tuple[Box, ...]]:
    if "json" in found:
        record = parsed(found["json"], ".json")
        if not isinstance(record, dict):
            raise ValueError(".json: it must be an object.")
        given = record.get("boxes", [])
        if not isinstance(given, list):
            raise ValueError(".json: boxes must be a list.")
        boxes = tuple(_box(each, classes) for each in given)
        label = record.get("label")
        return (main_class(boxes) if label is None else _known(label, classes)), boxes
    if "txt" in found:
        return _known(found["txt"].decode().strip(), classes), ()
    if "cls" in found:
        text = found["cls"].decode().strip()
        if not (text.isascii() and text.isdecimal() and len(text) < 19):
            raise ValueError(f".cls must hold a class index, not {text[:40]!r}.")
        return _known(int(text), classes), ()
    return None, ()


def _box(record: Any, classes: tuple[str, ...]) -> Box:
    if not isinstance(record, list) or len(record) not in (4, 5):
        raise ValueError("a box must be left, top, right, bottom and perhaps a label.")
    left, top, right, bottom = numbers(record[:4], "the sides of a box", 4)
    label = record[4] if len(record) == 5 else None
    return Box(left, top, right, bottom, None if label is None else _known(label, classes))


def _known(label: Any, classes: tuple[str, ...]) -> Label:
    if type(label) is int and label >= 0 and (not classes or label < len(classes)):
        return label
    if isinstance(label, str) and (not classes or label in classes):
        return label
    raise ValueError(f"{str(label)[:40]!r} is not among the classes.")
