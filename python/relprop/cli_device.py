"""The options that say where to compute, and how exactly."""

from __future__ import annotations

from typing import Annotated, Any, get_args

import typer

from relprop.cli_model import one_of
from relprop.devices import Precision, gpu_of

_ABOUT: dict[str, Any] = {
    "metavar": "cpu|cuda|cuda:N",
    "envvar": "RELPROP_DEVICE",
    "help": "Where to compute: on the CPU, or on the first or another GPU.",
}


def known_device(device: str) -> str:
    """Check that a device is there."""
    try:
        gpu_of(device)
    except (ValueError, RuntimeError) as error:
        raise typer.BadParameter(str(error), param_hint="--device") from None
    return device


Device = Annotated[
    str,
    typer.Option("--device", callback=known_device, **_ABOUT),
]
DeviceAnywhere = Annotated[str, typer.Option("--device", **_ABOUT)]
"""One that need not be of this machine."""

ProductPrecision = Annotated[
    str,
    typer.Option(
        "--precision",
        metavar="|".join(get_args(Precision)),
        callback=one_of(*get_args(Precision)),
        help="How exactly a GPU computes products; tf32 and bf16 are faster.",
    ),
]
