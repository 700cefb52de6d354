"""The options that say which model a command is about, and how photos become its input."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

from relprop.cli_summary import literal
from relprop.model import Model
from relprop.preprocessing import Preprocessing

_OWN_MODEL = "For an ONNX or Caffe file, or package.module:callable"


def one_of(*choices: str) -> Callable[[str | None], str | None]:
    """Make a check of an option's value, where it is given."""

    def check(value: str | None) -> str | None:
        if value is not None and value not in choices:
            raise typer.BadParameter(f"{value!r} is not one of {', '.join(choices)}.")
        return value

    return check


ModelName = Annotated[
    str,
    typer.Argument(
        metavar="MODEL",
        help="A built-in name (efficientnet-lite0), a file (net.relprop, net.onnx, net.prototxt), "
        "or package.module:callable that returns a torch module.",
    ),
]
OutputName = Annotated[
    str | None,
    typer.Option(
        metavar="NAME",
        help="Which output, of a model that has several; [bold]relprop inspect[/bold] lists them.",
    ),
]
Shape = Annotated[
    str | None,
    typer.Option(
        metavar="C,H,W",
        help="Shape of one input, without the batch axis, where the model does not tell.",
        rich_help_panel=_OWN_MODEL,
    ),
]
Weights = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE",
        help="The caffemodel that belongs to a MODEL given as a prototxt.",
        rich_help_panel=_OWN_MODEL,
    ),
]
Size = Annotated[
    str | None,
    typer.Option(metavar="H,W", help="Height and width of the input.", rich_help_panel=_OWN_MODEL),
]
Mean = Annotated[
    str | None,
    typer.Option(
        metavar="R,G,B",
        help="What is subtracted from pixels (0 to 255), in the network's channel order.",
        rich_help_panel=_OWN_MODEL,
    ),
]
Std = Annotated[
    str | None,
    typer.Option(
        metavar="R,G,B", help="What they are divided by then.", rich_help_panel=_OWN_MODEL
    ),
]
Resize = Annotated[
    int | None,
    typer.Option(
        metavar="PIXELS",
        help="Scale the short side to this and cut out the centre, instead of scaling the "
        "whole photo to the input's size.",
        rich_help_panel=_OWN_MODEL,
    ),
]
Interpolation = Annotated[
    str | None,
    typer.Option(
        metavar="bilinear|bicubic",
        callback=one_of("bilinear", "bicubic"),
        help="How photos are scaled.",
        show_default="bilinear",
        rich_help_panel=_OWN_MODEL,
    ),
]
ChannelOrder = Annotated[
    str | None,
    typer.Option(
        metavar="rgb|bgr|grey",
        callback=one_of("rgb", "bgr", "grey"),
        help="The network's channels.",
        show_default="rgb",
        rich_help_panel=_OWN_MODEL,
    ),
]
Classes = Annotated[
    Path | None,
    typer.Option(metavar="FILE", help="Class names, one a line.", rich_help_panel=_OWN_MODEL),
]


def load_model(
    name: str,
    preprocessing: Preprocessing | None = None,
    classes: Path | None = None,
    weights: Path | None = None,
    *,
    shape: tuple[int, ...] | None = None,
    wanted: str = "--size, --mean and --std, as it was trained",
) -> Model:
    """Load the model; whatever a callable of the user's raises is said in words.

    ``wanted`` names the options that tell the input's shape.
    """
    from relprop.loading import load

    if weights is not None and not Path(name).is_file():
        raise typer.BadParameter(
            f"goes with a prototxt, and {name} is no file.", param_hint="--weights"
        )
    names = _read_names(classes) if classes else ()
    source = name if weights is None else (name, weights)
    try:
        return load(source, shape, preprocessing=preprocessing, classes=names)
    except (ValueError, TypeError, OSError, ImportError, RuntimeError) as error:
        if preprocessing is None and str(error).startswith("example is needed"):
            raise ValueError(f"{name}: give {wanted}.") from None
        raise
    except Exception as error:  # a callable of the user's may raise anything
        raise RuntimeError(f"{name} failed with {type(error).__name__}: {error}") from error


def require_preprocessing(model: Model) -> Preprocessing:
    """Return how photos become a model's input; refuse one that does not say."""
    if model.preprocessing is None:
        raise typer.BadParameter(
            "is unknown for this model: give --size, --mean and --std.", param_hint="preprocessing"
        )
    return model.preprocessing


def class_count(model: Model, output: str | None) -> int:
    """Count the classes that an output tells apart, in a model that takes one photo."""
    try:
        graph = model.graph.explaining(output)
    except ValueError as error:
        raise typer.BadParameter(literal(str(error)), param_hint="--output-name") from None
    shape = graph[graph.output].shape
    beyond = ""
    if len(graph.inputs) != 1:
        beyond = f"has several inputs ({', '.join(node.name for node in graph.inputs)})"
    elif len(shape) != 1:
        beyond = f"has an output of shape {shape}, no vector of classes"
    if beyond:
        raise typer.BadParameter(
            literal(f"{model.name} {beyond}: explain it in Python, with relprop.Explainer."),
            param_hint="MODEL",
        )
    return shape[0]


def _read_names(path: Path) -> tuple[str, ...]:
    try:
        return tuple(path.read_text(encoding="utf-8-sig").splitlines())  # Windows marks it so
    except UnicodeDecodeError as error:
        raise ValueError(f"--classes {path}: not a text in UTF-8: {error}") from None


def read_preprocessing(
    size: str | None,
    mean: str | None,
    std: str | None,
    resize: int | None,
    interpolation: Any,  # checked with the options
    channel_order: Any,
) -> Preprocessing | None:
    """Make the preprocessing that the options describe, None where they say nothing."""
    needed = {"--size": size, "--mean": mean, "--std": std}
    given = (*needed.values(), resize, interpolation, channel_order)
    if all(value is None for value in given):
        return None
    missing = [option for option, text in needed.items() if text is None]
    if missing:
        raise typer.BadParameter(f"needs {', '.join(missing)} as well.", param_hint="preprocessing")
    sides = _numbers("--size", size, count=2)
    if not all(side.is_integer() for side in sides):
        raise typer.BadParameter(f"{size!r} is not 2 whole numbers.", param_hint="--size")
    height, width = map(int, sides)
    channels = 1 if channel_order == "grey" else 3
    return Preprocessing(
        size=(height, width),
        mean=_numbers("--mean", mean, count=channels),
        std=_numbers("--std", std, count=channels),
        resize=resize,
        interpolation=interpolation or "bilinear",
        channel_order=channel_order or "rgb",
    )


def read_shape(text: str | None) -> tuple[int, ...] | None:
    """Read the shape of one input."""
    if text is None:
        return None
    parts = text.split(",")
    if not all(part.isascii() and part.isdecimal() and int(part) > 0 for part in parts):
        raise typer.BadParameter(f"{text!r} is no shape such as 3,224,224.", param_hint="--shape")
    return tuple(map(int, parts))


def _numbers(option: str, text: str | None, count: int) -> tuple[float, ...]:
    """Read numbers between commas; a single one stands for all."""
    try:
        values = tuple(float(part) for part in (text or "").split(","))
    except ValueError:
        values = ()
    if len(values) not in (1, count):
        raise typer.BadParameter(f"{text!r} is not {count} numbers.", param_hint=option)
    return values * count if len(values) == 1 else values
