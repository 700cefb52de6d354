"""``relprop save``: a model of any kind in, one file that needs no framework out."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from relprop.cli_model import (
    ChannelOrder,
    Classes,
    Interpolation,
    Mean,
    ModelName,
    Resize,
    Shape,
    Size,
    Std,
    Weights,
    load_model,
    read_preprocessing,
    read_shape,
)
from relprop.cli_summary import plain_console
from relprop.costs import total_parameters


def save(
    model: ModelName,
    output: Annotated[
        Path, typer.Option("--output", "-o", metavar="FILE", help="A name that ends in .relprop.")
    ],
    force: Annotated[bool, typer.Option("--force", help="Overwrite an existing file.")] = False,
    weights: Weights = None,
    shape: Shape = None,
    size: Size = None,
    mean: Mean = None,
    std: Std = None,
    resize: Resize = None,
    interpolation: Interpolation = None,
    channel_order: ChannelOrder = None,
    classes: Classes = None,
) -> None:
    """Save a model, its preprocessing and its class names to one file.

    The file is a model for every command, wherever relprop is installed: no torch is needed.

    [bold]Exit codes[/bold]  0: the file is written. 2: wrong use. 3: nothing is written.

    [bold]Examples[/bold]

    relprop save efficientnet-lite0 -o lite0.relprop

    relprop save my_package.nets:make_net -o net.relprop --size 224 --mean 127 --std 128
    """
    if output.exists() and not force:  # before the work
        raise FileExistsError(f"{output} exists already; --force overwrites.")
    preprocessing = read_preprocessing(size, mean, std, resize, interpolation, channel_order)
    loaded = load_model(
        model,
        preprocessing,
        classes,
        weights,
        shape=read_shape(shape),
        wanted="--size, --mean and --std, as it was trained, or --shape",
    )
    loaded.save(output, overwrite=force)
    graph = loaded.graph
    plain_console().print(
        f"{output}: {len(graph)} nodes, {total_parameters(graph):,} parameters, "
        f"{output.stat().st_size / 1e6:.1f} MB",
        soft_wrap=True,
    )
