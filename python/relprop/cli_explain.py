"""``relprop explain``: photos in, heatmaps and a summary out."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Annotated, Any, cast

import numpy as np
import typer
from numpy.typing import NDArray
from rich.progress import track

from relprop import cli_summary
from relprop.cli_device import Device, ProductPrecision
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
from relprop.cli_output import (
    ABSORBED,
    Explanation,
    Maps,
    Pictures,
    Record,
    check_folder,
    read_arrays,
    result_names,
    widen,
    write_arrays,
)
from relprop.cli_rules import Overrides, Parameters, overrides, preset_parameters
from relprop.cli_run import INTERRUPTED
from relprop.cli_summary import in_words, literal, plain_console, show_error
from relprop.devices import Precision
from relprop.heatmaps import COLOR_MAPS
from relprop.images import read_image
from relprop.model import Model
from relprop.preprocessing import Preprocessing
from relprop.runs.interruption import interruptible

SOME_FAILED, ALL_FAILED = 1, 3

_PICTURES = "Pictures"


def explain(
    model: ModelName,
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
    param: Parameters = None,
    rule: Overrides = None,
    output_name: OutputName = None,
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder for the results.")] = Path(
        "explained"
    ),
    force: Annotated[bool, typer.Option("--force", help="Overwrite earlier results.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON for machines.")] = False,
    device: Device = "cpu",
    precision: ProductPrecision = "float32",
    cmap: Annotated[
        str,
        typer.Option(
            metavar="COLOURS",
            callback=one_of(*COLOR_MAPS),
            help=f"{', '.join(COLOR_MAPS)}: symmetric around zero, the last one for "
            "colour-blind readers.",
            rich_help_panel=_PICTURES,
        ),
    ] = "blue_white_red",
    normalize: Annotated[
        str,
        typer.Option(
            metavar="image|global",
            callback=one_of("image", "global"),
            help="The strongest colour is the largest relevance of each image, or of all.",
            rich_help_panel=_PICTURES,
        ),
    ] = "image",
    weights: Weights = None,
    size: Size = None,
    mean: Mean = None,
    std: Std = None,
    resize: Resize = None,
    interpolation: Interpolation = None,
    channel_order: ChannelOrder = None,
    classes: Classes = None,
) -> None:
    """Explain what a model sees in photos.

    For each image and preset, the folder gets a heatmap and an overlay (PNG) and the relevance
    itself (NPZ with relevance, scores and target); for several images or presets also a contact
    sheet. In the heatmaps one colour speaks for the class, the other against it.

    [bold]Exit codes[/bold]  0: every image is explained. 1: some are not, the others are kept.
    2: wrong use. 3: nothing could be done. 130: interrupted, the images before are kept.

    [bold]Examples[/bold]

    relprop explain efficientnet-lite0 photo.jpg

    relprop explain efficientnet-lite0 *.jpg -t "motor scooter" -c alpha2_beta1 -c epsilon -o out

    relprop explain net.prototxt photo.jpg --weights net.caffemodel --size 224 --resize 256
    --channel-order bgr --mean 104,117,123 --std 1
    """
    presets = list(dict.fromkeys(composite or ["epsilon_plus_flat"]))
    values = preset_parameters(presets, param or [])
    names = result_names(images)
    preprocessing = read_preprocessing(size, mean, std, resize, interpolation, channel_order)
    loaded = load_model(model, preprocessing, classes, weights)
    outputs = class_count(loaded, output_name)
    seen = require_preprocessing(loaded)
    if len(loaded.classes) != outputs:
        loaded = replace(loaded, classes=())  # they are another output's
    chosen = _target(target, loaded, outputs)
    own_rules = overrides(rule or [], loaded.graph)
    check_folder(output, names, presets, force)

    from relprop.explain import Explainer

    explainers = {
        preset: Explainer(
            loaded,
            preset,
            output=output_name,
            rules=own_rules,
            device=device,
            precision=cast("Precision", precision),
            **values[preset],
        )
        for preset in presets
    }
    records: list[Record] = []
    failed: list[tuple[Path, str]] = []
    errors = plain_console(stderr=True)
    hidden = len(images) == 1 or not errors.is_terminal
    shown = partial(track, console=errors, transient=True, disable=hidden)
    jobs = list(zip(images, names, strict=True))
    bounds: dict[str, float] = {}
    pictures = Pictures(output, cmap, bounds)
    with interruptible() as interruption:
        for job in shown(jobs, "explaining"):
            if interruption.asked:
                break
            try:
                record, view, maps = _explain(*job, seen, explainers, chosen)
            except (ValueError, OSError, MemoryError) as error:
                failed.append((job[0], in_words(error)))
                show_error(error, errors)
                continue
            write_arrays(record, maps, output)
            records.append(record)
            if normalize == "global":
                widen(bounds, maps)
            else:
                pictures.write(record, view, maps)
    if normalize == "global":  # all bounds are known now
        for record in shown(records, "drawing"):
            pictures.write(record, seen.view(read_image(record.image)), read_arrays(record))
    sheets = pictures.finish()
    if as_json:
        typer.echo(cli_summary.as_json(loaded, records, sheets, failed))
    else:
        cli_summary.show(loaded, records, sheets, output)
    done = len(records) + len(failed)
    if done < len(images):
        told = f"interrupted after {done} of {len(images)} images; the results of these are kept."
        errors.print(told, soft_wrap=True)
        raise typer.Exit(INTERRUPTED)
    if failed:
        raise typer.Exit(SOME_FAILED if records else ALL_FAILED)


def _explain(
    image: Path,
    name: str,
    preprocessing: Preprocessing,
    explainers: dict[str, Any],
    target: int | str,
) -> tuple[Record, NDArray[np.uint8], Maps]:
    """Explain one image: what is told of it, and what its files are made of."""
    photo = read_image(image)
    values = preprocessing(photo)
    explanations, maps = [], {}
    for preset, explainer in explainers.items():
        result = explainer(values[None], target=target)
        booked: dict[str, float] | None = None
        error: float | None = None
        if result.ledger is not None:
            booked = {name: float(getattr(result.ledger, name).sum()) for name in ABSORBED}
            error = float(result.ledger.closure_error[0])
        complete = None if result.completeness is None else float(result.completeness[0])
        maps[preset] = result.relevance[0]
        total = float(maps[preset].sum(dtype=np.float64))
        explanations.append(Explanation(preset, total, booked, error, complete))
    scores, index = np.asarray(result.scores[0]), int(result.target[0])
    return Record(image, name, scores, index, explanations), preprocessing.view(photo), maps


def _target(text: str, model: Model, outputs: int) -> int | str:
    if text == "argmax":
        return text
    try:
        return model.class_index(text)  # names come first, some are numbers
    except ValueError as error:
        unknown = str(error)
    try:
        index = int(text)
    except ValueError:
        raise typer.BadParameter(literal(unknown), param_hint="--target") from None
    if not 0 <= index < outputs:
        raise typer.BadParameter(
            f"{index} is not an output; the model has {outputs}, counted from 0.",
            param_hint="--target",
        )
    return index
