"""Resize and Upsample of ONNX, where they take the pixels that the Graph's upsampling takes."""

from __future__ import annotations

import numpy as np

from relprop.frontends.conversion import BATCH_AXIS, registering
from relprop.frontends.onnx_call import Call, Converter
from relprop.frontends.onnx_steps import LARGEST
from relprop.graph import Pair, UpsampleBilinear2d, UpsampleNearest2d

_LARGEST_AXIS = 1 << 20

TABLE: dict[str, Converter] = {}
_converts = registering(TABLE)


@_converts("Resize", "Upsample")
def _resize(call: Call) -> str:
    call.require(len(call.shape) == 3, f"one sample must be an image, not {call.shape}")
    call.require(not call.step.integer("antialias", 0), "it is antialiased")
    policy = call.step.text("keep_aspect_ratio_policy", "stretch")
    call.require(policy == "stretch", f"keep_aspect_ratio_policy {policy!r}")
    size, ratio = _new_size(call)
    before, mode = call.shape[1:], call.step.text("mode", "nearest")
    old = call.step.type == "Upsample" or call.step.opset < 11
    how = "asymmetric" if old else call.step.text("coordinate_transformation_mode", "half_pixel")
    if how == "pytorch_half_pixel" and 1 not in size:
        how = "half_pixel"
    call.require(how in ("half_pixel", "align_corners", "asymmetric"), f"coordinates of {how!r}")
    if how == "align_corners":
        ratio = (
            (before[0] - 1) / max(size[0] - 1, 1),
            (before[1] - 1) / max(size[1] - 1, 1),
        )
    if mode == "nearest":
        rounding = "floor" if old else call.step.text("nearest_mode", "round_prefer_floor")
        same = all(
            _takes_as_graph(n, m, r, how == "half_pixel", rounding)
            for n, m, r in zip(before, size, ratio)
        )
        call.require(same, f"nearest pixels by {how!r} and {rounding!r}")
        return call.emit(UpsampleNearest2d(size, ratio))
    call.require(mode in ("linear", "bilinear"), f"mode {mode!r}")
    return call.emit(UpsampleBilinear2d(size, ratio, align_corners=how != "half_pixel"))


def _new_size(call: Call) -> tuple[Pair, tuple[float, float]]:
    """The size of a resized image, and input pixels per output pixel along each axis."""
    rank = len(call.shape) + 1
    axes = tuple(call.step.integers("axes") or range(rank))
    if not all(-rank <= axis < rank for axis in axes):
        raise ValueError(f"axes {axes} do not fit a value of {rank} axes")
    by_size = call.given(3)
    tried = []
    for version, batch in enumerate(call.batches):
        full = (batch, *call.shape)
        given = call.versions(3 if by_size else 1 if call.step.opset < 11 else 2)[version]
        if given.shape != (len(axes),):
            raise ValueError(f"{given.size} scales or sizes do not fit {len(axes)} axes")
        sizes, ratios = list(full), [1.0] * rank
        for axis, value in zip(axes, given.tolist()):
            if not 0 < value < LARGEST:
                raise ValueError(f"scales and sizes must be positive numbers, not {given.tolist()}")
            # A scale is a float32, and so is its product with the size.
            sizes[axis] = value if by_size else int(np.float32(full[axis]) * np.float32(value))
            ratios[axis] = full[axis] / value if by_size else 1.0 / value
        call.require(ratios[0] == 1, BATCH_AXIS)
        call.require(ratios[1] == 1, "it resizes channels")
        tried.append(((sizes[2], sizes[3]), (ratios[2], ratios[3])))
    call.require(all(t == tried[0] for t in tried), "its size depends on that of the batch")
    return tried[0]


def _takes_as_graph(before: int, after: int, ratio: float, half_pixel: bool, rounding: str) -> bool:
    """Whether along an axis the nearest pixels are those of UpsampleNearest2d."""
    if after > _LARGEST_AXIS:
        raise ValueError(f"an axis of {after} is too long")
    places = np.arange(after)
    at = (places + 0.5) * ratio - 0.5 if half_pixel else places * ratio
    rounded = {
        "floor": np.floor(at),
        "ceil": np.ceil(at),
        "round_prefer_floor": np.ceil(at - 0.5),
        "round_prefer_ceil": np.floor(at + 0.5),
    }.get(rounding)
    if rounded is None:
        raise ValueError(f"nearest_mode is {rounding!r}")
    taken = np.minimum(np.floor(places * ratio), before - 1)
    return np.array_equal(np.clip(rounded, 0, before - 1), taken)
