"""For torch users: explain a module in one call."""

from __future__ import annotations

from typing import Any, Literal

import torch

from relprop.composites import Composite
from relprop.explain import Explainer, Target
from relprop.loading import load


def attribute(
    module: torch.nn.Module,
    inputs: torch.Tensor,
    target: Target = "argmax",
    composite: str | Composite = "epsilon_plus_flat",
    *,
    initial: Literal["value", "one"] = "value",
    **parameters: Any,
) -> torch.Tensor:
    """Return the relevance of ``inputs``, a tensor of their shape.

    The module is converted and compiled on every call, so that its weights are today's; for
    many batches make an :class:`relprop.Explainer` once. Parameters are those of
    :class:`relprop.Explainer` and of its call, errors as well; ``inputs`` has the batch axis.
    """
    model = load(module, inputs[:1])
    relevance: torch.Tensor = Explainer(model, composite, **parameters)(
        inputs, target, initial=initial
    ).relevance
    return relevance
