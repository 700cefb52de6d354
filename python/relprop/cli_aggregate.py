"""``relprop aggregate``: a dataset in, what the model looks at in all of it out."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table

from relprop.cli_dataset import ClassesMap, DatasetName, Limit, MostRejected, Split, class_map
from relprop.cli_device import DeviceAnywhere, ProductPrecision, known_device
from relprop.cli_model import (
    ChannelOrder,
    Classes,
    Interpolation,
    Mean,
    ModelName,
    OutputName,
    Resize,
    Size,
    Std,
    Weights,
    class_count,
    load_model,
    one_of,
    read_preprocessing,
    require_preprocessing,
)
from relprop.cli_rules import Overrides, Parameters, overrides, preset_parameters
from relprop.cli_run import SOME_REJECTED, resumable
from relprop.cli_summary import plain_console

TARGETS = ("argmax", "label")
KINDS = ("zarr", "virelay")
"""As in relprop.aggregation, which other commands need not import."""

_RUN = "The run"
_CLUSTER = "Beyond one process"


def aggregate(
    model: ModelName,
    dataset: DatasetName,
    regions: Annotated[
        list[str] | None,
        typer.Option(
            "--regions",
            metavar="REGIONS",
            help="thirds, grid:3x4, boxes, boxes:any, boxes:CLASS, masks, ...; repeat for several.",
            show_default="thirds",
        ),
    ] = None,
    target: Annotated[
        str,
        typer.Option(
            "--target",
            "-t",
            metavar="|".join(TARGETS),
            callback=one_of(*TARGETS),
            help="Explain the predicted class, or the true one.",
        ),
    ] = "argmax",
    composite: Annotated[
        str,
        typer.Option(
            "--composite",
            "-c",
            metavar="PRESET",
            help="Which rules, see [bold]relprop presets[/bold].",
        ),
    ] = "epsilon_plus_flat",
    param: Parameters = None,
    rule: Overrides = None,
    output_name: OutputName = None,
    output: Annotated[
        Path, typer.Option("--output", "-o", help="Folder for the results and checkpoints.")
    ] = Path("aggregated"),
    force: Annotated[
        bool, typer.Option("--force", help="Begin anew, overwrite earlier results.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON for machines.")] = False,
    split: Split = None,
    classes_map: ClassesMap = None,
    limit: Limit = None,
    most_rejected: MostRejected = 0.05,
    device: DeviceAnywhere = "cpu",
    precision: ProductPrecision = "float32",
    batch: Annotated[
        int, typer.Option("--batch", "-b", min=1, help="Images at once.", rich_help_panel=_RUN)
    ] = 16,
    workers: Annotated[
        int, typer.Option(min=1, help="Threads that decode images.", rich_help_panel=_RUN)
    ] = 2,
    checkpoint_seconds: Annotated[
        float,
        typer.Option(min=0.0, help="How often a checkpoint is written.", rich_help_panel=_RUN),
    ] = 60.0,
    keep_maps: Annotated[
        str | None,
        typer.Option(
            metavar="|".join(KINDS),
            help="Keep every relevance map, too: as Zarr arrays, or as HDF5 files for ViRelAy.",
            rich_help_panel=_RUN,
        ),
    ] = None,
    maps_dtype: Annotated[
        str,
        typer.Option(
            metavar="float32|float16",
            callback=one_of("float32", "float16"),
            help="The numbers in kept maps; float16 for Zarr only.",
            rich_help_panel=_RUN,
        ),
    ] = "float32",
    ray: Annotated[
        str | None,
        typer.Option(
            metavar="local|ADDRESS",
            help="Share the work by Ray: with a cluster on this machine, or with another one.",
            rich_help_panel=_CLUSTER,
        ),
    ] = None,
    ray_workers: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Processes that explain.",
            show_default="one for each GPU or, on CPUs, each machine",
            rich_help_panel=_CLUSTER,
        ),
    ] = None,
    ray_shards: Annotated[
        int,
        typer.Option(
            min=1,
            help="Parts of the dataset, which workers take one after the other.",
            rich_help_panel=_CLUSTER,
        ),
    ] = 32,
    weights: Weights = None,
    size: Size = None,
    mean: Mean = None,
    std: Std = None,
    resize: Resize = None,
    interpolation: Interpolation = None,
    channel_order: ChannelOrder = None,
    classes: Classes = None,
) -> None:
    """Add up what a model looks at in all images of a dataset.

    For each class the folder gets how much relevance lies in each region (CSV), the average
    heatmap (PNG, NPZ), which images are the extremes, and how well relevance is conserved; and
    all of it as JSON. Images that cannot be used are listed in rejected.csv. A run that was
    stopped, by Ctrl-C or otherwise, goes on where the same command is given again.

    [bold]Exit codes[/bold]  0: done. 1: done, but some images were rejected. 2: wrong use.
    3: stopped, because too many were rejected or nothing could be done. 130: interrupted.

    [bold]Examples[/bold]

    relprop aggregate efficientnet-lite0 photos -o thirds

    relprop aggregate net.onnx VOCdevkit/VOC2012 --split val --regions boxes --target label
    --classes-map voc.json --size 224 --mean 127 --std 128
    """
    _check(device, keep_maps, maps_dtype, ray)
    values = preset_parameters([composite], param or [])[composite]
    preprocessing = read_preprocessing(size, mean, std, resize, interpolation, channel_order)
    loaded = load_model(model, preprocessing, classes, weights)
    require_preprocessing(loaded)
    outputs = class_count(loaded, output_name)
    own_rules = overrides(rule or [], loaded.graph)

    from relprop.datasets import open_dataset
    from relprop.explain import Explainer

    opened = open_dataset(dataset, split=split)
    make = partial(Explainer, loaded, composite, output=output_name, rules=own_rules, **values)
    console = plain_console(stderr=True)
    command = ["relprop", *sys.argv[1:]]
    own: dict[str, Any] = {"address": ray, "actors": ray_workers, "shards": ray_shards}
    if ray is None:
        own = {
            "checkpoint_seconds": checkpoint_seconds,
            "keep_maps": keep_maps,
            "maps_dtype": maps_dtype,
        }
    with resumable(command, console):
        result = _run(
            make,
            ray,
            own,
            {"device": device, "precision": precision},
            dataset=opened,
            regions=_ways(regions or ["thirds"], opened.classes),
            folder=output,
            target=target,
            class_map=class_map(classes_map, loaded, outputs),
            batch=batch,
            workers=workers,
            limit=limit,
            most_rejected=most_rejected,
            force=force,
            command=command,
            progress=console.is_terminal,
        )
    if as_json:
        typer.echo(json.dumps(_summary(result, output), indent=2, allow_nan=False))
    else:
        _show(result, output)
    if result.rejected:
        raise typer.Exit(SOME_REJECTED)


def _check(device: str, keep_maps: str | None, maps_dtype: str, ray: str | None) -> None:
    """Refuse options that do not go together."""
    if ray is None:
        known_device(device)
    if keep_maps not in (None, *KINDS):
        raise typer.BadParameter(
            f"{keep_maps!r} is not one of {', '.join(KINDS)}.", param_hint="--keep-maps"
        )
    if keep_maps is not None and ray is not None:
        raise typer.BadParameter("goes without --ray.", param_hint="--keep-maps")
    if keep_maps == "virelay" and maps_dtype != "float32":
        raise typer.BadParameter("ViRelAy's files hold float32.", param_hint="--maps-dtype")


def _ways(words: list[str], classes: tuple[str, ...]) -> dict[str, Any]:
    """The regions that words name."""
    from relprop.aggregation.regions import regions_of

    try:
        return {word: regions_of(word, classes) for word in words}
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint="--regions") from None


def _run(
    make: Callable[..., Any],
    ray: str | None,
    own: dict[str, Any],
    arithmetic: dict[str, Any],
    **options: Any,
) -> Any:
    """Run here or on a cluster; ``own`` are the options that only one of them has."""
    if ray is None:
        from relprop.aggregation.run import aggregate

        return aggregate(make(**arithmetic), **own, **options)
    from relprop.aggregation.ray import aggregate_on_ray

    return aggregate_on_ray(make, **arithmetic, **own, **options)


def _summary(result: Any, folder: Path) -> dict[str, Any]:
    tables = result.state.tables()
    return {
        "folder": str(folder),
        "items": result.items,
        "used": result.state.count,
        "rejected": len(result.rejected),
        "finished_before": result.before,
        **{name: tables[name] for name in ("classes", "regions", "conservation")},
    }


SHOWN = 30
"""Rows of the table on the terminal."""


def _show(result: Any, folder: Path) -> None:
    console = plain_console()
    tables = result.state.tables()
    table = Table(box=None, pad_edge=False)
    columns = {
        "cut": "regions",
        "class": "class",
        "region": "region",
        "count": "images",
        "relevance_mean": "relevance",
        "fraction_mean": "of f(x)",
        "share_mean": "share",
    }
    for key, heading in columns.items():
        table.add_column(heading, justify="left" if key in ("cut", "class", "region") else "right")
    for row in tables["regions"][:SHOWN]:
        table.add_row(*(_text(row[key]) for key in columns))
    console.print(table)
    if len(tables["regions"]) > SHOWN:
        console.print(f"and {len(tables['regions']) - SHOWN} rows more in regions.csv", style="dim")
    worst: dict[str, float] = {}
    for row in tables["conservation"]:
        if row["count"]:
            level = row["level"]
            worst[level] = max(worst.get(level, 0.0), row["largest_error"])
    errors = ", ".join(f"{level} {error:.0e}" for level, error in worst.items())
    console.print(f"\nlargest errors of conservation: {errors}", soft_wrap=True)
    before = "finished before: " if result.before else ""
    rejected = f", {len(result.rejected)} rejected (rejected.csv)" if result.rejected else ""
    console.print(
        f"{before}{result.state.count} of {result.items} images{rejected}; results in {folder}",
        soft_wrap=True,
    )


def _text(value: Any) -> str:
    if value is None:
        return "-"
    return f"{value:.4g}" if isinstance(value, float) else str(value)
