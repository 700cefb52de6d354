"""``relprop bench``: relprop beside torch's gradient and the other libraries, on this machine."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, Sequence
from itertools import product
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from relprop.benchmark import records
from relprop.cli_model import Shape, read_shape
from relprop.cli_summary import plain_console
from relprop.composites import PRESETS

NETWORKS = ("vgg16", "resnet50", "googlenet")
MEASURED = ("epsilon", "epsilon_plus_flat", "epsilon_alpha2_beta1", "epsilon_gamma_box")
BATCHES = (1, 8)
"""What is measured where nothing is said; --full measures the rest as well."""

FULL_BATCHES = (1, 8, 32)
LIBRARIES = ("zennit", "captum", "lxt", "autolrp")

_WHAT = "What is measured"
_ELSE = "Instead"


def bench(
    network: Annotated[
        list[str] | None,
        typer.Option(
            "--network",
            "-n",
            metavar="NAME",
            help="vgg16, resnet50, googlenet, resnet18, caffenet, squeezenet, mobilenet_v2, "
            "efficientnet_lite0, or package.module:callable that returns a torch module. Repeat "
            "for several.",
            rich_help_panel=_WHAT,
        ),
    ] = None,
    shape: Shape = None,
    composite: Annotated[
        list[str] | None,
        typer.Option(
            "--composite",
            "-c",
            metavar="PRESET",
            help="Which rules, see relprop presets. Repeat for several.",
            rich_help_panel=_WHAT,
        ),
    ] = None,
    batch: Annotated[
        list[int] | None,
        typer.Option("--batch", "-b", min=1, help="Images at once.", rich_help_panel=_WHAT),
    ] = None,
    threads: Annotated[
        list[int] | None,
        typer.Option("--threads", "-t", min=1, help="Threads.", rich_help_panel=_WHAT),
    ] = None,
    peer: Annotated[
        list[str] | None,
        typer.Option(
            metavar="|".join((*LIBRARIES, "none")),
            help="Which other libraries take part; all where nothing is said.",
            rich_help_panel=_WHAT,
        ),
    ] = None,
    full: Annotated[
        bool,
        typer.Option(
            "--full",
            help="All networks, all presets, batches of 1, 8 and 32. This takes hours.",
            rich_help_panel=_WHAT,
        ),
    ] = False,
    repeat: Annotated[int, typer.Option(min=1, help="Timed turns.", rich_help_panel=_WHAT)] = 5,
    memory: Annotated[
        bool,
        typer.Option(
            help="Measure memory and page faults, each contender in a process of its own.",
            rich_help_panel=_WHAT,
        ),
    ] = True,
    layers: Annotated[
        bool,
        typer.Option(
            "--layers",
            help="Each convolution, the core beside torch, in place of whole networks.",
            rich_help_panel=_ELSE,
        ),
    ] = False,
    compare: Annotated[
        tuple[Path, Path] | None,
        typer.Option(
            metavar="BEFORE AFTER",
            help="Say what changed between two files, and measure nothing.",
            rich_help_panel=_ELSE,
        ),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", metavar="FILE", help="Write all figures here, as JSON."),
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Overwrite an existing file.")] = False,
) -> None:
    """Time relprop beside torch's gradient and the other libraries, all taking turns.

    The unit is torch's forward and backward pass to the input, in the memory format that is the
    faster; a ratio of 0.5 is half of its time. Times are medians of wall-clock time with their
    quartiles in the file, as are the processors' times. GFLOP/s count the work of a plain gradient,
    whatever a rule does, beside what multiply-adds in registers reach here. Networks have random
    weights. The other libraries take part where they are installed and their relevance is like
    relprop's; why not is said.

    [bold]Exit codes[/bold]  0: done. 2: wrong use. 3: nothing is measured.

    [bold]Examples[/bold]

    relprop bench -n resnet50 -c epsilon_plus_flat -o today.json

    relprop bench -n my_package.nets:make_net --shape 3,224,224 --peer zennit

    relprop bench --layers -n resnet50 -b 1 -t 1

    relprop bench --compare yesterday.json today.json
    """
    console = plain_console()
    if not console.is_terminal:
        console.width = 1000  # files have no edge at which to break lines
    if compare is not None:
        before, after = (records.read(path) for path in compare)
        _show_changes(console, list(records.compare(before, after)))
        return
    rivals = _known("--peer", peer or LIBRARIES, (*LIBRARIES, "none"))
    presets = _known("--composite", composite or (PRESETS if full else MEASURED), tuple(PRESETS))
    if output is not None and output.exists() and not force:  # before the work
        raise FileExistsError(f"{output} exists already; --force overwrites.")
    if output is not None and not output.parent.is_dir():
        raise FileNotFoundError(f"{output} cannot be written: there is no folder {output.parent}.")
    try:
        from relprop.benchmark.networks import NETWORKS as ALL
    except ModuleNotFoundError as error:
        if error.name != "torch":
            raise
        raise ImportError(
            "relprop bench compares with torch: pip install 'relprop[torch]'"
        ) from error
    names = network or (ALL if full else NETWORKS)
    settings = [
        (name, read_shape(shape), images, count)
        for name in names
        for images in batch or (FULL_BATCHES if full else BATCHES)
        for count in threads or sorted({1, min(2, os.cpu_count() or 1)})
    ]
    report = records.new_report()
    console.print(_machine(report), soft_wrap=True)
    try:
        if layers:
            _layers(console, report, settings, presets if composite else ["epsilon"], repeat)
        else:
            libraries = [name for name in rivals if name != "none"]
            _networks(console, report, settings, presets, libraries, repeat)
            if memory:
                _memory(console, report, settings, presets)
    finally:  # hours of measuring are worth keeping
        if output is not None and (report["runs"] or report["layers"]):
            records.write(report, output)
            console.print(f"\nall figures in {output}", soft_wrap=True)


def _known(option: str, given: Sequence[str] | Any, known: tuple[str, ...]) -> list[str]:
    for name in given:
        if name not in known:
            raise typer.BadParameter(
                f"{name!r} is not one of {', '.join(known)}.", param_hint=option
            )
    return list(given)


Setting = tuple[str, tuple[int, ...] | None, int, int]
"""Network, its shape where it is given, batch, threads."""


# --- Whole networks -------------------------------------------------------------------------------


def _networks(
    console: Console,
    report: dict[str, Any],
    settings: Sequence[Setting],
    presets: Sequence[str],
    rivals: Sequence[str],
    repeat: int,
) -> None:
    from relprop.benchmark.timing import fma_ceiling, measure

    for count in sorted({setting[3] for setting in settings}):
        report["ceilings"][str(count)] = ceiling = fma_ceiling(count)
        console.print(f"multiply-adds in registers, {_threads(count)}: {ceiling:.0f} GFLOP/s")
    for setting in settings:
        for run in measure(*setting, presets, rivals, repeat):
            report["runs"].append(run)
            _show_run(console, run, report["ceilings"][str(run["threads"])])
    if len(report["runs"]) > 1:
        _show_ratios(console, report["runs"])


def _show_run(console: Console, run: dict[str, Any], ceiling: float) -> None:
    title = f"{run['network']}, {run['preset']}, batch {run['batch']}, {_threads(run['threads'])}"
    table = _table(
        title, "ratio", "quartiles", "ms", "CPU ms", "images/s", "GFLOP/s", "of peak", "set up s"
    )
    for name, found in run["contenders"].items():
        ratio = found["ratio"]
        table.add_row(
            f"{name} (unit)" if name == run["reference"] else name,
            f"{ratio['median']:.2f}",
            f"{ratio['low']:.2f} - {ratio['high']:.2f}",
            f"{1e3 * found['seconds']['median']:.1f}",
            f"{1e3 * found['cpu_seconds']['median']:.1f}",
            f"{found['images_per_second']:.1f}",
            f"{found['gflops']:.0f}",
            f"{found['gflops'] / ceiling:.0%}",
            f"{found['setup_seconds']:.2f}",
        )
    console.print()
    console.print(table)
    for name, why in run["skipped"].items():
        console.print(f"  not {name}: {why}", style="dim", soft_wrap=True)


def _show_ratios(console: Console, runs: Sequence[dict[str, Any]]) -> None:
    """Show all ratios at a glance: who under which preset, at which setting."""
    ratios: dict[tuple[str, str], dict[str, float]] = {}
    for run in runs:
        where = f"{run['network']} {run['batch']}/{run['threads']}"
        for name, found in run["contenders"].items():
            if not name.startswith("torch"):
                row = ratios.setdefault((run["preset"], name), {})
                row[where] = found["ratio"]["median"]
    columns = list(dict.fromkeys(where for row in ratios.values() for where in row))
    table = _table("ratio to torch's gradient, batch/threads", "", *columns)
    for (preset, name), row in ratios.items():
        table.add_row(preset, name, *(f"{row[w]:.2f}" if w in row else "-" for w in columns))
    console.print()
    console.print(table)


def _memory(
    console: Console,
    report: dict[str, Any],
    settings: Sequence[Setting],
    presets: Sequence[str],
) -> None:
    """Measure what everybody holds who was timed; torch's passes know no preset."""
    from relprop.benchmark.memory import Task, available, measure

    if not available():
        console.print("\nmemory is not measured: /proc/self/clear_refs is Linux's.")
        return
    table = _table("memory", "batch", "threads", "preset", "peak MiB", "of gradient", "faults/run")
    for name, shape, images, count in settings:
        timed = [
            run
            for run in report["runs"]
            if (run["network"], run["batch"], run["threads"]) == (name, images, count)
        ]
        unit = timed[0]["reference"]
        tasks = [Task(unit, name, shape, images, count, presets[0])]
        for run in timed:
            for one in run["contenders"]:
                if not one.startswith("torch"):
                    tasks.append(Task(one, name, shape, images, count, run["preset"]))
        of_gradient = math.nan
        for task in tasks:
            held = measure(task)
            report["memory"].append(held)
            if "skipped" in held:
                console.print(f"  not {task.contender}: {held['skipped']}", soft_wrap=True)
                continue
            if task.contender == unit:
                of_gradient = held["peak_bytes"]
            table.add_row(
                f"{name}, {task.contender}",
                str(images),
                str(count),
                "" if task.contender == unit else task.preset,
                f"{held['peak_bytes'] / 2**20:.0f}",
                f"{held['peak_bytes'] / of_gradient:.2f}",
                f"{held['faults_per_run']:.0f}",
            )
    console.print()
    console.print(table)


