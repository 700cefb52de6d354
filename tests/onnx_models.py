"""ONNX models: small ones written as text, others by torch."""

from __future__ import annotations

import io
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from onnx import helper, numpy_helper, parser
from torch import Tensor, nn

from relprop import Graph
from relprop.canonizers import canonize
from relprop.frontends.onnx import convert

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


def exported(
    module: nn.Module,
    inputs: tuple[Tensor, ...],
    exporter: str,
    folder: Path,
    names: tuple[str, ...] = ("x",),
    outputs: tuple[str, ...] = ("y",),
) -> Graph:
    """A module by way of a file, made by torch.export or by the older exporter ("trace")."""
    file = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if exporter == "trace":
            axes = {name: {0: "batch"} for name in (*names, *outputs)}
            given = {"input_names": names, "output_names": outputs, "dynamic_axes": axes}
            torch.onnx.export(module, inputs, file, dynamo=False, **given)
        else:
            axes = tuple({0: torch.export.Dim.DYNAMIC} for _ in inputs)
            program = torch.export.export(module, inputs, dynamic_shapes=axes, strict=False)
            given = {"input_names": names, "output_names": outputs}
            torch.onnx.export(program, (), file, dynamo=True, verbose=False, **given)
    return canonize(convert(write(file.getvalue(), folder)))


def random(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def integers(*values: int) -> np.ndarray:
    return np.array(values, np.int64)
