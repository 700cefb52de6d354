"""The options that say over which dataset a command runs, and what its classes are in the model."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from relprop.model import Model

_DATASET = "The dataset"

DatasetName = Annotated[
    str,
    typer.Argument(
        metavar="DATASET",
        help="A folder of class folders, of VOC or COCO, a list (.csv, .txt), tar shards; a "
        "path or an address that fsspec knows.",
    ),
]
Split = Annotated[
    str | None,
    typer.Option(metavar="NAME", help="A part of it: train, val, ...", rich_help_panel=_DATASET),
]
ClassesMap = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE",
        help="Of which classes of the model, by name or index, each class of the dataset is "
        'made: JSON ({"dog": ["beagle", 235]}) or CSV (dog,beagle,235).',
        rich_help_panel=_DATASET,
    ),
]
Limit = Annotated[
    int | None,
    typer.Option(min=1, help="Read this many items only.", rich_help_panel=_DATASET),
]
MostRejected = Annotated[
    float,
    typer.Option(
        min=0.0,
        max=1.0,
        help="Stop where a larger share of the items cannot be used, from the 100th item on.",
        rich_help_panel=_DATASET,
    ),
]


def class_map(path: Path | None, model: Model, outputs: int) -> dict[str, tuple[int, ...]] | None:
    """Read the map of classes in a file, if there is one."""
    from relprop.runs.classes import read_class_map

    try:
        return None if path is None else read_class_map(path, model, outputs)
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint="--classes-map") from None
