"""The options that say where to compute, and how exactly."""

from __future__ import annotations

from typing import Annotated, get_args

import typer

from relprop.cli_model import one_of
from relprop.devices import Precision, gpu_of


def _known(device: str) -> str:
    try:
        gpu_of(device)
    except (ValueError, RuntimeError) as error:
        raise typer.BadParameter(str(error)) from None
    return device


Device = Annotated[
    str,
    typer.Option(
        metavar="cpu|cuda|cuda:N",
        envvar="RELPROP_DEVICE",
        callback=_known,
        help="Where to compute: on the CPU, or on the first or another GPU.",
    ),
]
ProductPrecision = Annotated[
    str,
    typer.Option(
        "--precision",
        metavar="|".join(get_args(Precision)),
        callback=one_of(*get_args(Precision)),
        help="How exactly a GPU computes products; tf32 and bf16 are faster.",
    ),
]
