"""What a run over a data set keeps: regions of images, and mergeable states of their relevance.

>>> regions = regions_of("thirds")
>>> aggregate = Aggregate(model.classes, regions.names, (224, 224))
>>> labels = np.stack([regions.labels(sample) for sample in samples])
>>> aggregate.update(records_of(result, keys, truths, labels, len(regions.names)))
>>> aggregate.merge(Aggregate.from_bytes(other))
>>> aggregate.tables()["regions"]
"""

from __future__ import annotations

from relprop.aggregation.aggregate import Aggregate
from relprop.aggregation.channel_state import ChannelState
from relprop.aggregation.conservation_state import ConservationState
from relprop.aggregation.context_state import ContextState, outside_inside_ratio
from relprop.aggregation.extreme_state import ExtremeState
from relprop.aggregation.map_state import MapState, on_canvas
from relprop.aggregation.moments import Summary
from relprop.aggregation.records import Record, records_of
from relprop.aggregation.region_state import RegionState
from relprop.aggregation.regions import (
    Grid,
    InsideBoxes,
    InsideMasks,
    LabelMap,
    Regions,
    Thirds,
    regions_of,
)
from relprop.aggregation.states import State
from relprop.errors import MissingAnnotation

__all__ = [
    "Aggregate",
    "ChannelState",
    "ConservationState",
    "ContextState",
    "ExtremeState",
    "Grid",
    "InsideBoxes",
    "InsideMasks",
    "LabelMap",
    "MapState",
    "MissingAnnotation",
    "Record",
    "RegionState",
    "Regions",
    "State",
    "Summary",
    "Thirds",
    "on_canvas",
    "outside_inside_ratio",
    "records_of",
    "regions_of",
]
