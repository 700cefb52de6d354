"""Composites map every node of a Graph to a rule; the first entry that matches wins.

Unlike in zennit, a node that nothing matches raises.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, TypeAlias

from relprop.composites.applicable import WITHOUT_RULE, problem_of
from relprop.composites.matchers import Matcher, describe, select
from relprop.errors import UnmatchedLayerError
from relprop.graph import Graph, Node
from relprop.methods import Method
from relprop.rules import Rule, Zero

Initial: TypeAlias = Literal["value", "one"]
"""The relevance that a target starts with: its output value, or one."""


@dataclass(frozen=True)
class Entry:
    """One line of a composite: the nodes that ``matcher`` selects get ``rule``."""

    matcher: Matcher
    rule: Rule

    def __str__(self) -> str:
        return f"{describe(self.matcher)}: {self.rule}"


@dataclass(frozen=True)
class Composite:
    """A name and its entries in order; the first entry that matches a node gives its rule.

    ``initial`` is what targets start with where a run does not say otherwise. ``method`` is what
    is made of runs under these rules; where there is none, a run's relevance is the attribution.
    """

    name: str
    entries: tuple[Entry, ...]
    initial: Initial = "value"
    method: Method | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "entries", tuple(self.entries))
        for entry in self.entries:
            if not isinstance(entry, Entry):
                raise TypeError(f"entries must be relprop.composites.Entry, not {entry!r}.")

    def __str__(self) -> str:
        method = () if self.method is None else (f"  {self.method}",)
        return "\n".join([self.name, *(f"  {entry}" for entry in self.entries), *method])


def assign(
    composite: Composite,
    graph: Graph,
    overrides: Mapping[Matcher, Rule] | None = None,
    *,
    part: Graph | None = None,
) -> dict[str, Rule]:
    """Give every node but inputs and constants its rule.

    Parameters
    ----------
    composite
        The entries to match.
    graph
        The canonized graph.
    overrides
        Rules that come before the composite's, in the mapping's order.
    part
        Those nodes of the graph that need a rule, by default all. Names and positions are the
        whole graph's, so that they mean the same for each of its outputs.

    Raises
    ------
    UnmatchedLayerError
        If nothing matches a node, or the matching rule does not apply to its operator.
    ValueError
        If a name or a position selects no node.
    """
    rules, problems = match(composite, graph, overrides, part=part)
    if problems:
        raise UnmatchedLayerError(
            "\n".join(
                [
                    f"composite {composite.name!r} does not serve every node:",
                    *(f"  {problem}" for problem in problems.values()),
                    "its entries, the first match wins:",
                    *(f"  {entry}" for entry in _entries(composite, overrides)),
                    "give a node its rule by name, such as rules={'name': Pass()}, "
                    "or stop its relevance with Zero().",
                ]
            )
        )
    return rules


def match(
    composite: Composite,
    graph: Graph,
    overrides: Mapping[Matcher, Rule] | None = None,
    *,
    part: Graph | None = None,
) -> tuple[dict[str, Rule], dict[str, str]]:
    """Find rules as :func:`assign` does, and say of every node that has none why."""
    selected = [
        (select(entry.matcher, graph), entry.rule) for entry in _entries(composite, overrides)
    ]
    rules: dict[str, Rule] = {}
    problems: dict[str, str] = {}
    for node in part or graph:
        if isinstance(node.operator, WITHOUT_RULE):
            continue
        rule = next((rule for names, rule in selected if node.name in names), None)
        if node.constant:
            problem = _problem_of_constant(node, (overrides or {}).get(node.name))
            rule = Zero()
        else:
            problem = problem_of(node, rule)
        if problem:
            problems[node.name] = problem
        elif rule is not None:
            rules[node.name] = rule
    return rules, problems


def _problem_of_constant(node: Node, wanted: Rule | None) -> str:
    """Say what is wrong with a rule for what takes no relevance: it was asked for by name."""
    if wanted is None or isinstance(wanted, Zero):
        return ""
    return (
        f"{node.name} ({node.type}): {wanted} does not apply; it is computed from masks and "
        "constants alone, which take no relevance."
    )


def _entries(composite: Composite, overrides: Mapping[Matcher, Rule] | None) -> tuple[Entry, ...]:
    own = tuple(Entry(matcher, rule) for matcher, rule in (overrides or {}).items())
    return own + composite.entries
