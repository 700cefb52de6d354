"""``relprop presets``: what each preset maps to."""

from __future__ import annotations

import dataclasses
import json
from typing import Annotated

import typer
from rich.table import Column, Table

from relprop.cli_summary import plain_console
from relprop.composites import PRESETS, Composite, describe, parameters, preset, required
from relprop.rules import Rule, ZBox


def presets(
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON for machines.")] = False,
) -> None:
    """List the presets and the rules that they give to nodes; the first match wins."""
    made = {name: _example(name) for name in PRESETS}
    listed = {name: _entries(composite) for name, composite in made.items()}
    methods = {
        name: None if composite.method is None else type(composite.method).__name__
        for name, composite in made.items()
    }
    if as_json:
        content = [
            {
                "name": name,
                "parameters": parameters(name),
                "entries": [list(e) for e in entries],
                "method": methods[name],
            }
            for name, entries in listed.items()
        ]
        typer.echo(json.dumps(content, indent=2))
        return
    # what presets that name the types of nodes end with is shown once
    longer = [entries for entries in listed.values() if entries[-1][0] != describe(object)]
    shared = [entry for entry in longer[0] if all(entry in entries for entries in longer)]
    first = Column("preset", no_wrap=True)
    others = (Column(name, overflow="fold") for name in ("nodes", "rule", "parameters"))
    table = Table(first, *others, box=None, pad_edge=False)
    for name, entries in listed.items():
        own = [entry for entry in entries if entry not in shared]
        options = [_parameter(name, key, value) for key, value in parameters(name).items()]
        for i, (nodes, rule) in enumerate(own):
            table.add_row(name if i == 0 else "", nodes, rule, ", ".join(options) if i == 0 else "")
        if methods[name] is not None:
            table.add_row("", "made into", methods[name])
        table.add_row()
    for i, (nodes, rule) in enumerate(shared):
        table.add_row("all others" if i == 0 else "", nodes, rule)
    plain_console().print(table)


def _example(name: str) -> Composite:
    """Make a preset; bounds that a user must give only stand for themselves here."""
    return preset(name, **dict.fromkeys(required(name), 0.0))


def _entries(composite: Composite) -> list[tuple[str, str]]:
    return [(describe(entry.matcher), _rule(entry.rule)) for entry in composite.entries]


def _rule(rule: Rule) -> str:
    if isinstance(rule, ZBox):
        return "ZBox(low, high)"
    values = {field.name: getattr(rule, field.name) for field in dataclasses.fields(rule)}
    shown = [f"{key}={value:g}" for key, value in values.items() if isinstance(value, float)]
    return f"{type(rule).__name__}({', '.join(shown)})"


def _parameter(name: str, key: str, default: object) -> str:
    if key in required(name):
        return key
    shown = "none" if default is None else f"{default:g}" if isinstance(default, float) else default
    return f"{key}={shown}"
