"""Where a model's value has the batch, which is a Graph's first axis and not counted there.

Most models leave it first. Attention moves it behind the sequence and merges it with heads or
windows; as long as every sample keeps what is its own, that changes nothing in the Graph.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from relprop.frontends.conversion import BATCH_AXIS, Unsupported
from relprop.graph import Shape


@dataclass(frozen=True)
class Place:
    """Axis ``axis`` of a value is ``outer`` x batch x ``inner`` long.

    A sample has the value's axes in their order, with ``outer`` and ``inner`` in the place of the
    batch's, as far as they are not 1.
    """

    axis: int = 0
    outer: int = 1
    inner: int = 1

    @property
    def merged(self) -> Shape:
        """What a sample has in the place of the batch's axis."""
        return tuple(size for size in (self.outer, self.inner) if size > 1)

    def sample(self, shape: Sequence[int]) -> Shape:
        """The shape of a sample of a value; the size of the batch's axis is not read."""
        return (*shape[: self.axis], *self.merged, *shape[self.axis + 1 :])

    def full(self, sample: Shape, batch: int) -> Shape:
        """The shape of a value, of its samples' and the number of them."""
        size = self.outer * batch * self.inner
        return (*sample[: self.axis], size, *sample[self.axis + len(self.merged) :])

    def axis_of(self, dim: int, rank: int) -> int:
        """A sample's axis that a value of ``rank`` axes has as ``dim``."""
        dim %= rank
        if dim == self.axis:
            raise Unsupported(BATCH_AXIS)
        return dim if dim < self.axis else dim - 1 + len(self.merged)

    def permuted(self, dims: Sequence[int]) -> tuple[tuple[int, ...], Place]:
        """What a change of a value's axes is for samples, and where it brings the batch."""
        dims = [dim % len(dims) for dim in dims]
        axes: list[int] = []
        for dim in dims:
            if dim == self.axis:
                axes += range(dim, dim + len(self.merged))
            else:
                axes.append(self.axis_of(dim, len(dims)))
        return tuple(axes), replace(self, axis=dims.index(self.axis))

    def viewed_as(
        self, sample: Shape, shapes: Sequence[Sequence[int]], batches: Sequence[int]
    ) -> Place:
        """As :meth:`viewed`, from the shape that a value has for each size of the batch.

        Of a batch of one alone, any axis may be its own. Then the likeliest is taken.
        """
        first, rank = tuple(shapes[0]), len(shapes[0])
        made = []
        for axis in range(rank):
            try:
                place = self.viewed(sample, first[:axis], first[axis + 1 :])
            except Unsupported:
                continue
            rest = place.sample(first)
            if all(tuple(shape) == place.full(rest, n) for shape, n in zip(shapes, batches)):
                made.append(place)
        if not made:
            raise Unsupported(BATCH_AXIS)
        return min(made, key=lambda p: (len(p.merged), p.axis == rank - 1, p.axis != self.axis))

    def viewed(self, sample: Shape, before: Shape, behind: Shape) -> Place:
        """Where the batch is once a value has other axes, those before and behind the batch's."""
        split = self.axis + (self.outer > 1)
        outer, wrong = divmod(math.prod(sample[:split]), max(math.prod(before), 1))
        inner, left = divmod(math.prod(sample[split:]), max(math.prod(behind), 1))
        if wrong or left or not outer or not inner:
            raise Unsupported(BATCH_AXIS)
        return Place(len(before), outer, inner)


HOME = Place()
"""The batch comes first, as it does in a Graph."""


def common(places: Sequence[tuple[Place, int]], rank: int) -> Place:
    """Where the batch is in what values of those places and ranks are broadcast to, of ``rank``."""
    found = {replace(place, axis=place.axis + rank - own) for place, own in places}
    if len(found) != 1:
        raise Unsupported(BATCH_AXIS)
    return found.pop()
