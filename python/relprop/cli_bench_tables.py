"""What ``relprop bench`` shows: tables of runs, layers, kinds of steps, floors and two reports."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.table import Table

from relprop.benchmark import records

if TYPE_CHECKING:
    from relprop.benchmark.floors import Ceilings
    from relprop.benchmark.layers import Steps
    from relprop.benchmark.place import Place

Setting = tuple[str, tuple[int, ...] | None, int, int]
"""Network, its shape where it is given, batch, threads (1 on a GPU, where they mean nothing)."""


@dataclass(frozen=True)
class Job:
    """What is measured and where it is told."""

    console: Console
    report: dict[str, Any]
    place: Place
    on_gpu: bool
    settings: Sequence[Setting]
    presets: Sequence[str]
    repeat: int

    def milliseconds(self, seconds: float) -> str:
        """Write a time as a table has it."""
        return f"{1e3 * seconds:.{3 if self.on_gpu else 1}f}"

    def title(self, measured: dict[str, Any]) -> str:
        """Name what was measured."""
        where = self.place.label(measured["threads"])
        return f"{measured['network']}, {measured['preset']}, batch {measured['batch']}, {where}"

    def ceilings(self) -> Ceilings | None:
        """What floors are made of, on a GPU: float32 may take three times as long as TF32."""
        if not self.on_gpu:
            return None
        from relprop.benchmark.floors import Ceilings

        measured = self.report["ceilings"]
        products = max(measured["product_gflops"], measured.get("tf32_product_gflops", 0.0) / 3)
        copied = measured["copy_gbytes_per_second"]
        return Ceilings(1e9 * products, 1e9 * copied, self.place.precision)

    def ceiling(self, threads: int) -> float:
        """GFLOP/s that the machine gives at best."""
        key = "product_gflops" if self.on_gpu else str(threads)
        return float(self.report["ceilings"][key])


def show_run(job: Job, run: dict[str, Any]) -> None:
    """Show one run: everybody's ratio, times and rates."""
    ceiling = job.ceiling(run["threads"])
    headings = ("ratio", "quartiles", "ms", "CPU ms", "images/s", "GFLOP/s", "of peak", "set up s")
    table = new_table(job.title(run), *headings)
    for name, found in run["contenders"].items():
        ratio = found["ratio"]
        table.add_row(
            f"{name} (unit)" if name == run["reference"] else name,
            f"{ratio['median']:.2f}",
            f"{ratio['low']:.2f} - {ratio['high']:.2f}",
            job.milliseconds(found["seconds"]["median"]),
            job.milliseconds(found["cpu_seconds"]["median"]),
            f"{found['images_per_second']:.1f}",
            f"{found['gflops']:.0f}",
            f"{found['gflops'] / ceiling:.0%}",
            f"{found['setup_seconds']:.2f}",
        )
    job.console.print()
    job.console.print(table)
    if "floor" in run:
        job.console.print(f"  {floor_of(job, run)}", style="dim", soft_wrap=True)
    _show_skipped(job, run)


def show_unmeasured(job: Job, run: dict[str, Any]) -> None:
    """Show that nobody was timed, and why."""
    job.console.print(f"\n{job.title(run)}: not measured", soft_wrap=True)
    _show_skipped(job, run)


def _show_skipped(job: Job, run: dict[str, Any]) -> None:
    for name, why in run["skipped"].items():
        job.console.print(f"  not {name}: {why}", style="dim", soft_wrap=True)


def floor_of(job: Job, run: dict[str, Any]) -> str:
    """What relprop's run takes at least, and how far from that it is."""
    floor = run["floor"]
    least = job.milliseconds(floor["seconds"])
    return (
        f"relprop takes {times_floor(run):.2f} times its floor of {least} ms: "
        f"{floor['gflop']:.1f} GFLOP, {floor['gbytes']:.3f} GB, "
        f"{floor['bound_by_operations'] / floor['seconds']:.0%} of it bound by operations"
    )


Rows = dict[tuple[str, str], dict[str, float]]
"""For each preset and contender a figure at each setting."""


def show_ratios(job: Job) -> None:
    """Show all ratios at a glance, and how far relprop is from its floors."""
    ratios: Rows = {}
    floors: Rows = {}
    for run in job.report["runs"]:
        threads = "" if job.on_gpu else f"/{run['threads']}"
        where = f"{run['network']} {run['batch']}{threads}"
        for name, found in run["contenders"].items():
            if not name.startswith("torch"):
                ratios.setdefault((run["preset"], name), {})[where] = found["ratio"]["median"]
        if "floor" in run:
            floors.setdefault((run["preset"], "relprop"), {})[where] = times_floor(run)
    told = "batch" if job.on_gpu else "batch/threads"
    for title, rows in ((f"ratio to torch's gradient, {told}", ratios), ("/ floor", floors)):
        if rows:
            job.console.print()
            job.console.print(_glance(title, rows))


def _glance(title: str, rows: Rows) -> Table:
    columns = list(dict.fromkeys(where for row in rows.values() for where in row))
    table = new_table(title, "", *columns)
    for (preset, name), row in rows.items():
        table.add_row(preset, name, *(f"{row[w]:.2f}" if w in row else "-" for w in columns))
    return table


def times_floor(run: dict[str, Any]) -> float:
    """How many times its floor relprop takes."""
    seconds: float = run["contenders"]["relprop"]["seconds"]["median"]
    return seconds / float(run["floor"]["seconds"])


