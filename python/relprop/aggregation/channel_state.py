"""ChannelState: the relevance of each input channel, by class."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from numpy.typing import NDArray

from relprop.aggregation.moments import Arrays, Moments
from relprop.aggregation.records import Record
from relprop.aggregation.states import Row, State, number


class ChannelState(State):
    """Count, mean and deviation of each channel's sum of relevance, by true class."""

    kind = "channels"

    def __init__(self, channels: int) -> None:
        if channels < 1:
            raise ValueError(f"channels must be >= 1, not {channels}.")
        super().__init__(channels=channels)
        self._moments = Moments((channels,))

    def update(self, record: Record) -> None:
        self._moments.add((record.label,), record.channel_sums)

    def result(self) -> list[Row]:
        """A row per true class and channel."""
        rows: list[Row] = []
        for group in self._moments.groups:
            over = self._moments.over([group])
            for channel, (mean, deviation) in enumerate(zip(over.mean, over.deviation)):
                row = {"label": group[0], "channel": channel, "count": over.count}
                rows.append({**row, "mean": number(mean), "std": number(deviation)})
        return rows

    def write(self, arrays: Arrays) -> Any:
        self._moments.write(arrays, "relevance")

    def read(self, arrays: Mapping[str, NDArray[Any]], content: Any) -> None:
        self._moments.read(arrays, "relevance")

    def _join(self, other: ChannelState) -> None:
        self._moments.merge(other._moments)
