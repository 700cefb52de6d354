"""``relprop presets``: what each preset maps to."""

from __future__ import annotations

import dataclasses
import json
from typing import Annotated

import typer
from rich.table import Table

from relprop.cli_summary import plain_console
from relprop.composites import PRESETS, Composite, describe, parameters, preset
from relprop.rules import Rule, ZBox


def presets(
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON for machines.")] = False,
) -> None:
    """List the presets and the rules that they give to nodes; the first match wins."""
    listed = {name: _entries(_example(name)) for name in PRESETS}
    if as_json:
        content = [
            {"name": name, "parameters": parameters(name), "entries": [list(e) for e in entries]}
            for name, entries in listed.items()
        ]
        typer.echo(json.dumps(content, indent=2))
        return
    # what presets of several lines end with is shown once
    longer = [entries for entries in listed.values() if len(entries) > 1]
    shared = [entry for entry in longer[0] if all(entry in entries for entries in longer)]
    table = Table("preset", "nodes", "rule", "parameters", box=None, pad_edge=False)
    for name, entries in listed.items():
        own = [entry for entry in entries if entry not in shared]
        options = [_parameter(key, value) for key, value in parameters(name).items()]
        for i, (nodes, rule) in enumerate(own):
            table.add_row(name if i == 0 else "", nodes, rule, ", ".join(options) if i == 0 else "")
        table.add_row()
    for i, (nodes, rule) in enumerate(shared):
        table.add_row("all others" if i == 0 else "", nodes, rule)
    plain_console().print(table)


def _example(name: str) -> Composite:
    """Make a preset; bounds that a user must give only stand for themselves here."""
    required = [key for key, default in parameters(name).items() if default is None]
    return preset(name, **dict.fromkeys(required, 0.0))


def _entries(composite: Composite) -> list[tuple[str, str]]:
    return [(describe(entry.matcher), _rule(entry.rule)) for entry in composite.entries]


def _rule(rule: Rule) -> str:
    if isinstance(rule, ZBox):
        return "ZBox(low, high)"
    values = {field.name: getattr(rule, field.name) for field in dataclasses.fields(rule)}
    shown = [f"{key}={value:g}" for key, value in values.items() if isinstance(value, float)]
    return f"{type(rule).__name__}({', '.join(shown)})"


def _parameter(name: str, default: object) -> str:
    if default is None:
        return name
    return f"{name}={default:g}" if isinstance(default, float) else f"{name}={default}"
