"""For torch users: explain a module in one call."""

from __future__ import annotations

from typing import Any

import torch

from relprop.composites import Composite, Initial
from relprop.explain import Explainer
from relprop.frontends.torch import Example
from relprop.loading import load
from relprop.targets import Target


def attribute(
    module: torch.nn.Module,
    inputs: Example,
    target: Target = "argmax",
    composite: str | Composite = "epsilon_plus_flat",
    *,
    initial: Initial | None = None,
    **parameters: Any,
) -> Any:
    """Return the relevance of ``inputs``, of their shape: a tensor, or as many as they are.

    The module is converted and compiled on every call, so that its weights are today's; for
    many batches make an :class:`relprop.Explainer` once. Parameters are those of
    :class:`relprop.Explainer` and of its call, errors as well. ``inputs`` have the batch axis;
    several are a tuple, or a dictionary of keyword arguments.
    """
    explainer = Explainer(load(module, inputs), composite, **parameters)
    return explainer(inputs, target, initial=initial).relevance
