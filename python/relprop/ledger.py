"""The ledger: where the relevance of a prediction went, node by node."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Float64 = NDArray[np.float64]


@dataclass(frozen=True)
class Ledger:
    """What each node absorbed, per sample, and what should therefore be left at the input.

    Arrays are float64. ``bias``, ``stabilizer``, ``constants`` and ``zero`` have shape
    (samples, nodes) and hold signed relevance that went no further: to biases, to the
    stabilizer of denominators, to constants and padding, to nodes under the zero rule.
    ``relevance`` and ``magnitude``, of the same shape, are the sum and the sum of absolute
    values of the relevance at each node's output. ``initial`` (samples,) is the relevance that
    was set at the output, ``input`` (samples,) what arrived at the inputs.
    """

    nodes: tuple[str, ...]
    bias: Float64
    stabilizer: Float64
    constants: Float64
    zero: Float64
    relevance: Float64
    magnitude: Float64
    initial: Float64
    input: Float64

    @property
    def absorbed(self) -> Float64:
        """All that was absorbed, (samples,)."""
        total: Float64 = (self.bias + self.stabilizer + self.constants + self.zero).sum(axis=1)
        return total

    @property
    def closure(self) -> Float64:
        """Relevance that no entry accounts for, (samples,): rounding, if all is well."""
        return self.initial - self.input - self.absorbed

    @property
    def closure_error(self) -> Float64:
        """``|closure|`` relative to the largest sum of magnitudes over the nodes, (samples,)."""
        largest = self.magnitude.max(axis=1, initial=0.0)
        return np.abs(self.closure) / np.where(largest > 0, largest, 1.0)

    @property
    def conservation(self) -> Float64:
        """The plain figure ``sum_p R_p / f``, (samples,); NaN where f is 0."""
        f = self.initial
        return np.divide(self.input, f, out=np.full_like(f, np.nan), where=f != 0)

    def __repr__(self) -> str:
        error = (
            f", closure error at most {self.closure_error.max():.1e}" if len(self.initial) else ""
        )
        return f"Ledger({len(self.nodes)} nodes, {len(self.initial)} samples{error})"

    def __str__(self) -> str:
        width = max((len(name) for name in self.nodes), default=4)
        names = ("bias", "stabilizer", "constants", "zero")
        head = f"{'node':<{width}}  {'relevance':>12}" + "".join(f"  {n:>12}" for n in names)
        lines = [f"mean over {len(self.initial)} samples", head]
        for i, node in enumerate(self.nodes):
            columns = [self.relevance, self.bias, self.stabilizer, self.constants, self.zero]
            values = (column[:, i].mean() if len(column) else 0.0 for column in columns)
            lines.append(f"{node:<{width}}" + "".join(f"  {value:>12.5g}" for value in values))
        return "\n".join(lines)
