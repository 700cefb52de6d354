"""``relprop bench``: relprop beside torch's gradient and the other libraries, on this machine."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, Sequence
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer
from rich.console import Console

from relprop.benchmark import records
from relprop.cli_bench_tables import (
    Job,
    Setting,
    machine,
    new_table,
    show_changes,
    show_floors,
    show_kinds,
    show_layers,
    show_ratios,
    show_run,
    show_shares,
    show_unmeasured,
)
from relprop.cli_device import Device, ProductPrecision
from relprop.cli_model import Shape, read_shape
from relprop.cli_summary import plain_console
from relprop.composites import RULES_ALONE
from relprop.devices import Precision, gpu_of

if TYPE_CHECKING:
    from relprop.benchmark.memory import Task

NETWORKS = ("vgg16", "resnet50", "googlenet")
MEASURED = ("epsilon", "epsilon_plus_flat", "epsilon_alpha2_beta1", "epsilon_gamma_box")
BATCHES = (1, 8)
"""What is measured where nothing is said; --full measures the rest as well."""

FULL_BATCHES = (1, 8, 32)
GPU_BATCHES = (1, 32, 128)
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
        typer.Option("--threads", "-t", min=1, help="Threads of a CPU.", rich_help_panel=_WHAT),
    ] = None,
    device: Device = "cpu",
    precision: ProductPrecision = "float32",
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
            help="All networks and presets, batches of 1, 8 and 32. This takes hours.",
            rich_help_panel=_WHAT,
        ),
    ] = False,
    repeat: Annotated[int, typer.Option(min=1, help="Timed turns.", rich_help_panel=_WHAT)] = 5,
    memory: Annotated[
        bool,
        typer.Option(
            help="Measure memory, on a CPU page faults too, each contender in its own process.",
            rich_help_panel=_WHAT,
        ),
    ] = True,
    layers: Annotated[
        bool,
        typer.Option(
            "--layers",
            help="Each convolution, the core beside torch, in place of whole networks; on a GPU "
            "each kind of step as well.",
            rich_help_panel=_ELSE,
        ),
    ] = False,
    floors: Annotated[
        tuple[float, float] | None,
        typer.Option(
            metavar="TFLOP/S GB/S",
            help="Say what runs take at least on a machine that gives so much, and measure "
            "nothing; with --layers what each convolution can reach.",
            rich_help_panel=_ELSE,
        ),
    ] = None,
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

    On a GPU torch may round factors exactly as relprop does, and the unit may be a CUDA graph.
    Times are those of CUDA's events; peak is what torch's product of large matrices reaches. The
    floor is, step by step, the larger of operations over that rate and bytes over a copy's.

    [bold]Exit codes[/bold]  0: done. 2: wrong use. 3: nothing is measured.

    [bold]Examples[/bold]

    relprop bench -n resnet50 -c epsilon_plus_flat -o today.json

    relprop bench -n my_package.nets:make_net --shape 3,224,224 --peer zennit

    relprop bench --layers -n resnet50 -b 1 -t 1

    relprop bench --device cuda --precision tf32 -b 128

    relprop bench --floors 400 3000 --precision tf32 -b 128

    relprop bench --compare yesterday.json today.json
    """
    console = plain_console()
    if not console.is_terminal:
        console.width = 1000  # files have no edge at which to break lines
    if compare is not None:
        if output is not None:
            raise typer.BadParameter("goes without --compare.", param_hint="--output")
        before, after = (records.read(path) for path in compare)
        show_changes(console, list(records.compare(before, after)))
        return
    rivals = _known("--peer", peer or LIBRARIES, (*LIBRARIES, "none"))
    on_gpu = gpu_of(device) is not None
    if on_gpu and threads:
        raise typer.BadParameter(f"means nothing on {device}.", param_hint="--threads")
    if not on_gpu and precision != "float32" and floors is None:
        raise typer.BadParameter(f"{precision!r} is for a GPU.", param_hint="--precision")
    presets = _known(
        "--composite", composite or (RULES_ALONE if full else MEASURED), tuple(RULES_ALONE)
    )
    for rate in floors or ():
        if not 0 < rate < math.inf:
            raise typer.BadParameter(
                f"must be finite and > 0, not {rate:g}.", param_hint="--floors"
            )
    if output is not None and output.exists() and not force:  # before the work
        raise FileExistsError(f"{output} exists already; --force overwrites.")
    if output is not None and not output.parent.is_dir():
        raise FileNotFoundError(f"{output} cannot be written: there is no folder {output.parent}.")
    try:
        from relprop.benchmark.networks import NETWORKS as ALL
        from relprop.benchmark.networks import check
        from relprop.benchmark.place import place_of
    except ModuleNotFoundError as error:
        if error.name != "torch":
            raise
        raise ImportError(
            "relprop bench compares with torch: pip install 'relprop[torch]'"
        ) from error
    names = network or (ALL if full else NETWORKS)
    own_shape = read_shape(shape)
    for name in names:
        check(name, own_shape)
    batches = GPU_BATCHES if on_gpu or floors else FULL_BATCHES if full else BATCHES
    counts = [1] if on_gpu or floors else threads or sorted({1, min(2, os.cpu_count() or 1)})
    settings = [
        (name, own_shape, images, count)
        for name in names
        for images in batch or batches
        for count in counts
    ]
    if layers and not composite:
        presets = ["epsilon"]
    report = records.new_report()
    if floors:
        _floors(console, report, settings, presets, floors, cast(Precision, precision), layers)
        if output is not None:
            records.write(report, output)
        return
    place = place_of(device, cast(Precision, precision))
    report["machine"].update(place.facts())
    job = Job(console, report, place, on_gpu, settings, presets, repeat)
    console.print(machine(report), soft_wrap=True)
    try:
        with place.settings():
            if layers:
                _layers(job)
            else:
                _networks(job, [name for name in rivals if name != "none"])
        if memory and not layers:
            _memory(job)
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


