"""Reading a dataset ahead: photos become a network's inputs in threads, in the dataset's order."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from relprop.datasets.items import Box, Dataset, Item, Label, Rejected
from relprop.datasets.photos import open_photo
from relprop.preprocessing import Placement, Preprocessing
from relprop.shown import ShownByShapes


@dataclass(frozen=True, eq=False, repr=False)
class Sample(ShownByShapes):
    """An item as the network sees it.

    ``pixels`` are float32 (channels, height, width). Boxes and masks, bool (height, width), are
    in pixels of this input; what of them the crop leaves out is gone, and so are boxes and masks
    that it leaves out wholly. ``mask_labels`` are the masks' classes.
    """

    key: str
    pixels: NDArray[np.float32]
    label: Label | None
    boxes: tuple[Box, ...]
    masks: tuple[NDArray[np.bool_], ...]
    mask_labels: tuple[Label | None, ...]


def read_ahead(
    dataset: Dataset, preprocessing: Preprocessing | None, workers: int = 2, ahead: int = 64
) -> Iterator[Sample | Rejected]:
    """Return the samples of a dataset in its order, whatever the number of threads.

    ``workers`` threads decode and resize, at most ``ahead`` items before the one that is asked
    for. Arrays of floats are taken as they are. Without ``preprocessing`` all items must be such
    arrays. An item that cannot be used becomes `Rejected` and the reading goes on.

    Raises
    ------
    ValueError
        If ``workers`` or ``ahead`` is less than 1.
    """
    for name, value in (("workers", workers), ("ahead", ahead)):
        if value < 1:
            raise ValueError(f"{name} must be at least 1, not {value}.")
    return _in_order(dataset, preprocessing, workers, ahead)


def _in_order(
    dataset: Dataset, preprocessing: Preprocessing | None, workers: int, ahead: int
) -> Iterator[Sample | Rejected]:
    waiting: deque[Future[Sample | Rejected]] = deque()
    pool = ThreadPoolExecutor(workers, "relprop-reader")
    try:
        for item in dataset:
            waiting.append(pool.submit(_read, item, preprocessing))
            if len(waiting) >= ahead:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:  # the consumer may have stopped early
        pool.shutdown(wait=True, cancel_futures=True)


def _read(item: Item | Rejected, preprocessing: Preprocessing | None) -> Sample | Rejected:
    if isinstance(item, Rejected):
        return item
    try:
        if item.key != item.key.encode("utf-8", "replace").decode():  # no table could hold it
            raise ValueError("its name is not in UTF-8.")
        if item.array is not None and np.issubdtype(item.array.dtype, np.floating):
            return _from_floats(item, item.array, preprocessing)
        if preprocessing is None:
            raise ValueError("a photo needs preprocessing; without it arrays must be floats.")
        return _from_photo(item, preprocessing)
    except (OSError, ValueError) as error:
        return Rejected(item.key, str(error))


def _from_floats(item: Item, array: NDArray[np.floating], fit: Preprocessing | None) -> Sample:
    if fit is not None and array.shape != (len(fit.mean), *fit.size):
        expected = (len(fit.mean), *fit.size)
        raise ValueError(f"the network's input has the shape {expected}, the array {array.shape}.")
    pixels = np.ascontiguousarray(array, np.float32)
    if pixels.ndim != 3 or not np.isfinite(pixels).all():
        raise ValueError("a network's input must be finite floats (channels, height, width).")
    size = (pixels.shape[1], pixels.shape[2])
    masks = tuple(mask.pixels(*size) for mask in item.masks)
    return _sample(item, pixels, _placed(item.boxes, Placement((1, 1), (0, 0)), size), masks)


def _from_photo(item: Item, preprocessing: Preprocessing) -> Sample:
    photo = open_photo(item)
    placement = preprocessing.placement(photo.image.height, photo.image.width)
    boxes = _placed(photo.boxes, placement, preprocessing.size)
    masks = tuple(preprocessing.mask(mask) for mask in photo.masks())
    return _sample(item, preprocessing(photo.image), boxes, masks)


def _sample(
    item: Item,
    pixels: NDArray[np.float32],
    boxes: tuple[Box, ...],
    masks: tuple[NDArray[np.bool_], ...],
) -> Sample:
    seen = [(mask, given.label) for mask, given in zip(masks, item.masks) if mask.any()]
    labels = tuple(label for _, label in seen)
    return Sample(item.key, pixels, item.label, boxes, tuple(mask for mask, _ in seen), labels)


def _placed(boxes: tuple[Box, ...], placement: Placement, size: tuple[int, int]) -> tuple[Box, ...]:
    return tuple(seen for box in boxes if (seen := _seen(box, placement, size)) is not None)


def _seen(box: Box, placement: Placement, size: tuple[int, int]) -> Box | None:
    """The part of a box that lies in the input."""
    left, top = placement(box.left, box.top)
    right, bottom = placement(box.right, box.bottom)
    left, top, right, bottom = max(left, 0), max(top, 0), min(right, size[1]), min(bottom, size[0])
    if left >= right or top >= bottom:
        return None
    return replace(box, left=left, top=top, right=right, bottom=bottom)
