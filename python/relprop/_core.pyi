"""The compiled core of relprop."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

__version__: str
with_cuda: bool

def instruction_set() -> str: ...
def threads() -> int: ...
def set_threads(count: int) -> None: ...
def packed_bytes() -> int: ...
def multiply_adds(rounds: int) -> int: ...

_Floats = Any  # float32, of numpy's or with __cuda_array_interface__ in the plan's GPU
_Extent = tuple[int, int, int, int]  # depth, height, width, channels
_Triple = tuple[int, int, int]  # for depth, height, width
_Sides = tuple[tuple[int, int], tuple[int, int], tuple[int, int]]  # before and after, for each

def region_sums(
    values: _Floats, labels: NDArray[np.int32], count: int, gpu: int | None = None, stream: int = 0
) -> tuple[NDArray[np.float64], NDArray[np.float64]]: ...
def add_moments(
    values: NDArray[np.float64], high: NDArray[np.float64], low: NDArray[np.float64]
) -> None: ...
def on_canvas(map: NDArray[np.float32], rows: int, columns: int) -> NDArray[np.float64]: ...

class Rule:
    def __init__(
        self,
        kind: str,
        bias: str = "absorb",
        epsilon: float = ...,
        alpha: float = 1.0,
        beta: float = 0.0,
        gamma: float = 0.0,
    ) -> None: ...

class Plan:
    def __init__(self, gpu: int | None = None, precision: str = "float32") -> None: ...
    @property
    def steps(self) -> int: ...
    @property
    def tensors(self) -> int: ...
    @property
    def arena_per_sample(self) -> int: ...
    @property
    def stages(self) -> list[tuple[int, int, int]]: ...
    @property
    def senders(self) -> list[int]: ...
    def input(self, image: _Extent, channels_first: bool) -> int: ...
    def linear(
        self,
        input: int,
        from_image: _Extent,
        to_image: _Extent,
        weight: NDArray[np.float32],
        bias: NDArray[np.float32] | None,
        stride: _Triple,
        padding: _Sides,
        dilation: _Triple,
        groups: int,
        rule: Rule,
        *,
        transposed: bool,
        blocks: bool,
        input_nonnegative: bool,
        supported: bool,
        clamp: tuple[float, float] | None,
        low: NDArray[np.float32] | None,
        high: NDArray[np.float32] | None,
        channels_first: bool,
    ) -> int: ...
    def pool(
        self,
        kind: str,
        input: int,
        from_image: _Extent,
        to_image: _Extent,
        *,
        kernel: _Triple,
        stride: _Triple,
        padding: _Sides,
        dilation: _Triple,
        ceil_mode: bool,
        adaptive: bool,
        count_include_pad: bool,
        divisor: int,
        epsilon: float | None,
        blocks: bool,
    ) -> int: ...
    def resample(
        self,
        input: int,
        index: NDArray[np.int32],
        weight: NDArray[np.float32],
        to_image: _Extent,
        epsilon: float | None,
        blocks: bool,
    ) -> int: ...
    def add(
        self, inputs: Sequence[int], epsilon: float | None, clamp: bool, blocks: bool
    ) -> int: ...
    def mul(self, a: int, b: int, shares: tuple[float, float] | None, blocks: bool) -> int: ...
    def maximum(self, inputs: Sequence[int], blocks: bool) -> int: ...
    def concat(
        self,
        inputs: Sequence[int],
        outer: int,
        to_image: _Extent,
        channels_first: bool,
        blocks: bool,
    ) -> int: ...
    def batch_norm(
        self,
        input: int,
        scale: NDArray[np.float32],
        shift: NDArray[np.float32],
        epsilon: float | None,
        passes: bool,
        blocks: bool,
    ) -> int: ...
    def layer_norm(
        self,
        input: int,
        width: int,
        weight: NDArray[np.float32] | None,
        bias: NDArray[np.float32] | None,
        variance_epsilon: float,
        centred: bool,
        epsilon: float | None,
        to_image: _Extent,
        *,
        channels_first: bool,
        blocks: bool,
    ) -> int: ...
    def softmax(
        self,
        input: int,
        width: int,
        rule: str,
        to_image: _Extent,
        *,
        channels_first: bool,
        blocks: bool,
    ) -> int: ...
    def mat_mul(
        self,
        a: int,
        b: int,
        count: int,
        sides: _Triple,
        turned: bool,
        shares: tuple[float, float] | None,
        epsilon: float,
        to_image: _Extent,
        *,
        channels_first: bool,
        blocks: bool,
    ) -> int: ...
    def local_response_norm(
        self,
        input: int,
        within_channel: bool,
        size: int,
        alpha: float,
        beta: float,
        k: float,
        rule: str,
        blocks: bool,
    ) -> int: ...
    def activation(
        self, input: int, function: str, parameter: float, rule: str, blocks: bool
    ) -> int: ...
    def clip(
        self, input: int, low: float, high: float, rule: str, clamped: bool, blocks: bool
    ) -> int: ...
    def prelu(self, input: int, slope: NDArray[np.float32], rule: str, blocks: bool) -> int: ...
    def embedding(self, input: int, weight: NDArray[np.float32], blocks: bool) -> int: ...
    def constant(self, value: NDArray[np.float32], image: _Extent, channels_first: bool) -> int: ...
    def move(
        self,
        input: int,
        index: NDArray[np.int32],
        value: float,
        to_image: _Extent,
        channels_first: bool,
        blocks: bool,
    ) -> int: ...
    def view(self, input: int, to_image: _Extent, *, channels_first: bool, blocks: bool) -> int: ...
    def finish(self, output: int) -> None: ...
    def run(
        self,
        inputs: Sequence[_Floats],
        scores: _Floats,
        *,
        initial: str = "value",
        argmax: bool = True,
        targets: NDArray[np.int64] | None = None,
        mask: NDArray[np.uint8] | None = None,
        given: _Floats | None = None,
        relevance: Sequence[_Floats] | None = None,
        absorbed: NDArray[np.float64] | None = None,
        totals: NDArray[np.float64] | None = None,
        seconds: NDArray[np.float64] | None = None,
        copies: Sequence[tuple[int, bool, _Floats]] = [],
        stream: int = 0,
    ) -> Any: ...
