"""A list of photos: a text or CSV file with a path, and perhaps a label, in each line."""

from __future__ import annotations

import csv
from collections.abc import Iterator, Sequence
from functools import partial

from relprop.datasets.items import Item, Label, Rejected
from relprop.datasets.listed import Listed, once
from relprop.datasets.places import Place

MAX_LIST = 1 << 28
"""Bytes of a list; larger ones are refused."""


def file_list(
    place: Place, name: str, classes: Sequence[str] = (), root: Place | None = None
) -> Listed[Label | None]:
    """Return the photos of a list, keyed by their path.

    A line is ``path`` or ``path,label``, the path relative to ``root`` or else to the list's own
    folder; empty lines, lines from ``#`` on and a first line ``path[,label]`` count for nothing.
    A path with a comma stands in double quotes. A label is a class name; digits are a class
    index, unless ``classes`` holds such a name. Without ``classes`` labels are all of one kind.

    Raises
    ------
    OSError, ValueError
        If the list cannot be read, is no text or mixes names and indices.
    """
    try:
        text = place.read(name, MAX_LIST).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"{name}: a list must be UTF-8 text: {error}") from None
    known = tuple(classes)
    entries = once(_entries(text, known))
    if not known:
        labels = [entry for _, entry in entries if isinstance(entry, (str, int))]
        names = {label for label in labels if isinstance(label, str)}
        index = next((label for label in labels if isinstance(label, int)), None)
        if names and index is not None:
            raise ValueError(
                f"{name}: labels must be names or indices, not {min(names)!r} and {index}, where "
                "classes are not given."
            )
        known = tuple(sorted(names))
    return Listed(name, known, entries, partial(_item, root or place))


def _entries(text: str, classes: tuple[str, ...]) -> Iterator[tuple[str, Label | Rejected | None]]:
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        try:
            fields = [field.strip() for field in next(csv.reader([line.strip()]))]
            if number == 1 and fields in (["path"], ["path", "label"]):
                continue
            yield fields[0], _label(fields, classes)
        except (ValueError, csv.Error) as error:
            key = line.partition(",")[0].strip()
            yield key, Rejected(key, f"line {number}: {error}")


def _label(fields: list[str], classes: tuple[str, ...]) -> Label | None:
    if not fields[0] or len(fields) > 2:
        raise ValueError("a line is a path, or a path, a comma and a label.")
    text = fields[1] if len(fields) == 2 else ""
    if not text or text in classes:
        return text or None
    if text.isascii() and text.isdecimal() and len(text) < 19:
        index = int(text)
        if classes and index >= len(classes):
            raise ValueError(f"class index {text} is not less than {len(classes)}.")
        return index
    if classes:
        raise ValueError(f"{text!r} is not among the classes.")
    return text


def _item(root: Place, key: str, label: Label | None) -> Item:
    return Item(key, read=partial(root.read, key), label=label)
