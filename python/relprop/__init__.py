"""Layer-wise relevance propagation on a compiled core.

>>> import relprop
>>> model = relprop.load("efficientnet-lite0")
>>> explainer = relprop.Explainer(model, "epsilon_plus_flat")
>>> result = explainer(images, target="argmax")
>>> relprop.heatmap(result.relevance[0]).save("heatmap.png")

Names are imported when they are first asked for, so that ``import relprop`` costs nothing.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from relprop import composites, datasets, graph, methods, rules, torch
    from relprop._core import __version__, set_threads
    from relprop.composites import PRESETS, Composite, preset
    from relprop.errors import UnmatchedLayerError, UnsupportedOperatorError
    from relprop.explain import Explainer, Result
    from relprop.graph import Graph
    from relprop.heatmaps import contact_sheet, heatmap, overlay
    from relprop.images import read_image
    from relprop.loading import load
    from relprop.model import Model
    from relprop.preprocessing import Preprocessing

__all__ = [
    "PRESETS",
    "Composite",
    "Explainer",
    "Graph",
    "Model",
    "Preprocessing",
    "Result",
    "UnmatchedLayerError",
    "UnsupportedOperatorError",
    "__version__",
    "composites",
    "contact_sheet",
    "datasets",
    "graph",
    "heatmap",
    "load",
    "methods",
    "overlay",
    "preset",
    "read_image",
    "rules",
    "set_threads",
    "torch",
]

_HOMES = {
    "_core": ("__version__", "set_threads"),
    "composites": ("PRESETS", "Composite", "preset"),
    "errors": ("UnmatchedLayerError", "UnsupportedOperatorError"),
    "explain": ("Explainer", "Result"),
    "graph": ("Graph",),
    "heatmaps": ("contact_sheet", "heatmap", "overlay"),
    "images": ("read_image",),
    "loading": ("load",),
    "model": ("Model",),
    "preprocessing": ("Preprocessing",),
}
"""Where each name lives; the other names of ``__all__`` are modules."""


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module 'relprop' has no attribute {name!r}")
    for home, names in _HOMES.items():
        if name in names:
            return getattr(import_module(f"relprop.{home}"), name)
    return import_module(f"relprop.{name}")


def __dir__() -> list[str]:
    return __all__
