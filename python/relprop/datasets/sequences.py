"""Images that a program already has: arrays, Pillow's images, torch's datasets, iterators."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from relprop.datasets.items import Item, Label, Rejected, check_shard, is_photo_array
from relprop.images import upright_rgb


@dataclass(frozen=True)
class Indexed:
    """The elements of anything with a length and an index, which is their key."""

    name: str
    classes: tuple[str, ...]
    elements: Any
    indices: range

    def __len__(self) -> int:
        return len(self.indices)

    def __iter__(self) -> Iterator[Item | Rejected]:
        for index in self.indices:
            try:
                element = self.elements[index]
            except Exception as error:  # it is the user's code, and one of many elements
                yield Rejected(str(index), f"{type(error).__name__}: {error}")
            else:
                yield _item(index, element)

    def shard(self, index: int, count: int) -> Indexed:
        """Return every ``count``-th element from ``index`` on."""
        check_shard(index, count)
        return replace(self, indices=self.indices[index::count])

    def sliced(self, part: slice) -> Indexed:
        """Return the elements of a slice."""
        return replace(self, indices=self.indices[part])


@dataclass(frozen=True)
class Streamed:
    """The elements of an iterable, keyed by the order in which they come.

    An iterator gives its elements once: a second pass over it, or over another shard of it, is
    refused.
    """

    name: str
    classes: tuple[str, ...]
    elements: Iterable[Any]
    part: tuple[int, int] = (0, 1)
    passes: list[int] = field(default_factory=list)  # shared by all shards

    def __iter__(self) -> Iterator[Item | Rejected]:
        elements = iter(self.elements)
        if elements is self.elements and self.passes:
            raise ValueError(f"{self.name}: an iterator can be read only once.")
        self.passes.append(self.part[0])
        first, step = self.part
        for index, element in islice(enumerate(elements), first, None, step):
            yield _item(index, element)

    def shard(self, index: int, count: int) -> Streamed:
        """Return every ``count``-th element from ``index`` on."""
        check_shard(index, count)
        first, step = self.part
        return replace(self, part=(first + index * step, step * count))


def sequence_dataset(
    elements: Any, classes: Sequence[str] = (), name: str = "sequence"
) -> Indexed | Streamed:
    """Return the images of a sequence, an array, a torch dataset or an iterable.

    An element is an image or (image, label). An image is a Pillow image or uint8 (height, width,
    3) or (height, width), a photo; or floats (channels, height, width), a network's input as it
    is; a tensor counts as an array. ``classes`` are by default those that ``elements`` names.

    Raises
    ------
    TypeError
        If the elements can neither be indexed nor iterated over.
    """
    known = tuple(classes or _named(elements))
    if hasattr(elements, "__len__") and hasattr(elements, "__getitem__"):
        return Indexed(name, known, elements, range(len(elements)))
    if isinstance(elements, Iterable):
        return Streamed(name, known, elements)
    raise TypeError(f"elements must be a sequence or an iterable, not {type(elements).__name__}.")


def _named(elements: Any) -> Sequence[str]:
    named = getattr(elements, "classes", ())
    texts = isinstance(named, (list, tuple)) and all(isinstance(each, str) for each in named)
    return named if texts else ()


def _item(index: int, element: Any) -> Item | Rejected:
    try:
        image, label = element if isinstance(element, (tuple, list)) else (element, None)
        return Item(str(index), array=_array(image), label=_label(label))
    except (OSError, TypeError, ValueError) as error:
        return Rejected(str(index), str(error))


def _array(image: Any) -> NDArray[Any]:
    if isinstance(image, Image.Image):
        return np.asarray(upright_rgb(image))
    array = np.asarray(image)
    ready = np.issubdtype(array.dtype, np.floating) and array.ndim == 3 and array.size > 0
    if not ready and not is_photo_array(array):
        raise ValueError(
            "an array must be uint8 (height, width, 3) or (height, width), or floats (channels, "
            f"height, width), not {array.dtype} {array.shape}."
        )
    return array


def _label(label: Any) -> Label | None:
    if label is None or isinstance(label, str):
        return label
    number = np.asarray(label)
    if number.size != 1 or not np.issubdtype(number.dtype, np.integer):
        raise ValueError(f"a label must be a text or a whole number, not {label!r}.")
    return int(number.item())
