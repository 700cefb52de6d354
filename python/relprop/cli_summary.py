"""What ``relprop explain`` says at the end: tables for people, JSON for machines."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table
from rich.text import Text

from relprop.cli_output import ABSORBED, Explanation, Record
from relprop.model import Model

TOP = 5


class _PlainConsole(Console):
    """Shows names literally; what would steer the terminal, or is no text, as escapes."""

    def render_str(self, text: str, **settings: Any) -> Text:
        return super().render_str(literal(text), **settings)


def plain_console(*, stderr: bool = False) -> Console:
    """Make a console that takes names of files, nodes and classes literally."""
    return _PlainConsole(stderr=stderr, highlight=False, markup=False, emoji=False)


def literal(text: str) -> str:
    """A text with escapes for all that is not printable but the ends of lines."""
    return "".join(
        c if c.isprintable() or c == "\n" else c.encode("unicode_escape").decode() for c in text
    )


def show_error(error: Exception, console: Console) -> None:
    """Print an error in words, on one line where its text is one line."""
    console.print(f"error: {in_words(error)}", style="red", soft_wrap=True)


def in_words(error: Exception) -> str:
    """What an error says; C++ has no words for want of memory."""
    if isinstance(error, MemoryError) and str(error) in ("", "std::bad_alloc"):
        return "there is not enough memory for what the network computes."
    return str(error) or type(error).__name__


def show(model: Model, records: Sequence[Record], sheets: Sequence[Path], folder: Path) -> None:
    """Print the top classes of each image and the figures of each explanation."""
    console = plain_console()
    for record in records:
        console.print(f"\n{record.image.name}", style="bold", soft_wrap=True)
        top = Table(box=None, pad_edge=False)
        top.add_column("class", overflow="fold")
        top.add_column("score", justify="right")
        top.add_column("softmax", justify="right")
        for entry in _top(model, record):
            top.add_row(entry["name"], f"{entry['score']:.3f}", f"{entry['probability']:.1%}")
        console.print(top)
        target = f"{model.class_name(record.target)} ({record.target})"
        ledgers = [one.absorbed for one in record.explanations if one.absorbed is not None]
        booked = [n for n in ABSORBED if any(absorbed[n] for absorbed in ledgers)]
        table = Table(box=None, pad_edge=False)
        table.add_column(f"explains {target}", no_wrap=True)
        headings = ["f(x)", "sum of R", *booked, "sum of R / f(x)", "closes to"]
        for heading in headings:
            table.add_column(heading, justify="right", no_wrap=True)
        for one in record.explanations:
            score, total, ratio = _conservation(record, one)
            amounts = [f"{amount:.4f}" for amount in (score, total)]
            absorbed = one.absorbed
            amounts += ["-" if absorbed is None else f"{absorbed[name]:.4f}" for name in booked]
            shown = "-" if ratio is None else f"{ratio:.6f}"
            closes = "-" if one.closure_error is None else f"{one.closure_error:.0e}"
            if one.completeness is not None:
                closes = f"{one.completeness:+.0e}*"
            table.add_row(one.preset, *amounts, shown, closes)
        console.print()
        _print_whole(console, table)
    if records:
        count = sum(len(record.explanations) for record in records)
        if any(one.absorbed is not None for record in records for one in record.explanations):
            text = "\nf(x) = sum of R + what was absorbed, which the ledger lists"
            console.print(text, style="dim")
        if any(one.completeness is not None for record in records for one in record.explanations):
            console.print("* completeness error: sum of R less f(x) - f(baseline)", style="dim")
        console.print(f"{count} heatmaps, overlays and arrays in {folder}", soft_wrap=True)
    for sheet in sheets:
        console.print(f"side by side: {sheet}", soft_wrap=True)


def _print_whole(console: Console, table: Table) -> None:
    """Print a table without leaving columns out, however narrow the terminal is."""
    wide = console.options.update(max_width=10_000)
    table.width = max(console.measure(table, options=wide).maximum, 1)
    console.print(table, crop=False, soft_wrap=True)


def as_json(
    model: Model,
    records: Sequence[Record],
    sheets: Sequence[Path],
    failed: Sequence[tuple[Path, str]],
) -> str:
    """Return all that is known about the run as JSON."""
    content = {
        "model": model.name,
        "images": [_record(model, record) for record in records],
        "sheets": [str(sheet) for sheet in sheets],
        "failed": [{"image": str(image), "error": error} for image, error in failed],
    }
    return json.dumps(content, indent=2, allow_nan=False)


def _record(model: Model, record: Record) -> dict[str, Any]:
    explanations = []
    for one in record.explanations:
        _, total, ratio = _conservation(record, one)
        explanations.append(
            {
                "preset": one.preset,
                "relevance_sum": total,
                "conservation": ratio,
                "absorbed": one.absorbed,
                "closure_error": one.closure_error,
                "completeness": one.completeness,
                "files": {kind: str(path) for kind, path in one.files.items()},
            }
        )
    return {
        "image": str(record.image),
        "target": {
            "index": record.target,
            "name": model.class_name(record.target),
            "score": float(record.scores[record.target]),
        },
        "top": _top(model, record),
        "explanations": explanations,
    }


def _conservation(record: Record, one: Explanation) -> tuple[float, float, float | None]:
    """Score, sum of relevance, and their ratio where there is a ledger and a score."""
    score = float(record.scores[record.target])
    total = one.relevance_sum
    return score, total, total / score if score and one.absorbed is not None else None


def _top(model: Model, record: Record) -> list[dict[str, Any]]:
    scores = record.scores.astype(np.float64)
    odds = np.exp(scores - scores.max())
    best = np.argsort(-scores, kind="stable")[:TOP]
    return [
        {
            "index": int(index),
            "name": model.class_name(int(index)),
            "score": float(scores[index]),
            "probability": float(odds[index] / odds.sum()),
        }
        for index in best
    ]