def _ceilings(job: Job) -> None:
    from relprop.benchmark.ceilings import (
        copy_ceiling,
        fma_ceiling,
        product_ceiling,
        tf32_ceiling,
    )
    from relprop.benchmark.place import Gpu

    ceilings = job.report["ceilings"]
    if job.on_gpu:
        ceilings["product_gflops"] = product = product_ceiling(job.place)
        told = ""
        if isinstance(job.place, Gpu) and job.place.precision == "float32":
            ceilings["tf32_product_gflops"] = tf32 = tf32_ceiling(job.place)
            told = f", in TF32 {tf32:.0f}"
        ceilings["copy_gbytes_per_second"] = copied = copy_ceiling(job.place)
        job.place.release()
        job.console.print(f"product of large matrices: {product:.0f} GFLOP/s{told}")
        job.console.print(f"copy within memory: {copied:.0f} GB/s, read and written")
        return
    for count in sorted({setting[3] for setting in job.settings}):
        ceilings[str(count)] = ceiling = fma_ceiling(count)
        told = f"multiply-adds in registers, {job.place.label(count)}: {ceiling:.0f} GFLOP/s"
        job.console.print(told)


# --- Whole networks -------------------------------------------------------------------------------


def _networks(job: Job, rivals: Sequence[str]) -> None:
    from relprop.benchmark.timing import measure

    _ceilings(job)
    at_best = job.ceilings()
    unmeasured = False
    for setting in job.settings:
        for run in measure(*setting, job.presets, rivals, job.repeat, job.place, at_best):
            if not run["contenders"]:
                unmeasured = True
                show_unmeasured(job, run)
                continue
            job.report["runs"].append(run)
            show_run(job, run)
    if unmeasured and not job.report["runs"]:
        raise MemoryError("nothing is measured: there was no room for it.")
    if len(job.report["runs"]) > 1:
        show_ratios(job)


