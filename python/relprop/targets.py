"""What is explained: how much relevance each value of the output starts with."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias, cast

import numpy as np
from numpy.typing import NDArray

from relprop.arrays import to_numpy
from relprop.composites import Initial
from relprop.graph import Shape
from relprop.inputs import Float32, Images
from relprop.model import Model

Target: TypeAlias = int | str | Sequence[int | str] | Images
"""A class index or name, one for each sample, "argmax", a mask of the output or its relevance."""


@dataclass(frozen=True)
class Start:
    """A target, checked: class indices, or a mask, or the output's relevance itself.

    ``indices`` is (samples,), -1 where there are none; the core fills them in where
    ``argmax``. ``mask`` and ``given`` are (samples, outputs).
    """

    indices: NDArray[np.int64]
    argmax: bool = False
    mask: NDArray[np.uint8] | None = None
    given: Float32 | None = None

    def relevance(self, scores: Float32, initial: Initial) -> NDArray[np.float64]:
        """Sum up what each sample starts with, (samples,), once the scores are known."""
        values = scores if initial == "value" else np.ones_like(scores)
        if self.given is not None:
            started = self.given.sum(axis=1, dtype=np.float64)
        elif self.mask is not None:
            started = values.sum(axis=1, dtype=np.float64, where=self.mask.astype(bool))
        else:
            started = values[np.arange(len(values)), self.indices].astype(np.float64)
        return cast("NDArray[np.float64]", started)

    def explained(self, scores: Float32) -> NDArray[np.float64]:
        """Sum up what is explained, (samples,): the function whose gradient a run returns."""
        if self.given is None:
            return self.relevance(scores, "value")
        weighed: NDArray[np.float64] = (self.given.astype(np.float64) * scores).sum(axis=1)
        return weighed

    def repeated(self, samples: Sequence[int]) -> Start:
        """Return the start of these samples, in this order."""
        of = np.asarray(samples, np.intp)
        return Start(
            self.indices[of],
            self.argmax,
            None if self.mask is None else self.mask[of],
            None if self.given is None else self.given[of],
        )


def read_target(target: Target, samples: int, shape: Shape, model: Model) -> Start:
    """Check a target for an output of ``shape``.

    Raises
    ------
    TypeError, ValueError
        If it is of no kind of target, or does not fit the samples or the output.
    """
    if isinstance(target, str) and target == "argmax":
        _require_vector(shape, "argmax")
        return Start(np.zeros(samples, np.int64), argmax=True)
    if not isinstance(target, int | str | np.integer) and not _has_names(target):
        array = to_numpy(target, "target")
        if array.dtype.kind in "fb" and array.shape != (0,):  # [] is a list of classes
            none = np.full(samples, -1, np.int64)
            if array.dtype.kind == "b":
                mask = _like_output(array, samples, shape, "a mask")
                return Start(none, mask=mask.astype(np.uint8))
            with np.errstate(over="ignore"):
                given = _like_output(array, samples, shape, "relevance").astype(np.float32)
            if not np.isfinite(given).all():
                raise ValueError("target given as relevance must be finite.")
            return Start(none, given=given)
    _require_vector(shape, "a class")
    return Start(_indices(target, samples, shape[0], model))


def _indices(target: Any, samples: int, outputs: int, model: Model) -> NDArray[np.int64]:
    if isinstance(target, int | str | np.integer):
        target = [target] * samples
    elif not _has_names(target):
        array = to_numpy(target, "target")
        if array.shape not in ((), (array.size,), (array.size, 1)):
            raise ValueError(
                f"target must have shape ({samples},), a class for each sample, not {array.shape}."
            )
        target = array.reshape(-1).tolist()
    if len(target) != samples:
        raise ValueError(
            f"target must name one class for each of {samples} samples, not {len(target)}."
        )
    if _has_names(target) and len(model.classes) not in (0, outputs):
        raise ValueError(
            f"target must be an index: the class names are not those of an output of {outputs}."
        )
    indices = [model.class_index(t) if isinstance(t, str) else t for t in target]
    for index in indices:
        if not isinstance(index, int | np.integer) or isinstance(index, bool):
            raise TypeError(f"target must be an index or a class name, not {index!r}.")
        if not 0 <= index < outputs:
            raise ValueError(f"target must be in [0, {outputs}), not {index}.")
    return np.array(indices, np.int64).reshape(samples)


def _require_vector(shape: Shape, what: str) -> None:
    if len(shape) != 1:
        raise ValueError(
            f"target can be {what} only where the output is a vector, not of shape {shape}: give "
            "a boolean mask of the output, such as mask = np.zeros_like(scores, bool); "
            "mask[:, 2] = scores.argmax(1) == 2 with scores = explainer.forward(images), "
            "or the output's relevance as a float array."
        )


def _has_names(target: Any) -> bool:
    return isinstance(target, list | tuple) and any(isinstance(t, str) for t in target)


def _like_output(array: NDArray[Any], samples: int, shape: Shape, what: str) -> NDArray[Any]:
    """An array of the output's shape, flat: (samples, outputs)."""
    if array.shape not in ((samples, *shape), shape if samples == 1 else (samples, *shape)):
        raise ValueError(
            f"target given as {what} must have shape {(samples, *shape)}, not {array.shape}."
        )
    return np.ascontiguousarray(array).reshape(samples, int(np.prod(shape, dtype=np.int64)))
