"""The file format ``.relprop``: a Model in one safetensors file, without pickle.

Arrays are the file's tensors; all else is JSON in its metadata, one entry per node with the
operator's fields under their own names. What an operator's fields may hold is read off their
annotations, so that a new operator needs nothing here. Nothing in a file is believed: types are
checked field by field, and shapes by :meth:`relprop.graph.Graph.add`.
"""

from __future__ import annotations

import dataclasses
import json
import math
import os
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

import numpy as np
from numpy.typing import NDArray

from relprop.atomic import write_atomically
from relprop.graph import Array, Graph, Operator
from relprop.model import Model
from relprop.preprocessing import Preprocessing

SUFFIX = ".relprop"
"""What the names of such files end in."""

VERSION = 2
"""The format's version: raised when older releases could no longer read a file rightly."""

_OPERATORS: dict[str, type] = {operator.__name__: operator for operator in get_args(Operator)}
_LARGEST = 2**31 - 1
_INFINITE = ("inf", "-inf")
"""JSON has no infinite numbers, pads do."""


def save(model: Model, path: str | os.PathLike[str], *, overwrite: bool = False) -> None:
    """Write a model to a file that :func:`relprop.load` reads; see :meth:`Model.save`."""
    target = Path(path)
    if target.suffix != SUFFIX:
        raise ValueError(f"path must end in {SUFFIX}, not {target.name!r}.")
    if target.exists() and not overwrite:
        raise FileExistsError(f"{target} exists already; overwrite=True replaces it.")
    content, tensors = _written(model)
    try:
        _read(content, tensors.__getitem__)  # what cannot be loaded is not saved
    except (ValueError, KeyError) as error:
        raise ValueError(f"{model.name} cannot be saved: {error}") from None
    from safetensors.numpy import save as pack

    from relprop import __version__

    metadata = {
        "relprop.format": str(VERSION),
        "relprop.writer": __version__,
        "relprop.model": json.dumps(content, allow_nan=False),
    }
    write_atomically(target, pack(tensors, metadata))


def load(path: str | os.PathLike[str]) -> Model:
    """Read a model that :func:`save` wrote.

    Raises
    ------
    ValueError
        If the file is damaged, is no relprop file, or needs a newer relprop; the message names
        the file and the part that is wrong.
    OSError
        If it cannot be read.
    """
    from safetensors import SafetensorError, safe_open

    with Path(path).open("rb"):
        pass  # whether it can be read is not safetensors' to say
    try:
        with safe_open(path, framework="numpy") as file:
            content = _content(file.metadata() or {})
            names = set(file.keys())

            def tensor(name: str) -> NDArray[Any]:
                _require(name in names, f"tensor {name!r} is missing.")
                kind = file.get_slice(name).get_dtype()
                _require(kind == "F32", f"tensor {name!r} must be F32, not {kind}.")
                array: NDArray[Any] = file.get_tensor(name)
                return array

            model, used = _read(content, tensor)
            extra = sorted(names - used)
            _require(not extra, f"no node uses the tensors {_shown(extra)}.")
    except SafetensorError as error:
        raise ValueError(f"{path}: damaged, or no relprop file: {error}") from None
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None
    except RecursionError:
        raise ValueError(f"{path}: 'relprop.model' is nested too deeply.") from None
    return model


def _require(condition: bool, text: str) -> None:
    if not condition:
        raise ValueError(text)


def _content(metadata: Mapping[str, str]) -> Any:
    """The JSON of a file whose version is known."""
    version = metadata.get("relprop.format")
    _require(version is not None, "no relprop file: its metadata has no 'relprop.format'.")
    assert version is not None
    _require(
        version.isascii() and version.isdecimal() and 0 < len(version) <= 9,
        f"'relprop.format' must be a number, not {_shown(version)}.",
    )
    advice = "Install a newer one." if int(version) > VERSION else "Save the model once more."
    _require(
        int(version) == VERSION,
        f"the file is of format {version}, written by relprop "
        f"{_shown(metadata.get('relprop.writer'))}; this relprop reads format {VERSION}. {advice}",
    )
    _require("relprop.model" in metadata, "its metadata has no 'relprop.model'.")
    try:
        return json.loads(metadata["relprop.model"])
    except ValueError as error:
        raise ValueError(f"'relprop.model' is not readable as JSON: {error}") from None


# --- Writing -----------------------------------------------------------------------------------


def _written(model: Model) -> tuple[dict[str, Any], dict[str, NDArray[Any]]]:
    """A model as JSON values, and its arrays by name; an array used twice is stored once."""
    tensors: dict[str, NDArray[Any]] = {}
    names: dict[int, str] = {}

    def plain(value: Any, name: str) -> Any:
        if isinstance(value, np.ndarray):
            if id(value) not in names:
                names[id(value)] = name
                tensors[name] = np.asarray(value, order="C")
            return names[id(value)]
        if isinstance(value, np.generic):
            value = value.item()
        if isinstance(value, (tuple, list)):
            return [plain(part, name) for part in value]
        return str(value) if isinstance(value, float) and math.isinf(value) else value

    def fields(of: Any, name: str) -> dict[str, Any]:
        return {
            field.name: plain(getattr(of, field.name), f"{name}.{field.name}")
            for field in dataclasses.fields(of)
        }

    content = {
        "name": model.name,
        "classes": list(model.classes),
        "preprocessing": model.preprocessing and fields(model.preprocessing, "preprocessing"),
        "nodes": [
            {
                "name": node.name,
                "operator": node.type,
                "inputs": list(node.inputs),
                "fields": fields(node.operator, node.name),
            }
            for node in model.graph
        ],
        "outputs": [list(pair) for pair in model.graph.outputs.items()],
    }
    return content, tensors


