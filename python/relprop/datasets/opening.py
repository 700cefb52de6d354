"""Opening a dataset: what lies at a path, or what a program hands over, tells its kind."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from typing import Any, Literal, TypeAlias, get_args

from relprop.datasets import coco, file_list, folder, sequences, shards, voc
from relprop.datasets.items import Dataset
from relprop.datasets.places import Place, find

Kind: TypeAlias = Literal["auto", "folder", "list", "voc", "coco", "shards", "sequence"]
"""The kinds of datasets, and the one that stands for finding out."""

_SUFFIXES: dict[str, Kind] = {
    ".csv": "list",
    ".json": "coco",
    ".tar": "shards",
    ".txt": "list",
}
"""The kinds that are one file."""

_LOOKED_FOR = """\
  list      a file .txt or .csv
  coco      a file .json, or a folder annotations with such files
  shards    a file .tar, or a folder of them
  voc       the folders JPEGImages and Annotations
  folder    class folders, or photos"""


def open_dataset(
    spec: Any, kind: Kind = "auto", split: str | None = None, **options: Any
) -> Dataset:
    """Open a dataset of any kind.

    ``spec`` is a path, an address that fsspec knows (``s3://``, ``memory://``, ``zip://...``), a
    list of paths of tar files, or a sequence, torch dataset or iterable of images. ``split``
    names a part of it: an image set of VOC, the end of the name of COCO's file, a folder of class
    folders. ``options`` go to the source: ``classes`` (all but COCO), ``root`` (where the photos
    of a list or of COCO lie), ``difficult`` and ``per_class`` (VOC), ``name`` (sequences).

    Raises
    ------
    OSError, ValueError
        If nothing lies there, the kind cannot be told, or the source is broken.
    TypeError
        If the kind has no such option.
    """
    if kind not in get_args(Kind):
        raise ValueError(f"kind must be one of {', '.join(get_args(Kind))}, not {kind!r}.")
    if kind == "auto" and not _is_path(spec) and not _are_tars(spec):
        kind = "sequence"
    if kind == "sequence":
        _no_split(kind, split)
        return sequences.sequence_dataset(spec, **options)
    if kind == "shards" or (kind == "auto" and _are_tars(spec)):
        return _open_shards(spec, split, **options)
    place, name = find(spec)
    kind = _told(place, name) if kind == "auto" else kind
    if kind == "shards":
        return _open_shards(spec, split, **options)
    return _OPENERS[kind](place, name, split, **options)


def _is_path(spec: Any) -> bool:
    return isinstance(spec, (str, os.PathLike))


def _are_tars(spec: Any) -> bool:
    """Whether it names tar files by itself: by braces, or as a list."""
    if isinstance(spec, str):
        return spec.endswith(".tar") and "{" in spec
    several = isinstance(spec, (list, tuple)) and len(spec) > 0
    return several and all(_is_path(each) and os.fspath(each).endswith(".tar") for each in spec)


def _told(place: Place, name: str) -> Kind:
    """The kind, by what lies there."""
    suffix = os.path.splitext(name)[1].lower()
    if suffix in _SUFFIXES:
        return _SUFFIXES[suffix]
    if not name:
        folders, files = place.folders(), place.files(deep=False)
        if {"JPEGImages", "Annotations"} <= set(folders):
            return "voc"
        if "annotations" in folders and _with_suffix(place, "annotations", ".json"):
            return "coco"
        if any(file.endswith(".tar") for file in files):
            return "shards"
        if folders or any(map(folder.is_photo, files)):
            return "folder"
    where = f"{place.name}/{name}".rstrip("/")
    raise ValueError(f"{where}: no dataset of a known kind. Looked for\n{_LOOKED_FOR}")


def _with_suffix(place: Place, under: str, suffix: str) -> list[str]:
    return [file for file in place.files(under, deep=False) if file.endswith(suffix)]


def _no_split(kind: str, split: str | None) -> None:
    if split is not None:
        raise ValueError(f"a dataset of kind {kind!r} has no splits, but split is {split!r}.")


def _open_folder(place: Place, name: str, split: str | None, **options: Any) -> Dataset:
    _folder_only("folder", place, name)
    return folder.folder_dataset(place if split is None else place.below(split), **options)


def _open_voc(place: Place, name: str, split: str | None, **options: Any) -> Dataset:
    _folder_only("voc", place, name)
    return voc.voc_dataset(place, split, **options)


def _folder_only(kind: str, place: Place, name: str) -> None:
    if name:
        raise ValueError(f"{place.name}/{name}: a dataset of kind {kind!r} is a folder.")


def _open_list(place: Place, name: str, split: str | None, **options: Any) -> Dataset:
    _no_split("list", split)
    if not name:
        raise ValueError(f"{place.name}: a list is a file, not a folder.")
    return file_list.file_list(place, name, **_with_root(options))


def _open_coco(place: Place, name: str, split: str | None, **options: Any) -> Dataset:
    if name:
        _no_split("coco", split)
        return coco.coco_dataset(place, name, **_with_root(options))
    found = _with_suffix(place, "annotations", f"_{split}.json" if split else ".json")
    if len(found) != 1:
        names = ", ".join(_with_suffix(place, "annotations", ".json")) or "none"
        raise ValueError(
            f"{place.name}: split={split!r} must leave one of the files of annotations: {names}."
        )
    return coco.coco_dataset(place, found[0], **_with_root(options))


def _with_root(options: dict[str, Any]) -> dict[str, Any]:
    """The options, the place in the stead of ``root``."""
    if options.get("root") is None:
        return options
    place, name = find(options["root"])
    if name:
        raise ValueError(f"root must be a folder, not the file {options['root']}.")
    return options | {"root": place}


def _open_shards(
    spec: str | os.PathLike[str] | Sequence[str | os.PathLike[str]],
    split: str | None,
    **options: Any,
) -> Dataset:
    _no_split("shards", split)
    if not isinstance(spec, (str, os.PathLike)):
        tars = [find(each) for each in spec]
        return shards.shards_dataset(f"{len(tars)} tar files", tars, **options)
    name = os.fspath(spec)
    tars = [find(each) for each in shards.expanded(name)]
    if len(tars) == 1 and not tars[0][1]:
        place = tars[0][0]
        tars = [(place, file) for file in place.files(deep=False) if file.endswith(".tar")]
    return shards.shards_dataset(name, tars, **options)


_OPENERS: dict[str, Callable[..., Dataset]] = {
    "folder": _open_folder,
    "list": _open_list,
    "voc": _open_voc,
    "coco": _open_coco,
}
