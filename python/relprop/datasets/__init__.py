"""Labelled and annotated images from any source, one after the other.

>>> from relprop.datasets import open_dataset, read_ahead
>>> dataset = open_dataset("VOCdevkit/VOC2012", split="val")
>>> for sample in read_ahead(dataset, model.preprocessing):
...     ...

A source gives an `Item` for each photo, or tells in `Rejected` why it cannot; `read_ahead` turns
items into inputs of a network, with boxes and masks in the same pixels.
"""

from __future__ import annotations

from relprop.datasets.items import Box, Dataset, Item, Mask, Rejected
from relprop.datasets.opening import open_dataset
from relprop.datasets.photos import Photo, open_photo
from relprop.datasets.reading import Sample, read_ahead
from relprop.datasets.run_lengths import RunLengths

__all__ = [
    "Box",
    "Dataset",
    "Item",
    "Mask",
    "Photo",
    "Rejected",
    "RunLengths",
    "Sample",
    "open_dataset",
    "open_photo",
    "read_ahead",
]
