"""``relprop evaluate``: methods and a dataset in, which explains the model better out."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from relprop.cli_dataset import ClassesMap, DatasetName, Limit, MostRejected, Split, class_map
from relprop.cli_device import Device, ProductPrecision
from relprop.cli_methods import THE_PAPERS, Methods, listed, methods_of
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
from relprop.cli_rules import Parameters
from relprop.cli_run import SOME_REJECTED, resumable
from relprop.cli_summary import plain_console

TARGETS = ("argmax", "label")
SCORES = ("logit", "probability")
BY = ("sum", "mean")
"""As in relprop.evaluation, which other commands need not import."""

ORDERS = "morf,random"

_PERTURBING = "Perturbing"
_RUN = "The run"


def evaluate(
    model: ModelName,
    dataset: DatasetName,
    methods: Methods = None,
    param: Parameters = None,
    metrics: Annotated[
        list[str] | None,
        typer.Option(
            "--metrics",
            metavar="METRIC,...",
            help="Figures of the maps: gini, entropy, and where there are boxes or masks "
            "pointing_game, pointing_game:PIXELS, relevance_mass, relevance_rank, top_k:K.",
            show_default="none",
        ),
    ] = None,
    target: Annotated[
        str,
        typer.Option(
            "--target",
            "-t",
            metavar="|".join(TARGETS),
            callback=one_of(*TARGETS),
            help="Judge the predicted class, or the true one.",
        ),
    ] = "argmax",
    score: Annotated[
        str,
        typer.Option(
            "--score",
            metavar="|".join(SCORES),
            callback=one_of(*SCORES),
            help="What of the class is followed.",
        ),
    ] = "logit",
    seed: Annotated[int, typer.Option(min=0, help="Of all random draws.")] = 0,
    output_name: OutputName = None,
    output: Annotated[
        Path, typer.Option("--output", "-o", help="Folder for the results and checkpoints.")
    ] = Path("evaluated"),
    force: Annotated[
        bool, typer.Option("--force", help="Begin anew, overwrite earlier results.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON for machines.")] = False,
    order: Annotated[
        list[str] | None,
        typer.Option(
            "--order",
            metavar="ORDER,...",
            help="Of morf (most relevant first), lerf (least relevant first) and random, which is "
            "the same for all methods.",
            show_default=ORDERS,
            rich_help_panel=_PERTURBING,
        ),
    ] = None,
    perturbation: Annotated[
        list[str] | None,
        typer.Option(
            "--perturbation",
            metavar="WORD,...",
            help="What is put in a region's place: uniform, uniform:LOW:HIGH, constant:mean, "
            "constant:black, constant:white, constant:VALUE, blur:SIGMA, inpainting, "
            "dataset_mean:FILE.npy.",
            show_default="uniform",
            rich_help_panel=_PERTURBING,
        ),
    ] = None,
    region: Annotated[
        str,
        typer.Option(
            "--region",
            metavar="SIDE|pixels|superpixels[:N]|masks",
            help="How images are cut: squares of so many pixels, single pixels, superpixels, or "
            "the masks of the dataset.",
            rich_help_panel=_PERTURBING,
        ),
    ] = "9",
    by: Annotated[
        str,
        typer.Option(
            "--by",
            metavar="|".join(BY),
            callback=one_of(*BY),
            help="Rank regions by the sum or the mean of their relevance.",
            rich_help_panel=_PERTURBING,
        ),
    ] = "sum",
    steps: Annotated[
        int,
        typer.Option(
            min=1, help="Regions that are taken of each image.", rich_help_panel=_PERTURBING
        ),
    ] = 100,
    repeats: Annotated[
        int,
        typer.Option(
            min=1, help="How often random draws are repeated.", rich_help_panel=_PERTURBING
        ),
    ] = 10,
    level: Annotated[
        float,
        typer.Option(
            help="The share of bootstrap replicates that intervals hold.",
            rich_help_panel=_PERTURBING,
        ),
    ] = 0.95,
    resamples: Annotated[
        int,
        typer.Option(min=1, help="How many replicates are drawn.", rich_help_panel=_PERTURBING),
    ] = 10_000,
    split: Split = None,
    classes_map: ClassesMap = None,
    limit: Limit = None,
    most_rejected: MostRejected = 0.05,
    device: Device = "cpu",
    precision: ProductPrecision = "float32",
    batch: Annotated[
        int,
        typer.Option("--batch", "-b", min=1, help="Forward passes at once.", rich_help_panel=_RUN),
    ] = 32,
    workers: Annotated[
        int, typer.Option(min=1, help="Threads that decode images.", rich_help_panel=_RUN)
    ] = 2,
    checkpoint_seconds: Annotated[
        float,
        typer.Option(min=0.0, help="How often a checkpoint is written.", rich_help_panel=_RUN),
    ] = 60.0,
    weights: Weights = None,
    size: Size = None,
    mean: Mean = None,
    std: Std = None,
    resize: Resize = None,
    interpolation: Interpolation = None,
    channel_order: ChannelOrder = None,
    classes: Classes = None,
) -> None:
    """Compare methods by how fast the score falls as regions go in their order.

    The defaults are the protocol of Samek et al. 2017: 100 squares of 9 pixels become uniform
    noise, 10 times over. The area over the curve (AOPC) is large where a method finds what the
    model looks at. The folder gets means with bootstrap intervals and the differences of methods
    with p-values (CSV), a row for every image (Parquet), plots (PNG, SVG), and all but single
    images as JSON. A run that was stopped, by Ctrl-C or otherwise, goes on where the same command
    is given again; the same command and seed give the same bytes.

    [bold]Exit codes[/bold]  0: done. 1: done, but some images were rejected. 2: wrong use.
    3: stopped, because too many were rejected or nothing could be done. 130: interrupted.

    [bold]Examples[/bold]

    relprop evaluate efficientnet-lite0 photos --limit 25 -o compared

    relprop evaluate net.onnx photos --methods alpha2_beta1,sensitivity:norm=max,random
    --order morf,lerf,random --perturbation uniform,constant:black,blur:8
    --size 224 --mean 127 --std 128

    relprop evaluate net.relprop VOCdevkit/VOC2012 --split val --classes-map voc.json -t label
    --metrics pointing_game,relevance_mass --region superpixels:200 --steps 50
    """
    options: dict[str, Any] = {
        "orders": listed(order or [ORDERS]),
        "perturbations": listed(perturbation or ["uniform"]),
        "regions": region,
        "metrics": listed(metrics or []),
        "by": by,
        "steps": steps,
        "repeats": repeats,
        "score": score,
        "target": target,
        "seed": seed,
        "level": level,
        "resamples": resamples,
    }
    _check(options)
    presets = methods_of(methods or [THE_PAPERS], param or [])
    preprocessing = read_preprocessing(size, mean, std, resize, interpolation, channel_order)
    loaded = load_model(model, preprocessing, classes, weights)
    require_preprocessing(loaded)
    outputs = class_count(loaded, output_name)

    from relprop.datasets import open_dataset
    from relprop.evaluation.run import evaluate as run
    from relprop.explain import Explainer

    opened = open_dataset(dataset, split=split)
    explainers = {
        word: Explainer(
            loaded,
            preset,
            output=output_name,
            device=device,
            precision=precision,  # type: ignore[arg-type] # checked with the options
            ledger=False,
            **values,
        )
        for word, (preset, values) in presets.items()
    }
    console = plain_console(stderr=True)
    command = ["relprop", *sys.argv[1:]]
    with resumable(command, console):
        result = run(
            explainers,
            opened,
            folder=output,
            class_map=class_map(classes_map, loaded, outputs),
            batch=batch,
            workers=workers,
            limit=limit,
            most_rejected=most_rejected,
            checkpoint_seconds=checkpoint_seconds,
            force=force,
            command=command,
            progress=console.is_terminal,
            **options,
        )
    if as_json:
        typer.echo(json.dumps(_summary(result, output), indent=2, allow_nan=False))
    else:
        _show(result, output)
    if result.rejected:
        raise typer.Exit(SOME_REJECTED)


def _check(options: dict[str, Any]) -> None:
    """Refuse settings before a model is loaded."""
    from relprop.evaluation.settings import Settings

    try:
        Settings.of(**options)
    except ValueError as error:
        raise typer.BadParameter(str(error)) from None


def _summary(result: Any, folder: Path) -> dict[str, Any]:
    return {
        "folder": str(folder),
        "items": result.items,
        "used": result.used,
        "rejected": len(result.rejected),
        "finished_before": result.before,
        **result.tables,
    }


def _show(result: Any, folder: Path) -> None:
    console = plain_console()
    rows, tables = ("order", "method"), result.tables
    console.print("AOPC: mean drop of the score, with its interval", style="bold")
    _print(console, tables["aopc"], rows, "perturbation", "aopc")
    if tables["abpc"]:
        console.print("\nABPC: most relevant first less least relevant first", style="bold")
        _print(console, tables["abpc"], ("method",), "perturbation", "abpc")
    if tables["metrics"]:
        console.print("\nmetrics of the maps", style="bold")
        _print(console, tables["metrics"], ("method",), "metric", "mean")
        for metric, undefined in _undefined(tables["metrics"]).items():
            console.print(f"{metric}: not defined for up to {undefined} images", style="dim")
    before = "finished before: " if result.before else ""
    rejected = f", {len(result.rejected)} rejected (rejected.csv)" if result.rejected else ""
    console.print(
        f"\n{before}{result.used} of {result.items} images{rejected}; results in {folder}: "
        "result.json, aopc.csv, differences.csv, curves.parquet, curves-*.png, aopc.png, ...",
        soft_wrap=True,
    )


def _print(
    console: Console, rows: list[dict[str, Any]], names: tuple[str, ...], across: str, value: str
) -> None:
    """Print a line for each combination of ``names``, a column for each value of ``across``.

    Columns for which there is no room go into further tables below.
    """
    lines = list(dict.fromkeys(tuple(row[name] for name in names) for row in rows))
    cells: dict[str, list[str]] = {}
    for row in rows:  # the lines are in one order in every column
        cells.setdefault(row[across], []).append(_cell(row, value))
    room = console.width - sum(max(map(len, column)) + 2 for column in zip(names, *lines))
    together: list[list[str]] = [[]]
    left = room
    for column, own in cells.items():
        left -= max(map(len, (column, *own))) + 2
        if left < 0 and together[-1]:
            together.append([])
            left = room - max(map(len, (column, *own))) - 2
        together[-1].append(column)
    for columns in together:
        table = Table(box=None, pad_edge=False)
        for name in names:
            table.add_column(name, no_wrap=True)
        for column in columns:
            table.add_column(column, justify="right", no_wrap=True)
        for i, line in enumerate(lines):
            table.add_row(*line, *(cells[column][i] for column in columns))
        console.print(table)


def _cell(row: dict[str, Any], value: str) -> str:
    if row[value] is None:
        return "-"
    if row["low"] is None:
        return f"{row[value]:.3g}"
    low, high = row["low"], row["high"]
    return f"{row[value]:.3g} [{low:.3g}, {high:.3g}]"


def _undefined(rows: list[dict[str, Any]]) -> dict[str, int]:
    """For each metric that is not defined somewhere, of how many images at most."""
    found: dict[str, int] = {}
    for row in rows:
        if row["undefined"]:
            found[row["metric"]] = max(found.get(row["metric"], 0), row["undefined"])
    return found
