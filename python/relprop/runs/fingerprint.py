"""What a run's result depends on, as text: two runs with the same fingerprint have one result."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import fields
from typing import Any

import numpy as np

from relprop.datasets import Dataset
from relprop.explain import Explainer
from relprop.model import Model
from relprop.runs.classes import ClassMap
from relprop.runs.stretch import count, digest

Fingerprint = dict[str, Any]
"""Texts by what they describe; ``rules`` is a text for each node."""

_SAID = 300
"""Letters of a value that an error repeats: a grid has a name for each of its regions."""


def of_explainer(explainer: Explainer) -> Fingerprint:
    """Describe the model, the rules and the arithmetic."""
    return of_network(explainer) | of_method(explainer)


def of_network(explainer: Explainer) -> Fingerprint:
    """Describe the model, its output that is explained, and the arithmetic."""
    from relprop import __version__

    model = explainer.model
    return {
        "relprop": __version__,
        "model": f"{model.name} {_digest(model)}",
        "output": explainer.graph.output,
        "classes": _short(hashlib.sha256(json.dumps(model.classes).encode())),
        "preprocessing": str(model.preprocessing),
        "device": explainer.device.partition(":")[0],
        "precision": explainer.precision,
    }


def of_method(explainer: Explainer) -> Fingerprint:
    """Describe the rules."""
    return {
        "composite": explainer.composite.name,
        "initial": explainer.composite.initial,
        "method": None if explainer.composite.method is None else str(explainer.composite.method),
        "rules": {name: str(rule) for name, rule in explainer.rules.items()},
        "ledger": str(explainer.ledger),
    }


def of_items(part: Dataset, limit: int | None, class_map: ClassMap | None) -> Fingerprint:
    """Describe the part of a dataset that is read, and what its classes are in the model.

    Photos are not read for it: that one of them has changed is not seen.
    """
    return {
        "class map": {name: str(known) for name, known in (class_map or {}).items()},
        "dataset": part.name,
        "dataset's classes": list(part.classes),
        "limit": limit,
        "items": count(part),
        "keys and labels": digest(part),
    }


def differences(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    """Say in words what differs, the old run's value first.

    Of what a run names several of, such as methods or classes, the order counts: what is kept of
    items has them by their places.
    """
    found = []
    for key in dict.fromkeys([*old, *new]):
        before, after = old.get(key), new.get(key)
        if isinstance(before, Mapping) and isinstance(after, Mapping):
            inner = differences(before, after)
            if not inner and list(before) != list(after):
                inner = [_difference(", ".join(before), ", ".join(after))]
            more = f" and {len(inner) - 1} more" if len(inner) > 1 else ""
            found += [f"{key}: {one}{more}" for one in inner[:1]]
        elif before != after:
            found.append(f"{key}: {_difference(before, after)}")
    return found


def _difference(before: Any, after: Any) -> str:
    return f"{_said(before)} there, {_said(after)} here"


def _said(value: Any) -> str:
    text = "nothing" if value is None else str(value)
    return text if len(text) <= _SAID else f"{text[: _SAID - 3]}..."


def _digest(model: Model) -> str:
    """A short hash of the graph with its weights."""
    hashed = hashlib.sha256()
    for node in model.graph:
        hashed.update(repr((node.name, node.type, node.inputs)).encode())
        for part in _parts(node.operator):
            hashed.update(part)
    return _short(hashed)


def _parts(operator: Any) -> Iterator[Any]:
    """What an operator is made of, as bytes."""
    for field in fields(operator):
        value = getattr(operator, field.name)
        if isinstance(value, np.ndarray):
            yield f"{field.name} {value.dtype} {value.shape}".encode()
            yield np.ascontiguousarray(value).reshape(-1).view(np.uint8).data
        else:
            yield f"{field.name} {value!r}".encode()


def _short(hashed: Any) -> str:
    return str(hashed.hexdigest()[:16])
