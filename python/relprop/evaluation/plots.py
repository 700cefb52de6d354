"""Plots of a run: how the score drops under every method, with bands, and the areas over curves.

Colours are Okabe and Ito's, which colour-blind readers can tell apart; markers tell the methods
apart as well. Equal tables give equal files.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from relprop.atomic import atomic_file
from relprop.evaluation.settings import RANDOM_ORDER
from relprop.evaluation.statistics import TableRow, Tables
from relprop.optional import import_optional
from relprop.runs.file_names import file_name

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
FEW = 4
"""Methods whose bands may lie over each other; those of more are paler."""

MARKERS = ("o", "s", "^", "D", "v", "P", "X", "<", ">", "*", "h")
GREY = "#777777"
STYLES = {"morf": "-", "lerf": "--", "random": ":"}
ORDERS = {"morf": "most relevant first", "lerf": "least relevant first", "random": "random order"}

SUFFIXES = ("png", "svg")


def write_plots(
    folder: Path, tables: Tables, perturbations: Sequence[str], methods: Sequence[str], score: str
) -> None:
    """Write ``curves-<perturbation>`` and ``aopc``, each as PNG and SVG.

    Parameters
    ----------
    folder
        Where to.
    tables
        What :func:`relprop.evaluation.statistics.tables_of` returns.
    perturbations, methods
        Their names.
    score
        What the curves follow, ``"logit"`` or ``"probability"``.

    Raises
    ------
    ImportError
        If matplotlib is not installed.
    OSError
        If a file cannot be written.
    """
    looks = {method: _look(number) for number, method in enumerate(methods)}
    looks[RANDOM_ORDER] = {"color": GREY, "marker": "None"}
    with _settings():
        for name in perturbations:
            rows = [row for row in tables["mean_curves"] if row["perturbation"] == name]
            _save(_curves(rows, name, score, looks), folder / f"curves-{file_name(name)}")
        _save(_areas(tables["aopc"], perturbations, score, looks), folder / "aopc")


@contextmanager
def _settings() -> Iterator[None]:
    matplotlib = import_optional("matplotlib", "evaluation", "plotting")
    with matplotlib.rc_context():
        matplotlib.rcdefaults()  # whatever the user's own file says
        matplotlib.rcParams.update(
            {
                "svg.hashsalt": "relprop",
                "svg.fonttype": "none",
                "font.size": 9,
                "axes.spines.top": False,
                "axes.spines.right": False,
                "axes.titlesize": 10,
                "legend.frameon": False,
                "text.parse_math": False,  # names may hold dollars
            }
        )
        yield


def _figure(width: float, height: float) -> Any:
    """A figure of its own: pyplot keeps figures, and asks for a display."""
    figures = import_optional("matplotlib.figure", "evaluation", "plotting")
    return figures.Figure(figsize=(width, height), layout="constrained")


def _save(figure: Any, stem: Path) -> None:
    for suffix in SUFFIXES:
        with atomic_file(stem.with_name(f"{stem.name}.{suffix}")) as part:
            metadata = {"Date": None} if suffix == "svg" else {"Software": None}
            figure.savefig(part, format=suffix, dpi=150, metadata=metadata)


def _look(number: int) -> dict[str, str]:
    return {
        "color": COLOURS[number % len(COLOURS)],
        "marker": MARKERS[number % len(MARKERS)],
    }


def _curves(rows: list[TableRow], name: str, score: str, looks: dict[str, Any]) -> Any:
    """How far the score has dropped, with bands; the style of a line tells the order."""
    figure = _figure(7.5, 4.5)
    axes = figure.add_subplot()
    several = len({row["order"] for row in rows} - {"random"}) > 1
    alpha = 0.15 if len(looks) <= FEW else 0.06
    lines, labels = [], []
    for order, method in dict.fromkeys((row["order"], row["method"]) for row in rows):
        own = [row for row in rows if (row["order"], row["method"]) == (order, method)]
        steps = [row["step"] for row in own]
        look = looks[method]
        named = several and order != "random"
        labels.append(f"{method}, {ORDERS[order]}" if named else method)
        lines += axes.plot(
            steps,
            [row["drop"] for row in own],
            linestyle=STYLES[order],
            linewidth=1.4,
            markersize=4,
            markevery=max(1, len(steps) // 10),
            **look,
        )
        if own[0]["low"] is not None:
            low, high = ([row[end] for row in own] for end in ("low", "high"))
            axes.fill_between(steps, low, high, color=look["color"], alpha=alpha, linewidth=0)
    axes.set_xlabel("regions taken")
    axes.set_ylabel(f"drop of the {score}, mean over images")
    axes.set_title(name)
    axes.margins(x=0.01)
    axes.axhline(0.0, color="black", linewidth=0.5)
    figure.legend(
        lines, labels, loc="outside right upper"
    )  # a line's own label may not begin with _
    return figure


def _areas(
    rows: list[TableRow], perturbations: Sequence[str], score: str, looks: dict[str, Any]
) -> Any:
    """A bar for each method and order with its interval, a panel for each perturbation."""
    bars = list(dict.fromkeys((row["method"], row["order"]) for row in rows))
    figure = _figure(2.2 + 3.0 * len(perturbations), 0.9 + 0.28 * len(bars))
    panels = figure.subplots(1, len(perturbations), sharey=True, squeeze=False)[0]
    several = len({order for _, order in bars} - {"random"}) > 1
    for axes, name in zip(panels, perturbations):
        for row in rows:
            if row["perturbation"] != name:
                continue
            _bar(axes, bars.index((row["method"], row["order"])), row, looks[row["method"]])
        axes.axvline(0.0, color="black", linewidth=0.8)
        axes.set_title(name)
        axes.set_xlabel(f"AOPC ({score})")
    labels = [
        f"{method}, {order}" if several and order != "random" else method for method, order in bars
    ]
    panels[0].set_yticks(range(len(bars)), labels)
    panels[0].invert_yaxis()
    return figure


def _bar(axes: Any, place: int, row: TableRow, look: dict[str, str]) -> None:
    axes.barh(
        place,
        row["aopc"],
        color=look["color"],
        alpha=0.45 if row["order"] == "lerf" else 0.85,
        height=0.7,
    )
    if row["low"] is not None:
        axes.plot([row["low"], row["high"]], [place, place], color="black", linewidth=1.2)