def _memory(job: Job) -> None:
    """Measure what everybody holds who was timed; torch's passes know no preset."""
    from relprop.benchmark.memory import available, measure

    if not (job.on_gpu or available()):
        job.console.print("\nmemory is not measured: /proc/self/clear_refs is Linux's.")
        return
    job.place.release()
    of_cpu = () if job.on_gpu else ("threads", "faults/run")
    headings = ("batch", *of_cpu[:1], "preset", "peak MiB", "of gradient", *of_cpu[1:])
    table = new_table("memory", *headings)
    for setting in job.settings:
        of_gradient = math.nan
        for i, task in enumerate(_tasks(job, setting)):
            held = measure(task)
            job.report["memory"].append(held)
            if "skipped" in held:
                job.console.print(f"  not {task.contender}: {held['skipped']}", soft_wrap=True)
                continue
            if i == 0:
                of_gradient = held["peak_bytes"]
            cells = {
                "batch": str(task.batch),
                "threads": str(task.threads),
                "preset": "" if i == 0 else task.preset,
                "peak MiB": f"{held['peak_bytes'] / 2**20:.0f}",
                "of gradient": f"{held['peak_bytes'] / of_gradient:.2f}",
                "faults/run": f"{held.get('faults_per_run', 0):.0f}",
            }
            who = f"{task.network}, {task.contender}"
            table.add_row(who, *(cells[heading] for heading in headings))
    job.console.print()
    job.console.print(table)


def _tasks(job: Job, setting: Setting) -> Iterator[Task]:
    """Whose memory is measured: the faster of torch's gradients, then all that know presets.

    A CUDA graph's memory is not among what torch counts in a run.
    """
    from relprop.benchmark.contenders import GRADIENT, of_torch
    from relprop.benchmark.memory import Task

    name, shape, images, count = setting
    tail = (job.place.device, job.place.precision)
    timed = [
        run
        for run in job.report["runs"]
        if (run["network"], run["batch"], run["threads"]) == (name, images, count)
    ]
    if not timed:
        return
    first = timed[0]["contenders"]
    gradients = list(of_torch(GRADIENT, job.place))
    unit = min(
        (one for one in gradients if one in first),
        key=lambda one: first[one]["seconds"]["median"],
        default=gradients[0],  # alone it may have room
    )
    yield Task(unit, name, shape, images, count, job.presets[0], *tail)
    for run in timed:
        for one in run["contenders"]:
            if not one.startswith("torch"):
                yield Task(one, name, shape, images, count, run["preset"], *tail)


# --- Single layers --------------------------------------------------------------------------------


def _layers(job: Job) -> None:
    from relprop.benchmark.layers import measure_steps

    if job.on_gpu:
        _ceilings(job)
    for setting, preset in product(job.settings, job.presets):
        steps = measure_steps(*setting, preset, job.repeat, job.place)
        show_layers(job, steps)
        if job.on_gpu:
            show_kinds(job, steps)


# --- Floors ---------------------------------------------------------------------------------------


def _floors(
    console: Console,
    report: dict[str, Any],
    settings: Sequence[Setting],
    presets: Sequence[str],
    rates: tuple[float, float],
    precision: Precision,
    layers: bool,
) -> None:
    from relprop.benchmark.floors import Ceilings
    from relprop.benchmark.predictions import predict

    ceilings = Ceilings(1e12 * rates[0], 1e9 * rates[1], precision)
    batches: dict[tuple[str, tuple[int, ...] | None], list[int]] = {}
    for name, shape, images, _ in settings:
        batches.setdefault((name, shape), []).append(images)
    floors = report["floors"] = [
        floor
        for (name, shape), own in batches.items()
        for floor in predict(name, shape, own, presets, ceilings)
    ]
    show_floors(console, floors)
    if layers:
        show_shares(console, [layer for floor in floors for layer in floor["layers"]])
