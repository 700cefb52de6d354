"""``relprop inspect``: what a model is made of, what it costs and how it would be explained."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Annotated, Any

import typer
from rich.table import Table

from relprop import costs
from relprop.canonizers import for_output
from relprop.cli_model import ModelName, OutputName, Shape, Weights, load_model, read_shape
from relprop.cli_rules import Overrides, Parameters, overrides, preset_parameters, rule_text
from relprop.cli_summary import plain_console
from relprop.composites import match
from relprop.errors import UnsupportedOperatorError
from relprop.model import Model
from relprop.rules import Rule

UNSUPPORTED = 1
"""Exit code where a part of the model cannot be explained."""


def inspect(
    model: ModelName,
    composite: Annotated[
        str,
        typer.Option(
            "--composite", "-c", metavar="PRESET", help="Which rules, see relprop presets."
        ),
    ] = "epsilon_plus_flat",
    param: Parameters = None,
    rule: Overrides = None,
    output_name: OutputName = None,
    weights: Weights = None,
    shape: Shape = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON for machines.")] = False,
) -> None:
    """Show a model's nodes, the rule that each would get, and what each costs.

    Multiply-adds are those of layers with weights, for one sample. Nodes are shown as they are
    explained: batch norm is folded into its neighbour where it can be, and a final softmax is cut.
    Of several outputs all are shown, or what leads to the one of --output-name.

    [bold]Exit codes[/bold]  0: all of the model can be explained. 1: some of it is unsupported or
    has no rule; everything that is in the way is listed. 2: wrong use. 3: it cannot be loaded.

    [bold]Examples[/bold]

    relprop inspect efficientnet-lite0

    relprop inspect my_package.nets:make_net --shape 3,224,224 -c alpha2_beta1 --json
    """
    values = preset_parameters([composite], param or [])[composite]
    try:
        loaded = load_model(
            model,
            weights=weights,
            shape=read_shape(shape),
            wanted="--shape, such as 3,224,224",
        )
    except UnsupportedOperatorError as error:
        _refuse(model, str(error), as_json)
        raise typer.Exit(UNSUPPORTED) from None

    from relprop.explain import composite_for

    chosen = composite_for(loaded, composite, values)
    part = loaded.graph if output_name is None else for_output(loaded.graph, output_name)
    own_rules = overrides(rule or [], loaded.graph)
    rules, missing = match(chosen, loaded.graph, own_rules, part=part)
    loaded = replace(loaded, graph=part)
    problems = list(missing.values()) or _compile(loaded, rules)
    content = _content(loaded, composite, rules, problems)
    if as_json:
        typer.echo(json.dumps(content, indent=2, allow_nan=False))
    else:
        _show(content)
    if problems:
        raise typer.Exit(UNSUPPORTED)


def _compile(model: Model, rules: dict[str, Rule]) -> list[str]:
    """What the compiled core does not take, if anything."""
    from relprop.compile import compile_plan

    problems: dict[str, None] = {}
    for output in model.graph.outputs:
        try:
            compile_plan(for_output(model.graph, output), rules)
        except ValueError as error:
            problems[str(error)] = None
    return list(problems)


def _refuse(name: str, text: str, as_json: bool) -> None:
    """Print why a model is no Graph; the operators stand on lines of their own."""
    if as_json:
        first, *operators = (line.strip() for line in text.splitlines())
        content = {"model": name, "nodes": [], "problems": operators or [first]}
        typer.echo(json.dumps(content, indent=2))
    else:
        plain_console(stderr=True).print(f"{name}: {text}", style="red", soft_wrap=True)


def _content(
    model: Model, composite: str, rules: dict[str, Rule], problems: list[str]
) -> dict[str, Any]:
    graph = model.graph
    nodes = [
        {
            "name": node.name,
            "operator": node.type,
            "inputs": list(node.inputs),
            "shape": list(node.shape),
            "rule": rule_text(rules[node.name]) if node.name in rules else None,
            "parameters": costs.parameters(node),
            "multiply_adds": costs.multiply_adds(graph, node),
        }
        for node in graph
    ]
    return {
        "model": model.name,
        "inputs": [node.name for node in graph.inputs],
        "outputs": dict(graph.outputs),
        "composite": composite,
        "nodes": nodes,
        "parameters": costs.total_parameters(graph),
        "multiply_adds": sum(node["multiply_adds"] for node in nodes),
        "problems": problems,
    }


def _show(content: dict[str, Any]) -> None:
    console = plain_console()
    if not console.is_terminal:
        console.width = 1000  # files have no edge at which to break lines
    table = Table(box=None, pad_edge=False, padding=(0, 1, 0, 0))
    table.add_column("", justify="right", no_wrap=True)
    for heading in ("node", "operator", "output", "rule"):
        table.add_column(heading, overflow="fold", no_wrap=heading in ("operator", "output"))
    for heading in ("params", "mult-adds"):
        table.add_column(heading, justify="right", no_wrap=True)
    table.add_column("reads", overflow="fold")
    rows = {node["name"]: row for row, node in enumerate(content["nodes"])}
    for row, node in enumerate(content["nodes"]):
        reads = [rows[name] for name in node["inputs"]]
        table.add_row(
            str(row),
            node["name"],
            node["operator"],
            _extent(node["shape"]),
            node["rule"],
            _count(node["parameters"]),
            _count(node["multiply_adds"]),
            "" if reads == [row - 1] else ", ".join(map(str, reads)),  # else what is above
        )
    console.print(table)
    totals = f"{content['parameters']:,} parameters, {content['multiply_adds']:,} multiply-adds"
    shapes = {node["name"]: _extent(node["shape"]) for node in content["nodes"]}
    inputs = ", ".join(f"{name} {shapes[name]}" for name in content["inputs"])
    outputs = ", ".join(f"{name} {shapes[node]}" for name, node in content["outputs"].items())
    console.print(
        f"\n{content['model']}: {inputs} in, {outputs} out, "
        f"{len(content['nodes'])} nodes, {totals}",
        soft_wrap=True,
    )
    if content["problems"]:
        console.print(f"\ncannot be explained with {content['composite']}:", style="red")
        for problem in content["problems"]:
            console.print(f"  {problem}", style="red", soft_wrap=True)


def _extent(shape: list[int]) -> str:
    return "x".join(map(str, shape)) or "1"


def _count(number: int) -> str:
    """A count in few characters, nothing for none."""
    for unit, size in (("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if number >= size:
            return f"{number / size:.1f} {unit}"
    return str(number or "")
