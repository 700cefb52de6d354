"""``relprop explain``: photos in, heatmaps and a summary out."""

from __future__ import annotations

import ast
from collections.abc import Callable, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Annotated, Any, get_args

import numpy as np
import typer
from rich.progress import track

from relprop import cli_summary, rules
from relprop.cli_output import (
    ABSORBED,
    Explanation,
    Record,
    check_folder,
    result_names,
    write_arrays,
    write_pictures,
)
from relprop.cli_summary import plain_console, show_error
from relprop.composites import PRESETS, Matcher, parameters
from relprop.graph import Graph
from relprop.heatmaps import COLOR_MAPS
from relprop.images import read_image
from relprop.model import Model
from relprop.preprocessing import Preprocessing

SOME_FAILED, ALL_FAILED = 1, 3

_OWN_MODEL = "For a model given as package.module:callable"
_PICTURES = "Pictures"


def _one_of(*choices: str) -> Callable[[str], str]:
    """Make a check of an option's value."""

    def check(value: str) -> str:
        if value not in choices:
            raise typer.BadParameter(f"{value!r} is not one of {', '.join(choices)}.")
        return value

    return check


def explain(
    model: Annotated[
        str,
        typer.Argument(
            metavar="MODEL",
            help="A built-in name (efficientnet-lite0), or package.module:callable that returns "
            "a torch module.",
        ),
    ],
    images: Annotated[
        list[Path], typer.Argument(metavar="IMAGE", help="Photos: JPEG, PNG, WEBP, TIFF, ...")
    ],
    target: Annotated[
        str,
        typer.Option("--target", "-t", help="Class to explain: its name, its index, or argmax."),
    ] = "argmax",
    composite: Annotated[
        list[str] | None,
        typer.Option(
            "--composite",
            "-c",
            metavar="PRESET",
            help="Which rules, see [bold]relprop presets[/bold]; repeat it to compare.",
            show_default="epsilon_plus_flat",
        ),
    ] = None,
    param: Annotated[
        list[str] | None,
        typer.Option(
            "--param",
            "-p",
            metavar="KEY=VALUE",
            help="Parameter of the preset, such as epsilon=1e-9 or low=-2.1,-2.0,-1.8.",
        ),
    ] = None,
    rule: Annotated[
        list[str] | None,
        typer.Option(
            "--rule",
            "-r",
            metavar="NODE=RULE",
            help="Rule for a node's name, an operator type or a layer's position, before the "
            "preset's: 0=Flat() or Conv2d=Gamma(0.5).",
        ),
    ] = None,
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder for the results.")] = Path(
        "explained"
    ),
    force: Annotated[bool, typer.Option("--force", help="Overwrite earlier results.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON for machines.")] = False,
    device: Annotated[
        str, typer.Option(metavar="cpu|cuda", callback=_one_of("cpu", "cuda"), help="Where to run.")
    ] = "cpu",
    cmap: Annotated[
        str,
        typer.Option(
            metavar="COLOURS",
            callback=_one_of(*COLOR_MAPS),
            help=f"{', '.join(COLOR_MAPS)}: symmetric around zero, the last one for "
            "colour-blind readers.",
            rich_help_panel=_PICTURES,
        ),
    ] = "blue_white_red",
    normalize: Annotated[
        str,
        typer.Option(
            metavar="image|global",
            callback=_one_of("image", "global"),
            help="The strongest colour is the largest relevance of each image, or of all.",
            rich_help_panel=_PICTURES,
        ),
    ] = "image",
    size: Annotated[
        str | None,
        typer.Option(
            metavar="H,W", help="Height and width of the input.", rich_help_panel=_OWN_MODEL
        ),
    ] = None,
    mean: Annotated[
        str | None,
        typer.Option(
            metavar="R,G,B",
            help="What is subtracted from pixels (0 to 255), in the network's channel order.",
            rich_help_panel=_OWN_MODEL,
        ),
    ] = None,
    std: Annotated[
        str | None,
        typer.Option(
            metavar="R,G,B", help="What they are divided by then.", rich_help_panel=_OWN_MODEL
        ),
    ] = None,
    resize: Annotated[
        int | None,
        typer.Option(
            metavar="PIXELS",
            help="Scale the short side to this and cut out the centre, instead of scaling the "
            "whole photo to the input's size.",
            rich_help_panel=_OWN_MODEL,
        ),
    ] = None,
    interpolation: Annotated[
        str,
        typer.Option(
            metavar="bilinear|bicubic",
            callback=_one_of("bilinear", "bicubic"),
            help="How photos are scaled.",
            rich_help_panel=_OWN_MODEL,
        ),
    ] = "bilinear",
    channel_order: Annotated[
        str,
        typer.Option(
            metavar="rgb|bgr|grey",
            callback=_one_of("rgb", "bgr", "grey"),
            help="The network's channels.",
            rich_help_panel=_OWN_MODEL,
        ),
    ] = "rgb",
    classes: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Class names, one a line.", rich_help_panel=_OWN_MODEL),
    ] = None,
) -> None:
    """Explain what a model sees in photos.

    For each image and preset, the folder gets a heatmap and an overlay (PNG) and the relevance
    itself (NPZ with relevance, scores and target); for several images or presets also a contact
    sheet. In the heatmaps one colour speaks for the class, the other against it.

    [bold]Exit codes[/bold]  0: every image is explained. 1: some are not, the others are kept.
    2: wrong use. 3: nothing could be done.

    [bold]Examples[/bold]

    relprop explain efficientnet-lite0 photo.jpg

    relprop explain efficientnet-lite0 *.jpg -t "motor scooter" -c alpha2_beta1 -c epsilon -o out
    """
    presets = list(dict.fromkeys(composite or ["epsilon_plus_flat"]))
    values = _preset_parameters(presets, param or [])
    names = result_names(images)
    preprocessing = _preprocessing(size, mean, std, resize, interpolation, channel_order)
    loaded = _load(model, preprocessing, classes)
    chosen = _target(target, loaded)
    overrides = dict(_override(text, loaded.graph) for text in rule or [])
    check_folder(output, names, presets, force)

    from relprop.explain import Explainer

    explainers = {
        preset: Explainer(loaded, preset, rules=overrides, device=device, **values[preset])
        for preset in presets
    }
    records: list[Record] = []
    failed: list[tuple[Path, str]] = []
    errors = plain_console(stderr=True)
    hidden = len(images) == 1 or not errors.is_terminal
    jobs = list(zip(images, names, strict=True))
    for image, name in track(jobs, "explaining", console=errors, transient=True, disable=hidden):
        try:
            record = _explain(image, name, loaded, explainers, chosen)
        except (ValueError, OSError, MemoryError) as error:
            failed.append((image, str(error)))
            show_error(error, errors)
            continue
        write_arrays(record, output)
        records.append(record)
    sheets = write_pictures(records, output, cmap, shared=normalize == "global")
    if as_json:
        typer.echo(cli_summary.as_json(loaded, records, sheets, failed))
    else:
        cli_summary.show(loaded, records, sheets, output)
    if failed:
        raise typer.Exit(SOME_FAILED if records else ALL_FAILED)


