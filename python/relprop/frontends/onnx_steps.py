"""One node of an ONNX model with typed access to its attributes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import onnx

from relprop.frontends.onnx_tensors import Storage, Tensor, type_name

LARGEST = 2**31 - 1
"""What windows and axes stay below; also how many values one sample may have at a node."""


class Step:
    """A node of an ONNX model.

    Attributes are checked when they are asked for: one of another type is a ValueError.
    """

    def __init__(self, node: onnx.NodeProto, opset: int, storage: Storage) -> None:
        self.type = str(node.op_type)
        self.domain = "" if node.domain == "ai.onnx" else str(node.domain)
        self.inputs = tuple(node.input)
        self.outputs = tuple(node.output)
        self.name = str(node.name or next(filter(None, node.output), node.op_type))
        self.opset = opset
        self.storage = storage
        self.attributes = {str(a.name): a for a in node.attribute}

    def __str__(self) -> str:
        kind = f"{self.domain}.{self.type}" if self.domain else self.type
        return f"{kind} at node {self.name!r}"

    def _get(self, name: str, field: str, kind: int) -> Any:
        attribute = self.attributes.get(name)
        if attribute is None:
            return None
        if attribute.type != kind:
            raise ValueError(f"attribute {name!r} is of the wrong type")
        return getattr(attribute, field)

    def integer(self, name: str, default: int) -> int:
        """An integer attribute."""
        value = self._get(name, "i", onnx.AttributeProto.INT)
        return default if value is None else int(value)

    def integers(self, name: str) -> tuple[int, ...] | None:
        """An attribute that lists integers, None where it is not given."""
        values = self._get(name, "ints", onnx.AttributeProto.INTS)
        return None if values is None else tuple(values)

    def number(self, name: str, default: float) -> float:
        """A float attribute."""
        value = self._get(name, "f", onnx.AttributeProto.FLOAT)
        if value is not None and not math.isfinite(value):
            raise ValueError(f"attribute {name!r} is {value}")
        return default if value is None else float(value)

    def text(self, name: str, default: str) -> str:
        """A string attribute."""
        value = self._get(name, "s", onnx.AttributeProto.STRING)
        return default if value is None else value.decode(errors="replace")

    def texts(self, name: str) -> list[str]:
        """An attribute that lists strings, empty where it is not given."""
        values = self._get(name, "strings", onnx.AttributeProto.STRINGS) or ()
        return [value.decode(errors="replace") for value in values]

    def array(self, name: str) -> Tensor | None:
        """A tensor attribute as an array, None where it is not given."""
        value = self._get(name, "t", onnx.AttributeProto.TENSOR)
        return None if value is None else self.storage.read(value)

    def branch(self, name: str) -> onnx.GraphProto:
        """A graph attribute, empty where it is not given."""
        found = self._get(name, "g", onnx.AttributeProto.GRAPH)
        return onnx.GraphProto() if found is None else found

    def window(self, name: str, default: Sequence[int], least: int = 1) -> tuple[int, ...]:
        """An attribute of one integer per spatial axis, each at least ``least``."""
        values = self.integers(name)
        if values is None:
            return tuple(default)
        if len(values) != len(default) or not all(least <= v <= LARGEST for v in values):
            raise ValueError(f"{name} must be {len(default)} integers from {least}, not {values}")
        return values


def cast_target(step: Step) -> int:
    """The element type that a Cast makes."""
    kind = step.integer("to", 0)
    if not kind:
        raise ValueError(f"it casts to {type_name(kind)}")
    return kind