def show_layers(job: Job, steps: Steps) -> None:
    """Show each convolution beside torch's products."""
    table = new_table(job.title(steps.where), "kernel", "input", "output", "MFLOP")
    share, floor = (("of peak",), ("/ floor",)) if job.on_gpu else ((), ())
    for way in ("forward", "backward"):
        for heading in (way, *share, *floor, "torch", *share, "share"):
            table.add_column(heading, justify="right")
    total = dict.fromkeys(("relprop_seconds", "torch_seconds"), 0.0)
    for layer in steps.layers(job.repeat, job.ceilings()):
        job.report["layers"].append(layer)
        cells: list[str] = []
        for way in ("forward", "backward"):
            found = layer[way]
            for who in ("relprop", "torch"):
                rate = found[f"{who}_gflops"]
                cells.append(f"{rate:.0f}")
                if job.on_gpu:
                    cells.append(f"{rate / job.ceiling(1):.0%}")
                if job.on_gpu and who == "relprop":
                    cells.append(f"{found['relprop_seconds'] / found['floor_seconds']:.1f}")
            cells.append(f"{found['relprop_gflops'] / found['torch_gflops']:.2f}")
            for key in total:
                total[key] += found[key]
        table.add_row(layer["layer"], *_geometry(layer), *cells)
    job.console.print()
    job.console.print(table)
    job.console.print(
        f"GFLOP/s; all convolutions {job.milliseconds(total['relprop_seconds'])} ms, "
        f"torch's {job.milliseconds(total['torch_seconds'])} ms",
        style="dim",
    )


def show_kinds(job: Job, steps: Steps) -> None:
    """Show where a run's time goes, and how fast each kind of step moves what it must move."""
    ceilings = job.ceilings()
    assert ceilings is not None
    kinds = list(steps.kinds(ceilings))
    job.report.setdefault("kinds", []).extend(kinds)
    every = sum(kind["forward_seconds"] + kind["backward_seconds"] for kind in kinds)
    table = new_table("", "steps", "forward ms", "backward ms", "share", "GB", "of copy", "/ floor")
    for kind in kinds:
        forward, backward = kind["forward_seconds"], kind["backward_seconds"]
        both = forward + backward
        table.add_row(
            kind["kind"],
            str(kind["steps"]),
            job.milliseconds(forward),
            job.milliseconds(backward),
            f"{both / every:.0%}",
            f"{kind['gbytes']:.3f}",
            f"{1e9 * kind['gbytes'] / ceilings.bytes / both:.0%}",
            f"{both / kind['floor_seconds']:.1f}" if kind["floor_seconds"] else "-",
        )
    job.console.print()
    job.console.print(table)
    job.console.print(f"all steps {job.milliseconds(every)} ms by the GPU's clock", style="dim")


def _geometry(layer: dict[str, Any]) -> Iterator[str]:
    kernel = "x".join(map(str, layer["kernel"]))
    stride = "".join(f"/{step}" for step in sorted({*layer["stride"]}) if step != 1)
    groups = f" in {layer['groups']}" if layer["groups"] > 1 else ""
    yield f"{kernel}{stride}{groups}"
    yield "x".join(map(str, layer["input"]))
    yield "x".join(map(str, layer["output"]))
    yield f"{1e3 * layer['gflop']:.0f}"


# --- Floors ---------------------------------------------------------------------------------------


def show_floors(console: Console, floors: Sequence[dict[str, Any]]) -> None:
    """Show what runs take at least."""
    headings = ("preset", "batch", "floor ms", "by operations", "by bytes", "GFLOP", "GB", "ratio")
    table = new_table("network", *headings)
    for floor in floors:
        table.add_row(
            floor["network"],
            floor["preset"],
            str(floor["batch"]),
            f"{1e3 * floor['seconds']:.3f}",
            f"{1e3 * floor['bound_by_operations']:.3f}",
            f"{1e3 * floor['bound_by_bytes']:.3f}",
            f"{floor['gflop']:.1f}",
            f"{floor['gbytes']:.3f}",
            f"{floor['ratio']:.2f}",
        )
    console.print(table)
    console.print("ratio: to the floor of the preset gradient", style="dim")


def show_shares(console: Console, layers: Sequence[dict[str, Any]]) -> None:
    """Show the most of the rate of products that bytes leave each convolution."""
    headings = ("batch", "layer", "kernel", "input", "output", "MFLOP", "forward", "backward")
    table = new_table("network, preset", *headings)
    for layer in layers:
        shares = (f"{layer[way]['share_of_rate']:.0%}" for way in ("forward", "backward"))
        where = f"{layer['network']}, {layer['preset']}"
        table.add_row(where, str(layer["batch"]), layer["layer"], *_geometry(layer), *shares)
    console.print()
    console.print(table)
    console.print("share of the rate of products that is possible, at one product in either pass")


# --- Two reports ----------------------------------------------------------------------------------


def show_changes(console: Console, changes: Sequence[records.Change]) -> None:
    """Show what changed from one report to another."""
    if not changes:
        console.print("the two files have nothing in common.")
        return
    table = new_table(
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


def new_table(first: str, *headings: str) -> Table:
    """A table whose columns but the first are figures."""
    table = Table(first, box=None, pad_edge=False)
    for heading in headings:
        table.add_column(heading, justify="right", no_wrap=True)
    return table


def machine(report: dict[str, Any]) -> str:
    """Where, when and with what a report was made, in one line."""
    of = report["machine"]
    versions = ", ".join(f"{name} {version}" for name, version in report["versions"].items())
    gpu = of.get("device")
    where = (
        f"{gpu['name']}, driver {gpu['driver'] or 'unknown'}, CUDA {gpu['cuda']}; " if gpu else ""
    )
    return (
        f"{where}{of['processor']}, {of['cores']} cores, {of['instruction_set']}; "
        f"{versions}; {report['date']}"
    )