def _explain(
    image: Path, name: str, model: Model, explainers: dict[str, Any], target: int | str
) -> Record:
    assert model.preprocessing is not None
    photo = read_image(image)
    values = model.preprocessing(photo)
    explanations = []
    for preset, explainer in explainers.items():
        result = explainer(values[None], target=target)
        booked = {name: float(getattr(result.ledger, name).sum()) for name in ABSORBED}
        error = float(result.ledger.closure_error[0])
        explanations.append(Explanation(preset, result.relevance[0], booked, error))
    return Record(
        image,
        name,
        model.preprocessing.view(photo),
        np.asarray(result.scores[0]),
        int(result.target[0]),
        explanations,
    )


def _load(name: str, preprocessing: Preprocessing | None, classes: Path | None) -> Model:
    from relprop.loading import load

    names = tuple(classes.read_text(encoding="utf-8").splitlines()) if classes else ()
    try:
        model = load(name, preprocessing=preprocessing, classes=names)
    except (ValueError, TypeError, OSError, ImportError, RuntimeError) as error:
        if preprocessing is None and str(error).startswith("example is needed"):
            raise ValueError(f"{name}: give --size, --mean and --std, as it was trained.") from None
        raise
    except Exception as error:  # a callable of the user's may raise anything
        raise RuntimeError(f"{name} failed with {type(error).__name__}: {error}") from error
    if model.preprocessing is None:
        raise typer.BadParameter(
            "is unknown for this model: give --size, --mean and --std.", param_hint="preprocessing"
        )
    return model