# --- Single layers --------------------------------------------------------------------------------


def _layers(
    console: Console,
    report: dict[str, Any],
    settings: Sequence[Setting],
    presets: Sequence[str],
    repeat: int,
) -> None:
    from relprop.benchmark.layers import measure_layers

    for (name, shape, images, count), preset in product(settings, presets):
        title = f"{name}, {preset}, batch {images}, {_threads(count)}"
        table = _table(title, "kernel", "input", "output", "MFLOP")
        for way in ("forward", "backward"):
            for heading in (way, "torch", "share"):
                table.add_column(heading, justify="right")
        total = dict.fromkeys(("relprop_seconds", "torch_seconds"), 0.0)
        for layer in measure_layers(name, shape, images, count, preset, repeat):
            report["layers"].append(layer)
            cells = []
            for way in ("forward", "backward"):
                found = layer[way]
                share = found["relprop_gflops"] / found["torch_gflops"]
                cells += [f"{found['relprop_gflops']:.0f}", f"{found['torch_gflops']:.0f}"]
                cells.append(f"{share:.2f}")
                for key in total:
                    total[key] += found[key]
            table.add_row(layer["layer"], *_geometry(layer), *cells)
        console.print()
        console.print(table)
        console.print(
            f"GFLOP/s; all convolutions {1e3 * total['relprop_seconds']:.1f} ms, "
            f"torch's {1e3 * total['torch_seconds']:.1f} ms",
            style="dim",
        )


