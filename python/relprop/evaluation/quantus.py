"""Quantus: its metrics call an Explainer.

>>> import quantus
>>> metric = quantus.RelevanceMassAccuracy(abs=False, normalise=False)
>>> metric(module, images, classes, s_batch=masks, explain_func=explain_func(explainer))
"""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from relprop.arrays import to_numpy
from relprop.evaluation.maps import maps_of
from relprop.explain import Explainer


class ExplainFunc(Protocol):
    """What Quantus takes as ``explain_func``."""

    def __call__(self, model: Any, inputs: Any, targets: Any, **kwargs: Any) -> NDArray[np.float32]:
        """Return the attributions of inputs for their targets."""


def explain_func(explainer: Explainer, *, channels: bool = False) -> ExplainFunc:
    """Make what Quantus takes as ``explain_func`` of an Explainer.

    The Explainer holds the network: the model that Quantus hands over is not looked at, and only
    serves its own predictions. It must be one and the same in all calls, since a metric that
    changes the model (MPRT) would else be answered for the wrong one; use
    :func:`relprop.evaluation.cascading_randomisation` instead.

    Parameters
    ----------
    explainer
        The method. Its network must be the one that Quantus is given.
    channels
        Whether attributions are returned for every channel, (N, C, H, W), instead of their sum,
        (N, 1, H, W). Localisation metrics, whose masks have one channel, need the sum.

    Returns
    -------
    ExplainFunc
        A function ``(model, inputs, targets)``: numpy or torch arrays (N, C, H, W) and (N,) in,
        float32 out. It takes Quantus's keyword ``device`` and leaves it alone.

    Raises
    ------
    TypeError
        By the function, if it is given other keywords, or targets that are no whole numbers.
    ValueError
        By the function, if shapes do not fit the network, or the model has changed.
    """
    shape = explainer.graph.input.shape
    seen: list[Any] = []

    def explain(model: Any, inputs: Any, targets: Any, **kwargs: Any) -> NDArray[np.float32]:
        unknown = sorted(set(kwargs) - {"device"})
        if unknown:
            raise TypeError(
                f"explain_func_kwargs must be empty, not name {', '.join(unknown)}: "
                "parameters belong to the Explainer."
            )
        if model is not None:
            seen[:] = seen or [model]
            if model is not seen[0]:
                raise ValueError(
                    "model must be the same in all calls: the Explainer has its own, and does not "
                    "follow a metric that changes it; relprop.evaluation.cascading_randomisation "
                    "randomises layers."
                )
        images, classes = to_numpy(inputs, "inputs"), to_numpy(targets, "targets")
        if images.shape[1:] != shape:
            raise ValueError(
                f"inputs must have the network's shape (N, {', '.join(map(str, shape))}), "
                f"not {images.shape}."
            )
        if classes.dtype.kind not in "iu":
            raise TypeError(f"targets must be class indices, not {classes.dtype}.")
        if classes.shape != images.shape[:1]:
            raise ValueError(
                f"targets must be one for each of {len(images)} inputs, not of shape "
                f"{classes.shape}."
            )
        relevance = np.asarray(explainer(images, classes).relevance)
        if channels:
            return relevance
        return maps_of(relevance)[:, None].astype(np.float32)

    return explain
