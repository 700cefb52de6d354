"""Small ONNX models, written as text."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper, parser

FLOAT = onnx.TensorProto.FLOAT
IMAGE = ("N", 3, 8, 8)


def build(
    *nodes: str,
    shape: tuple[str | int | None, ...] | None = IMAGE,
    opset: int = 17,
    inputs: tuple[str, ...] = ("x",),
    outputs: tuple[str, ...] = ("y",),
    kind: int = FLOAT,
    **tensors: Any,
) -> onnx.ModelProto:
    """A model of the nodes ``"y = Relu(x)"`` and so on; ``tensors`` become initialisers."""
    graph = helper.make_graph(
        [parser.parse_node(node) for node in nodes],
        "graph",
        [helper.make_tensor_value_info(name, kind, shape) for name in inputs],
        [helper.make_tensor_value_info(name, FLOAT, None) for name in outputs],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in tensors.items()],
    )
    return helper.make_model(
        graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=min(opset, 10)
    )


def write(model: onnx.ModelProto | bytes, folder: Path, name: str = "model.onnx") -> Path:
    path = folder / name
    path.write_bytes(model if isinstance(model, bytes) else model.SerializeToString())
    return path


def random(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def integers(*values: int) -> np.ndarray:
    return np.array(values, np.int64)
