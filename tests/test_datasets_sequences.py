"""Images that a program has: arrays, Pillow's images, torch's datasets and tensors, iterators."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from PIL import Image

from annotated_photos import items, rejected
from relprop.datasets import Rejected, open_dataset

PHOTOS = np.arange(3 * 4 * 5 * 3, dtype=np.uint8).reshape(3, 4, 5, 3)
INPUTS = np.ones((3, 3, 4, 5), np.float32)


@pytest.mark.parametrize("elements", [PHOTOS, INPUTS, PHOTOS[..., 0], list(PHOTOS)])
def test_arrays_are_taken_as_they_are(elements: Any) -> None:
    dataset = open_dataset(elements)
    assert len(dataset) == 3
    for n, item in enumerate(items(dataset)):
        assert (item.key, item.label) == (str(n), None)
        np.testing.assert_array_equal(item.array, elements[n])


def test_labels_of_every_kind() -> None:
    labels = [3, "cat", None, np.int64(2), np.array([1])]
    dataset = open_dataset([(PHOTOS[0], label) for label in labels], classes=["a", "b"], name="x")
    assert (dataset.name, dataset.classes) == ("x", ("a", "b"))
    assert [item.label for item in items(dataset)] == [3, "cat", None, 2, 1]


def test_pillow_images_are_turned_and_converted() -> None:
    image = Image.fromarray(PHOTOS[0])
    image.getexif()[0x0112] = 6
    (item,) = items(open_dataset([(image, 1)]))
    np.testing.assert_array_equal(item.array, np.rot90(PHOTOS[0], -1))
    (item,) = items(open_dataset([Image.new("LA", (2, 1), (0, 0))]))
    assert item.array.tolist() == [[[255] * 3] * 2]


def test_torch_datasets_and_tensors() -> None:
    torch = pytest.importorskip("torch")
    data = torch.utils.data.TensorDataset(torch.zeros(4, 3, 2, 2), torch.arange(4))
    dataset = open_dataset(data)
    assert len(dataset) == 4
    assert [item.label for item in items(dataset.shard(1, 2))] == [1, 3]
    assert items(dataset)[0].array.shape == (3, 2, 2)


def test_the_classes_that_the_elements_name() -> None:
    class Named(list[Any]):
        classes = ["cat", "dog"]  # noqa: RUF012

    assert open_dataset(Named(PHOTOS)).classes == ("cat", "dog")


@pytest.mark.parametrize(
    ("element", "text"),
    [
        (np.zeros((4, 5, 4), np.uint8), r"an array must be uint8 .*, not uint8 \(4, 5, 4\)"),
        (np.zeros((4, 5, 3), np.int64), r"not int64"),
        (np.zeros((1, 3, 4, 5)), r"not float64 \(1, 3, 4, 5\)"),
        (np.zeros((0, 5, 3), np.uint8), r"not uint8 \(0, 5, 3\)"),
        ("text", "an array must be"),
        ((PHOTOS[0], 1, 2), "too many values"),
        ((PHOTOS[0], 1.5), "a label must be a text or a whole number, not 1.5"),
        (Image.new("F", (2, 2)), "floating-point pixels"),
    ],
)
def test_unusable_elements_are_rejected(element: Any, text: str) -> None:
    dataset = open_dataset([element, PHOTOS[0]])
    with pytest.raises(ValueError, match=text):
        raise ValueError(rejected(dataset)["0"])
    assert not isinstance(list(dataset)[1], Rejected)


def test_an_element_that_cannot_be_had() -> None:
    class Broken:
        def __len__(self) -> int:
            return 2

        def __getitem__(self, index: int) -> Any:
            return PHOTOS[0] if index else 1 / 0

    assert rejected(open_dataset(Broken())) == {"0": "ZeroDivisionError: division by zero"}


def stream() -> Iterator[np.ndarray]:
    yield from PHOTOS


def test_an_iterator_is_read_once() -> None:
    dataset = open_dataset(stream())
    assert not hasattr(dataset, "__len__")
    assert [item.key for item in items(dataset)] == ["0", "1", "2"]
    with pytest.raises(ValueError, match="sequence: an iterator can be read only once"):
        list(dataset)


def test_shards_of_a_stream() -> None:
    assert [item.key for item in items(open_dataset(stream()).shard(0, 2))] == ["0", "2"]
    assert [item.key for item in items(open_dataset(stream()).shard(1, 2).shard(0, 1))] == ["1"]

    class Again:
        def __iter__(self) -> Iterator[np.ndarray]:
            return stream()

    dataset = open_dataset(Again())
    assert [[i.key for i in items(dataset.shard(n, 2))] for n in (0, 1)] == [["0", "2"], ["1"]]


def test_what_is_no_sequence() -> None:
    with pytest.raises(TypeError, match="must be a sequence or an iterable, not int"):
        open_dataset(3)
