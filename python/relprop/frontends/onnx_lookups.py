"""Lookups in one sample at a time, by indices that count the samples up to the batch's size.

torch exports ``x[samples, positions]`` as GatherND by both side by side, or as Gather from what is
flattened, by their sum. Of such indices the Graph has the positions alone.
"""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np

from relprop.frontends import masks
from relprop.frontends.batch_axis import HOME
from relprop.frontends.conversion import BATCH_AXIS, gathered, registering
from relprop.frontends.onnx_call import Call, Converter, Known, rows
from relprop.frontends.onnx_tensors import Tensor
from relprop.graph import Reshape

TABLE: dict[str, Converter] = {}
_converts = registering(TABLE)

_OTHERS = "it looks up other samples"


def behind_own_number(call: Call) -> str | None:
    """The positions that a Concat puts behind each sample's own number, for lookups alone."""
    if len(call.step.inputs) != 2 or call.is_data(0) or not call.is_data(1):
        return None
    numbers, rank = call.versions(0), call.rank_of(call.sources[0])
    last = call.step.integer("axis", 0) in (-1, rank - 1) and numbers[0].ndim == rank
    return call.data(1) if last and _own(numbers) and _indexes(call, "GatherND") else None


def added_to_own_number(call: Call) -> str | None:
    """The positions that an Add counts from each sample's first place, for lookups alone."""
    if len(call.step.inputs) != 2 or len(call.sources) != 1:
        return None
    numbers = call.versions(int(call.is_data(0)))
    if numbers[0].ndim != call.rank_of(call.sources[0]) or numbers[0].dtype.kind not in "iu":
        return None
    size = int(numbers[-1].flat[-1]) // max(len(numbers[-1]) - 1, 1)
    counted = size > 1 and _own(numbers, size) and _indexes(call, "Gather")
    return str(call.values[call.sources[0]]) if counted else None


def _indexes(call: Call, operator: str) -> bool:
    """Whether a result is nothing but the index of such operators, or asked for its shape."""
    (made,) = call.step.outputs
    readers = call.readers.get(made, ())
    return made not in call.outputs and all(
        reader.op_type == "Shape" or (reader.op_type, *reader.input[1:]) == (operator, made)
        for reader in readers
    )


def _own(versions: Known, times: int = 1) -> bool:
    """Whether a batch has, at each place along the first axis, that place so many times."""
    return all(
        values.ndim > 0
        and len(values) == rows(version)
        and bool((times * np.arange(len(values)) == values.T).all())
        for version, values in enumerate(versions)
    )


@_converts("GatherND")
def _gather_nd(call: Call) -> str:
    call.require(not call.step.integer("batch_dims", 0), "it has axes of batches of its own")
    call.require(call.is_data(0) and call.place == HOME, BATCH_AXIS)
    if call.is_data(1):
        # Beside positions alone, every Concat has an entry more.
        made = call.graph[call.data(1)].shape
        call.require(made[-1:] == (1,), _OTHERS)
        return _looked_up(call, call.emit(Reshape(made[:-1]), call.data(1)))
    versions = call.versions(1)
    listed = all(version.ndim > 1 for version in versions)
    call.require(listed and _own(tuple(version[..., 0] for version in versions)), _OTHERS)
    places = _alike(call, tuple(version[..., 1:] for version in versions))
    sizes, rest = call.shape[: places.shape[-1]], call.shape[places.shape[-1] :]
    if len(sizes) < places.shape[-1] or not ((-np.array(sizes) <= places) & (places < sizes)).all():
        raise ValueError(f"its indices do not fit axes of {call.shape}")
    flat = call.emit(Reshape((math.prod(sizes), *rest)))
    return gathered(call, flat, 0, np.ravel_multi_index(tuple((places % sizes).T), sizes).T)


def of_flattened(call: Call) -> str:
    """Gather along an axis that the batch, in front, is merged into."""
    size = call.place.inner
    call.require(call.place == replace(HOME, inner=size) and size > 1, BATCH_AXIS)
    call.made = HOME
    if call.is_data(1):
        maker = call.makers.get(call.step.inputs[1])
        inputs = () if maker is None or maker.type != "Add" else maker.inputs
        known = [value for name in inputs if isinstance(value := call.values[name], tuple)]
        call.require(len(known) == 1 and _own(known[0], size), _OTHERS)
        return _looked_up(call, call.data(1))
    versions = call.versions(1)
    call.require(_own(tuple(version // size for version in versions)), _OTHERS)
    places = _alike(call, tuple(version % size for version in versions))
    return gathered(call, call.input, 0, places)


def _alike(call: Call, versions: Known) -> Tensor:
    """What is the same for all samples, of one of them."""
    first: Tensor = versions[0][0]
    call.require(first.size > 0 and all((v == first).all() for v in versions), _OTHERS)
    return first


def _looked_up(call: Call, positions: str) -> str:
    made = call.place_of(call.step.inputs[1])
    counted = masks.are_whole(call.graph, positions) and made == HOME
    call.require(counted, "it looks up positions that are not counted from masks")
    call.step.storage.spend(4 * call.shape[0] ** 2)
    return masks.looked_up(call, call.input, positions)