# --- Reading -----------------------------------------------------------------------------------

Tensor = Callable[[str], NDArray[Any]]
"""Finds an array by its name."""


def _read(content: Any, tensor: Tensor) -> tuple[Model, set[str]]:
    """The model that JSON values describe, and the names of the tensors that it uses."""
    arrays: dict[str, NDArray[Any]] = {}

    def find(name: str) -> NDArray[Any]:
        if name not in arrays:
            arrays[name] = tensor(name)
        return arrays[name]

    parts = _record(content, ("name", "classes", "preprocessing", "nodes", "outputs"), "the model")
    name = _typed(str, parts["name"], "name", find)
    classes = _typed(tuple[str, ...], parts["classes"], "classes", find)
    preprocessing = None
    if parts["preprocessing"] is not None:
        preprocessing = _dataclass(Preprocessing, parts["preprocessing"], "preprocessing", find)
    graph = Graph()
    for i, entry in enumerate(_typed(list, parts["nodes"], "nodes", find)):
        node = _record(entry, ("name", "operator", "inputs", "fields"), f"node {i}")
        own = _typed(str, node["name"], f"node {i}: name", find)
        kind = _typed(str, node["operator"], f"node {own!r}: operator", find)
        _require(
            kind in _OPERATORS,
            f"node {own!r}: there is no operator {_shown(kind)}; known are "
            f"{', '.join(_OPERATORS)}.",
        )
        where = f"node {own!r} ({kind})"
        inputs = _typed(tuple[str, ...], node["inputs"], f"{where}: inputs", find)
        graph.add(own, _dataclass(_OPERATORS[kind], node["fields"], where, find), inputs)
    outputs = _typed(tuple[tuple[str, str], ...], parts["outputs"], "outputs", find)
    for own, output in outputs:
        _require(output in graph.nodes, f"output {own!r} names {output!r}, which is no node.")
    graph.outputs = dict(outputs)
    _require(len(graph.outputs) == len(outputs), "outputs must differ in their names.")
    _require(bool(outputs) and bool(graph.inputs), "the model must have inputs and outputs.")
    model = Model(graph, preprocessing, classes, name)
    model.check()
    return model, set(arrays)


def _record(value: Any, names: tuple[str, ...], where: str) -> dict[str, Any]:
    """A JSON object with these entries, neither more nor less."""
    _require(isinstance(value, dict), f"{where} must be an object, not {_shown(value)}.")
    missing = [name for name in names if name not in value]
    _require(not missing, f"{where} lacks {', '.join(missing)}.")
    extra = [_shown(name) for name in value if name not in names]
    _require(not extra, f"{where} has no {', '.join(extra)}; its entries are {', '.join(names)}.")
    assert isinstance(value, dict)
    return value


def _dataclass(kind: type, value: Any, where: str, tensor: Tensor) -> Any:
    hints = get_type_hints(kind)
    names = tuple(field.name for field in dataclasses.fields(kind))
    parts = _record(value, names, where)
    values = {n: _typed(hints[n], parts[n], f"{where}: {n}", tensor) for n in names}
    try:
        return kind(**values)
    except ValueError as error:
        raise ValueError(f"{where}: {error}") from None


def _typed(kind: Any, value: Any, where: str, tensor: Tensor) -> Any:
    """A JSON value as what the annotation ``kind`` says."""
    arguments = get_args(kind)
    origin = get_origin(kind)
    if kind == Array:
        _require(isinstance(value, str), f"{where} must name a tensor, not {_shown(value)}.")
        array = tensor(value)
        _require(array.dtype == np.float32, f"{where} must be float32, not {array.dtype}.")
        return array
    if origin in (Union, UnionType):
        (kind,) = (one for one in arguments if one is not NoneType)
        return None if value is None else _typed(kind, value, where, tensor)
    if origin is tuple:
        _require(isinstance(value, list), f"{where} must be a list, not {_shown(value)}.")
        if arguments[-1] is Ellipsis:
            arguments = arguments[:1] * len(value)
        _require(
            len(value) == len(arguments),
            f"{where} must have {len(arguments)} entries, not {len(value)}.",
        )
        return tuple(_typed(one, v, where, tensor) for one, v in zip(arguments, value))
    if origin is Literal:
        known = ", ".join(map(str, arguments))
        _require(
            isinstance(value, str) and value in arguments,
            f"{where} must be one of {known}, not {_shown(value)}.",
        )
        return value
    if kind is float:
        finite = type(value) in (int, float) and abs(value) <= sys.float_info.max
        _require(finite or value in _INFINITE, f"{where} must be a number, not {_shown(value)}.")
        return float(value)
    _require(type(value) is kind, f"{where} must be {kind.__name__}, not {_shown(value)}.")
    is_text = kind is not str or value == value.encode("utf-8", "replace").decode()
    _require(is_text, f"{where} holds what is no character: {_shown(value)}.")
    _require(kind is not int or abs(value) <= _LARGEST, f"{where} is too large: {_shown(value)}.")
    return value


def _shown(value: object) -> str:
    """A value of a file as a message can hold it."""
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."