def _geometry(layer: dict[str, Any]) -> Iterator[str]:
    kernel = "x".join(map(str, layer["kernel"]))
    stride = "".join(f"/{step}" for step in sorted({*layer["stride"]}) if step != 1)
    groups = f" in {layer['groups']}" if layer["groups"] > 1 else ""
    yield f"{kernel}{stride}{groups}"
    yield "x".join(map(str, layer["input"]))
    yield "x".join(map(str, layer["output"]))
    yield f"{1e3 * layer['gflop']:.0f}"


# --- Two reports ----------------------------------------------------------------------------------


def _show_changes(console: Console, changes: Sequence[records.Change]) -> None:
    if not changes:
        console.print("the two files have nothing in common.")
        return
    table = _table(
        "network", "batch", "threads", "preset", "contender", "figure", "before", "after", "factor"
    )
    for change in changes:
        table.add_row(
            change.network,
            str(change.batch),
            str(change.threads),
            change.preset,
            change.contender,
            change.figure,
            f"{change.before:.3g}",
            f"{change.after:.3g}",
            f"{change.factor:.2f}{' *' if change.clear else ''}",
        )
    console.print(table)
    console.print("* by more than the spread of either", style="dim")


def _table(first: str, *headings: str) -> Table:
    table = Table(first, box=None, pad_edge=False)
    for heading in headings:
        table.add_column(heading, justify="right", no_wrap=True)
    return table


def _threads(count: int) -> str:
    return "1 thread" if count == 1 else f"{count} threads"


def _machine(report: dict[str, Any]) -> str:
    machine = report["machine"]
    versions = ", ".join(f"{name} {version}" for name, version in report["versions"].items())
    return (
        f"{machine['processor']}, {machine['cores']} cores, {machine['instruction_set']}; "
        f"{versions}; {report['date']}"
    )
