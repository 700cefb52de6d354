"""The options that give nodes their rules: preset, its parameters, rules of single nodes."""

from __future__ import annotations

import ast
import dataclasses
from collections.abc import Sequence
from difflib import get_close_matches
from typing import Annotated, Any, get_args

import typer

from relprop import rules
from relprop.composites import PRESETS, Matcher, parameters, preset, required
from relprop.graph import Graph

Parameters = Annotated[
    list[str] | None,
    typer.Option(
        "--param",
        "-p",
        metavar="KEY=VALUE",
        help="Parameter of the preset, such as epsilon=1e-9, low=-2.1,-2.0,-1.8 or norm=max.",
    ),
]
Overrides = Annotated[
    list[str] | None,
    typer.Option(
        "--rule",
        "-r",
        metavar="NODE=RULE",
        help="Rule for a node's name, an operator type or a layer's position, before the "
        "preset's: 0=Flat() or Conv=Gamma(0.5).",
    ),
]


def preset_parameters(
    presets: Sequence[str], texts: Sequence[str], option: str = "--composite"
) -> dict[str, dict[str, Any]]:
    """Hand every KEY=VALUE to the presets that know the key; ``option`` is what names presets."""
    for name in presets:
        if name not in PRESETS:
            close = get_close_matches(name, PRESETS, n=3)
            hint = (
                f"did you mean {' or '.join(close)}?"
                if close
                else f"there are {', '.join(PRESETS)}."
            )
            raise typer.BadParameter(f"there is no preset {name!r}; {hint}", param_hint=option)
    values: dict[str, dict[str, Any]] = {name: {} for name in presets}
    seen = set()
    for text in texts:
        key, _, value = text.partition("=")
        if key in seen:
            raise typer.BadParameter(f"{key!r} is given twice.", param_hint="--param")
        seen.add(key)
        takers = [name for name in presets if key in parameters(name)]
        if not takers:
            known = sorted({key for name in presets for key in parameters(name)})
            raise typer.BadParameter(
                f"{text!r} is not KEY=VALUE with one of {', '.join(known)}.", param_hint="--param"
            )
        for name in takers:
            values[name][key] = _value(value)
    for name, given in values.items():
        _try(name, given)
    return values


def _try(name: str, given: dict[str, Any]) -> None:
    """Refuse values that a preset does not take, before anything is read for it."""
    if any(key not in given for key in required(name)):
        return  # the model may bring the rest
    try:
        preset(name, **given)
    except (TypeError, ValueError) as error:
        raise typer.BadParameter(f"{name}: {error}", param_hint="--param") from None


def _value(text: str) -> float | tuple[float, ...] | str | None:
    """A number, numbers, a word, or None where that is the word."""
    if text.lower() == "none":
        return None
    try:
        numbers = tuple(_number(part) for part in text.split(","))
    except ValueError:
        return text
    return numbers[0] if len(numbers) == 1 else numbers


def _number(text: str) -> float:
    """A whole number where it is written as one."""
    try:
        return int(text)
    except ValueError:
        return float(text)


def rule_text(rule: rules.Rule) -> str:
    """A rule as ``--rule`` takes it, short: numbers first, then what is not as usual."""
    shown = []
    for field in dataclasses.fields(rule):
        value = getattr(rule, field.name)
        if isinstance(value, (int, float)):
            shown.append(f"{value:g}")
        elif isinstance(value, tuple):
            shown.append(f"({', '.join(f'{part:g}' for part in value)})")
        elif value != field.default:
            shown.append(f"{field.name}={value!r}")
    return f"{type(rule).__name__}({', '.join(shown)})"


def overrides(texts: Sequence[str], graph: Graph) -> dict[Matcher, rules.Rule]:
    """Read every NODE=RULE."""
    found: dict[Matcher, rules.Rule] = {}
    for text in texts:
        node, rule = _override(text, graph)
        if node in found:
            raise typer.BadParameter(f"{node!r} has two rules.", param_hint="--rule")
        found[node] = rule
    return found


def _override(text: str, graph: Graph) -> tuple[Matcher, rules.Rule]:
    """Read NODE=RULE, the rule written as it is printed."""
    node, equals, source = text.partition("=")
    if not equals:
        raise typer.BadParameter(f"{text!r} is not NODE=RULE.", param_hint="--rule")
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
        reason = error.msg if isinstance(error, SyntaxError) else error
        raise typer.BadParameter(f"{text!r}: {reason}", param_hint="--rule") from None
    if node not in graph.nodes and node.lstrip("-").isdigit():
        return int(node), rule
    return node, rule
