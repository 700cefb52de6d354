"""What a model is given: arrays of numpy or torch, one for each of its inputs."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeAlias, cast

import numpy as np
from numpy.typing import NDArray

from relprop.graph import Node

Images: TypeAlias = Any
"""A numpy array or a torch tensor; for several inputs a mapping by their names, or a tuple."""

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
    given: Mapping[str, Any], inputs: Sequence[Node], vocabularies: Mapping[str, int]
) -> dict[str, Float32]:
    """Return each input's samples as a contiguous float32 array, checked.

    ``vocabularies`` says for each input of ids how many there are.
    """
    alone = len(inputs) == 1
    batches = {
        node.name: _read_batch(
            given[node.name], node, vocabularies, "images" if alone else f"images[{node.name!r}]"
        )
        for node in inputs
    }
    (first, samples), *others = ((name, len(batch)) for name, batch in batches.items())
    for name, count in others:
        if count != samples:
            raise ValueError(
                f"images must have as many samples for each input, not {samples} for {first!r} "
                f"and {count} for {name!r}."
            )
    return batches


def _read_batch(given: Any, node: Node, vocabularies: Mapping[str, int], name: str) -> Float32:
    array = to_numpy(given, name)
    if node.ids and array.dtype.kind not in "iu":
        raise TypeError(f"{name} must be integers, the model's input are ids, not {array.dtype}.")
    if not node.ids and array.dtype.kind != "f":
        raise TypeError(
            f"{name} must be floating point, not {array.dtype}: pixels must be scaled as the "
            "model expects (see Model.preprocessing) before they are explained."
        )
    if array.shape == node.shape:
        array = array[None]
    if array.shape[1:] != node.shape:
        sizes = ", ".join(map(str, node.shape))
        raise ValueError(
            f"{name} must have shape (samples, {sizes}) or {node.shape}, not {array.shape}."
        )
    if node.ids:
        _check_ids(array, vocabularies[node.name], name)
    with np.errstate(over="ignore"):
        batch = np.ascontiguousarray(array, np.float32)
    if not np.isfinite(batch).all():
        bad = np.flatnonzero(~np.isfinite(batch.reshape(len(batch), -1)).all(axis=1))
        raise ValueError(f"{name} must be finite in float32; samples {bad[:8].tolist()} are not.")
    return batch


def _check_ids(array: NDArray[Any], vocabulary: int, name: str) -> None:
    unknown = array[(array < 0) | (array >= vocabulary)]
    if unknown.size:
        raise ValueError(
            f"{name} must hold ids in [0, {vocabulary}), the rows of the model's embedding, "
            f"not {unknown[0]}."
        )


def to_numpy(value: Any, name: str) -> NDArray[Any]:
    """Return an array of numbers on the CPU; torch's are not copied."""
    if _is_torch(value):
        value = value.detach()
        if value.device.type != "cpu":
            raise TypeError(f"{name} must be on the CPU, not on {value.device}.")
        if value.is_complex() or str(value.dtype) == "torch.bfloat16":
            raise TypeError(f"{name} must be float32, float64 or float16, not {value.dtype}.")
        return np.asarray(value.numpy())
    array = np.asarray(value)
    if array.dtype.kind not in "fiub":
        raise TypeError(f"{name} must be an array of numbers, not of {array.dtype}.")
    return array


def like(array: Any) -> Callable[[NDArray[Any]], Any]:
    """Return what turns a numpy array into the kind of array that ``array`` is."""
    if not _is_torch(array):
        return lambda array: array
    import torch

    return cast("Callable[[NDArray[Any]], Any]", torch.from_numpy)


def _is_torch(value: object) -> bool:
    return type(value).__module__.partition(".")[0] == "torch"
