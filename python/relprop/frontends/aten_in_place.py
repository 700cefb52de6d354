"""Operators that change a tensor in place, written as those that return a new one.

torch.export leaves them in its trace. Where nothing reads the tensor afterwards, under this name
or another, that is another name of the operator; for all else torch itself makes a trace without
changes, which takes two to three times as long as the first.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import fx

from relprop.frontends.aten import TABLE
from relprop.frontends.aten_call import bind, operator_name, where
from relprop.frontends.conversion import refusal

_DROPOUTS = ("dropout", "feature_dropout", "alpha_dropout", "feature_alpha_dropout")


def without_dropout(program: fx.GraphModule) -> None:
    """Take out what is off: torch returns its argument then, but torch.export makes a copy."""
    for node in list(program.graph.nodes):
        if operator_name(node.target).removesuffix("_") in _DROPOUTS and not bind(node)["train"]:
            # An output keeps the name that the program's signature knows it by.
            node.replace_all_uses_with(node.args[0], lambda reader: reader.op != "output")
            if not node.users:
                program.graph.erase_node(node)
    program.recompile()


def without_changes(traced: fx.Graph) -> bool:
    """Rewrite all operators that change a tensor; False, and some rewritten, if one cannot be.

    Raises
    ------
    UnsupportedOperatorError
        If a change is seen through what torch takes for a copy, which it may not be.
    """
    order = {node: position for position, node in enumerate(traced.nodes)}
    memory: dict[fx.Node, set[fx.Node]] = {}  # what each value may have its own in common with
    for node in traced.nodes:
        memory[node] = {node}
        if node.op != "call_function":
            continue
        if isinstance(node.target, torch._ops.HigherOrderOperator):
            return False  # what is in it may change anything
        if not _changes(node.target):
            if _may_return_an_argument(node):
                _share(memory, [node, *node.all_input_nodes])
            continue
        shared = memory[node.args[0]] if node.args else set()
        new = _that_returns(node.target)
        if new is None or not shared or not _keeps_type(node) or _is_seen(node, shared, order):
            _refuse_false_copies(node, shared)
            return False
        node.target = new
    return True


def _changes(target: Any) -> bool:
    return isinstance(target, torch._ops.OpOverload) and bool(target._schema.is_mutable)


def _share(memory: dict[fx.Node, set[fx.Node]], nodes: list[fx.Node]) -> None:
    """Let all that have memory in common with one of some nodes have it with all of them."""
    shared = set().union(*(memory[node] for node in nodes))
    memory.update(dict.fromkeys(shared, shared))


def _may_return_an_argument(node: fx.Node) -> bool:
    """Whether a value's memory may be that of one it was made of."""
    if not isinstance(node.target, torch._ops.OpOverload):
        return True  # an entry of a list
    if any(result.alias_info for result in node.target._schema.returns):
        return True
    name = operator_name(node.target)
    return _is_a_view_in_secret(node) or (name not in TABLE and node.target._can_decompose())


def _is_a_view_in_secret(node: fx.Node) -> bool:
    """Whether torch may return memory of an argument although the operator's schema denies it."""
    name = operator_name(node.target)
    alone = name == "einsum" and len(bind(node)["tensors"]) == 1
    return alone or name in ("type_as", *_DROPOUTS)


def _that_returns(target: torch._ops.OpOverload[..., Any]) -> Any:
    """The operator without the change: ``relu`` of ``relu_``; None if there is none."""
    name = operator_name(target)
    packet = getattr(torch.ops.aten, name.removesuffix("_"), None)
    new = getattr(packet, target._overloadname, None)
    if not name.endswith("_") or new is None or new._schema.is_mutable:
        return None
    names = [[argument.name for argument in op._schema.arguments] for op in (target, new)]
    return new if names[0] == names[1] else None


def _keeps_type(node: fx.Node) -> bool:
    """Whether the operator without the change returns the type of the tensor that is changed."""
    values = [source.meta.get("val") for source in node.all_input_nodes]
    kinds = {value.dtype for value in values if isinstance(value, torch.Tensor)}
    return kinds <= {node.meta["val"].dtype, torch.bool}


def _is_seen(node: fx.Node, shared: set[fx.Node], order: dict[fx.Node, int]) -> bool:
    """Whether the memory that a node changes is anybody else's, or read after it."""
    return any(
        other.op != "call_function" or any(order[reader] > order[node] for reader in other.users)
        for other in shared
    )


def _refuse_false_copies(node: fx.Node, shared: set[fx.Node]) -> None:
    for other in shared:
        if _is_a_view_in_secret(other):
            raise refusal(
                [
                    f"{node.target} at node {node.name!r}{where(node)}: it changes what "
                    f"{other.target} may return as it is, and torch.export copies"
                ]
            )
