"""What a model is given: an array of numpy, torch or cupy for each of its inputs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from relprop.arrays import Arrays, arrays_of
from relprop.graph import Node

Images: TypeAlias = Any
"""An array of numpy, torch or cupy; for several inputs a mapping by their names, or a tuple."""

Float32 = NDArray[np.float32]


def by_input(images: Images, inputs: Sequence[Node]) -> dict[str, Any]:
    """Return the array that each input is given, by the input's name."""
    names = [node.name for node in inputs]
    if isinstance(images, Mapping):
        if set(images) != set(names):
            raise ValueError(
                f"images must have the model's inputs ({', '.join(names)}), "
                f"not {', '.join(map(str, images))}."
            )
        return {name: images[name] for name in names}
    if isinstance(images, tuple):
        if len(images) != len(names):
            raise ValueError(
                f"images must be one array for each input of the model ({', '.join(names)}), "
                f"not {len(images)}."
            )
        return dict(zip(names, images))
    if len(names) != 1:
        raise ValueError(
            f"the model has several inputs ({', '.join(names)}): give images as a dictionary by "
            "these names, or as a tuple in this order."
        )
    return {names[0]: images}


def in_structure(images: Images, arrays: Mapping[str, Any]) -> Any:
    """Return one array for each input in the structure in which ``images`` was given."""
    if isinstance(images, Mapping):
        return {name: arrays[name] for name in images}
    return tuple(arrays.values()) if isinstance(images, tuple) else next(iter(arrays.values()))


def read_batches(
    given: Mapping[str, Any],
    inputs: Sequence[Node],
    vocabularies: Mapping[str, int],
    gpu: int | None,
) -> tuple[dict[str, Any], Arrays]:
    """Return each input's samples as a contiguous float32 array, checked, and their kind.

    ``vocabularies`` says for each input of ids how many there are; ``gpu`` is the one that will
    compute, or None.
    """
    alone = len(inputs) == 1
    names = {node.name: "images" if alone else f"images[{node.name!r}]" for node in inputs}
    kinds = {node.name: arrays_of(given[node.name], gpu, names[node.name]) for node in inputs}
    of = next(iter(kinds.values()))
    for name, kind in kinds.items():
        if kind != of:
            raise TypeError(
                f"images must all be of one kind: {names[name]} is not in the same memory, or not "
                "of the same library, as the first."
            )
    batches = {
        node.name: _read_batch(given[node.name], node, vocabularies, names[node.name], of)
        for node in inputs
    }
    (first, samples), *others = ((name, len(batch)) for name, batch in batches.items())
    for name, count in others:
        if count != samples:
            raise ValueError(
                f"images must have as many samples for each input, not {samples} for {first!r} "
                f"and {count} for {name!r}."
            )
    return batches, of


def _read_batch(
    given: Any, node: Node, vocabularies: Mapping[str, int], name: str, of: Arrays
) -> Any:
    array = of.take(given, name)
    kind = of.number_kind(array)
    if node.ids and kind not in "iub":
        raise TypeError(f"{name} must be integers, the model's input are ids, not {array.dtype}.")
    if not node.ids and kind != "f":
        raise TypeError(
            f"{name} must be floating point, not {array.dtype}: pixels must be scaled as the "
            "model expects (see Model.preprocessing) before they are explained."
        )
    if tuple(array.shape) == node.shape:
        array = array[None]
    if tuple(array.shape[1:]) != node.shape:
        sizes = ", ".join(map(str, node.shape))
        raise ValueError(
            f"{name} must have shape (samples, {sizes}) or {node.shape}, not {tuple(array.shape)}."
        )
    if node.ids:
        _check_ids(of.numpy(array), vocabularies[node.name], name)
    batch = of.floats(array)
    finite = of.finite(batch)
    if not finite.all():
        bad = np.flatnonzero(~finite)
        raise ValueError(f"{name} must be finite in float32; samples {bad[:8].tolist()} are not.")
    return batch


def _check_ids(array: NDArray[Any], vocabulary: int, name: str) -> None:
    unknown = array[(array < 0) | (array >= vocabulary)]
    if unknown.size:
        raise ValueError(
            f"{name} must hold ids in [0, {vocabulary}), the rows of the model's embedding, "
            f"not {unknown[0]}."
        )