def _preprocessing(
    size: str | None,
    mean: str | None,
    std: str | None,
    resize: int | None,
    interpolation: Any,  # checked with the options
    channel_order: Any,
) -> Preprocessing | None:
    given = {"--size": size, "--mean": mean, "--std": std}
    if not any(given.values()) and resize is None:
        return None
    missing = [option for option, text in given.items() if text is None]
    if missing:
        raise typer.BadParameter(f"needs {', '.join(missing)} as well.", param_hint="preprocessing")
    height, width = (int(v) for v in _numbers("--size", size, count=2))
    channels = 1 if channel_order == "grey" else 3
    return Preprocessing(
        size=(height, width),
        mean=_numbers("--mean", mean, count=channels),
        std=_numbers("--std", std, count=channels),
        resize=resize,
        interpolation=interpolation,
        channel_order=channel_order,
    )


def _numbers(option: str, text: str | None, count: int) -> tuple[float, ...]:
    """Read numbers between commas; a single one stands for all."""
    try:
        values = tuple(float(part) for part in (text or "").split(","))
    except ValueError:
        values = ()
    if len(values) not in (1, count):
        raise typer.BadParameter(f"{text!r} is not {count} numbers.", param_hint=option)
    return values * count if len(values) == 1 else values


def _preset_parameters(presets: Sequence[str], texts: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Hand every KEY=VALUE to the presets that know the key."""
    for preset in presets:
        if preset not in PRESETS:
            close = get_close_matches(preset, PRESETS, n=3) or list(PRESETS)
            raise typer.BadParameter(
                f"there is no preset {preset!r}; did you mean {', '.join(close)}?",
                param_hint="--composite",
            )
    values: dict[str, dict[str, Any]] = {preset: {} for preset in presets}
    for text in texts:
        key, _, value = text.partition("=")
        takers = [preset for preset in presets if key in parameters(preset)]
        if not takers:
            known = sorted({key for preset in presets for key in parameters(preset)})
            raise typer.BadParameter(
                f"{text!r} is not KEY=VALUE with one of {', '.join(known)}.", param_hint="--param"
            )
        for preset in takers:
            values[preset][key] = _value(value)
    return values


def _value(text: str) -> float | tuple[float, ...] | str:
    try:
        numbers = tuple(float(part) for part in text.split(","))
    except ValueError:
        return text
    return numbers[0] if len(numbers) == 1 else numbers


def _target(text: str, model: Model) -> int | str:
    if text == "argmax":
        return text
    try:
        index = int(text)
    except ValueError:
        try:
            return model.class_index(text)
        except ValueError as error:
            raise typer.BadParameter(str(error), param_hint="--target") from None
    outputs = model.graph[model.graph.output].shape[-1]
    if not 0 <= index < outputs:
        raise typer.BadParameter(
            f"{index} is not an output; the model has {outputs}, counted from 0.",
            param_hint="--target",
        )
    return index


def _override(text: str, graph: Graph) -> tuple[Matcher, rules.Rule]:
    """Read NODE=RULE, the rule written as it is printed."""
    node, _, source = text.partition("=")
    kinds = {kind.__name__: kind for kind in get_args(rules.Rule)} | {"ZPlus": rules.ZPlus}
    try:
        call = ast.parse(source, mode="eval").body
        if not isinstance(call, ast.Call) or not isinstance(call.func, ast.Name):
            raise ValueError(f"{source!r} is not a rule such as Gamma(0.25)")
        if call.func.id not in kinds:
            raise ValueError(f"{call.func.id!r} is not one of the rules {', '.join(kinds)}")
        values = [ast.literal_eval(value) for value in call.args]
        named = {str(k.arg): ast.literal_eval(k.value) for k in call.keywords}
        rule = kinds[call.func.id](*values, **named)
    except (ValueError, TypeError, SyntaxError) as error:
        raise typer.BadParameter(f"{text!r}: {error}", param_hint="--rule") from None
    if node not in graph.nodes and node.lstrip("-").isdigit():
        return int(node), rule
    return node, rule
