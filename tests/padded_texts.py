"""Padded texts with their masks, and models that read both."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import nn

import relprop
from onnx_models import exported
from relprop import Explainer

WORDS, LENGTH, FEATURES = 13, 6, 8


def texts() -> dict[str, np.ndarray]:
    """Three of different lengths, which word 0 fills up."""
    rng = np.random.default_rng(2)
    mask = (np.arange(LENGTH) < np.array([[6], [4], [1]])).astype(np.int64)
    return {"ids": rng.integers(1, WORDS, mask.shape) * mask, "mask": mask}


def load(module: nn.Module) -> relprop.Model:
    return relprop.load(module, {name: torch.from_numpy(x) for name, x in texts().items()})


def assert_same_through_onnx(
    module: nn.Module, model: relprop.Model, exporter: str, folder: Path
) -> None:
    """A file that torch exports has the model's scores and relevance."""
    inputs = tuple(torch.from_numpy(value) for value in texts().values())
    graph = exported(module, inputs, exporter, folder, tuple(texts()))
    found, expected = (Explainer(one, "epsilon")(texts(), 0) for one in (graph, model))
    np.testing.assert_allclose(found.scores, expected.scores, rtol=1e-5, atol=1e-6)
    for name, relevance in expected.relevance.items():
        np.testing.assert_allclose(found.relevance[name], relevance, rtol=1e-4, atol=1e-5)
