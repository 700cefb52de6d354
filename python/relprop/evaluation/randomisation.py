"""Parameter randomisation: whether explanations depend on what the network has learned.

Layers lose their learned parameters one after the other, from the output downwards, and the maps
of the damaged networks are compared with the network's own, for the same class. A method whose
maps stay alike explains something else than the network (Adebayo et al. 2018, *Sanity checks for
saliency maps*).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from difflib import get_close_matches
from typing import Any, Literal, TypeAlias, get_args

import numpy as np
from numpy.typing import ArrayLike, NDArray

from relprop.composites import Composite
from relprop.evaluation.maps import explained_maps
from relprop.evaluation.similarity import SIMILARITIES, Similarity
from relprop.evaluation.streams import Stream
from relprop.explain import Explainer
from relprop.graph import (
    BatchNorm,
    Conv,
    ConvTranspose,
    Dense,
    Embedding,
    Graph,
    Node,
    Operator,
    PReLU,
)
from relprop.model import Model
from relprop.targets import Target

Initialisation: TypeAlias = Literal["normal", "permutation"]
"""New parameters: normal with the mean and the deviation of the old, or the old ones shuffled."""

Level: TypeAlias = str | tuple[str, ...]
"""A layer, or layers that are randomised together."""

_LEARNED: dict[type, tuple[str, ...]] = {
    **dict.fromkeys((Conv, ConvTranspose, Dense), ("weight", "bias")),
    BatchNorm: ("scale", "shift"),
    Embedding: ("weight",),
    PReLU: ("slope",),
}
"""The arrays of each operator that training sets."""


@dataclass(frozen=True, eq=False)
class Randomisation:
    """What :func:`cascading_randomisation` returns.

    ``levels`` are in the order in which they were randomised. ``similarity`` has for each measure
    an array (levels, images) of the similarity to the network's own map; NaN where one of the two
    maps is constant. ``target`` is the class that was explained for each image.
    """

    levels: tuple[tuple[str, ...], ...]
    similarity: dict[str, NDArray[np.float64]]
    target: NDArray[np.int64]


def learned_layers(graph: Graph, output: str | None = None) -> tuple[str, ...]:
    """Name the layers that have learned parameters, from an output downwards.

    Branches come in the opposite of the graph's own order. Constants are not counted: whether they
    were learned is not known; nor are positions that are counted from masks.
    """
    nodes = reversed(list(graph.explaining(output)))
    return tuple(node.name for node in nodes if _is_learned(node))


def _is_learned(node: Node) -> bool:
    return isinstance(node.operator, tuple(_LEARNED)) and not node.constant


def randomised(
    graph: Graph,
    layers: str | Iterable[str],
    *,
    initialisation: Initialisation = "normal",
    seed: int = 0,
) -> Graph:
    """Return the graph with new parameters in some layers; the given one stays as it is.

    Weights and biases are drawn each by itself. What a layer gets depends on the seed, its name and
    its old parameters alone, and not on the other layers. A bias of zeros stays one.

    Parameters
    ----------
    graph
        A model's graph.
    layers
        A layer's name, or several; see :func:`learned_layers`.
    initialisation
        ``"normal"`` draws from the normal distribution with the mean and the standard deviation of
        the old array; ``"permutation"`` puts its values in random order.
    seed
        Any whole number.

    Raises
    ------
    ValueError
        If a name is no layer with learned parameters, or the initialisation is not known.
    """
    if initialisation not in get_args(Initialisation):
        known = " or ".join(map(repr, get_args(Initialisation)))
        raise ValueError(f"initialisation must be {known}, not {initialisation!r}.")
    nodes = dict(graph.nodes)
    learned = [node.name for node in graph if _is_learned(node)]
    for name in [layers] if isinstance(layers, str) else layers:
        if name not in learned:
            close = get_close_matches(name, learned, n=3)
            hint = f"; did you mean {', '.join(close)}?" if close else "."
            raise ValueError(f"layers must have learned parameters; {name!r} is no such one{hint}")
        new = _redrawn(nodes[name].operator, name, initialisation, seed)
        nodes[name] = replace(nodes[name], operator=new)
    return Graph(nodes, dict(graph.outputs))


def cascading_randomisation(
    model: Model | Graph,
    method: str | Composite,
    images: ArrayLike,
    target: Target = "argmax",
    *,
    parameters: Mapping[str, Any] | None = None,
    independent: bool = False,
    levels: Sequence[Level] | None = None,
    initialisation: Initialisation = "normal",
    similarities: Mapping[str, Similarity] = SIMILARITIES,
    seed: int = 0,
    batch_size: int = 16,
) -> Randomisation:
    """Compare a network's maps with those of the same network, randomised layer by layer.

    Every level is compiled anew, so that rules see the new weights. The class is the one that the
    network itself has been asked for. No result depends on the batch size.

    Parameters
    ----------
    model
        What :func:`relprop.load` returns, or a Graph; it stays as it is.
    method
        A preset's name or a Composite.
    images
        Inputs (N, C, H, W), preprocessed. The maps of all are held in memory.
    target
        ``"argmax"``, which is what the network itself predicts, a class, or one for each image.
    parameters
        Further arguments of :class:`relprop.Explainer`: the preset's own, ``rules``, ``output``.
    independent
        Randomise each level alone, instead of on top of all before it.
    levels
        What is randomised, in this order: names of layers, or tuples of names; by default every
        layer of :func:`learned_layers` by itself.
    initialisation, seed
        As for :func:`randomised`.
    similarities
        Measures by their names; each takes the network's own map and the other one.
    batch_size
        How many images are explained at once.

    Returns
    -------
    Randomisation
        Levels, and for each measure the similarity, (levels, images).

    Raises
    ------
    TypeError, ValueError
        If an argument does not fit, or the Explainer refuses it.

    References
    ----------
    Adebayo et al. 2018, *Sanity checks for saliency maps*.
    """
    if isinstance(model, Graph):
        model = Model(model)
    images = np.asarray(images)
    if images.ndim != 4 or len(images) == 0:
        raise ValueError(f"images must be (N, C, H, W), not of shape {images.shape}.")
    options = {"ledger": False, **(parameters or {})}
    if levels is None:
        levels = learned_layers(model.graph, options.get("output"))
    steps = tuple((level,) if isinstance(level, str) else tuple(level) for level in levels)
    explainer = Explainer(model, method, **options)
    own, classes = explained_maps(explainer, images, target, batch_size)

    found = {name: np.empty((len(steps), len(images))) for name in similarities}
    graph = model.graph
    for i, step in enumerate(steps):
        before = model.graph if independent else graph
        graph = randomised(before, step, initialisation=initialisation, seed=seed)
        explainer = Explainer(replace(model, graph=graph), method, **options)
        maps, _ = explained_maps(explainer, images, classes, batch_size)
        for name, similarity in similarities.items():
            found[name][i] = [similarity(a, b) for a, b in zip(own, maps)]
    return Randomisation(steps, found, classes)


def _redrawn(operator: Operator, name: str, initialisation: Initialisation, seed: int) -> Operator:
    new: dict[str, Any] = {}
    for field in _LEARNED[type(operator)]:
        old = getattr(operator, field)
        if old is None:
            continue
        random = Stream(seed, ("randomisation", name, field)).generator()
        if initialisation == "normal":
            drawn = random.normal(old.mean(dtype=np.float64), old.std(dtype=np.float64), old.shape)
        else:
            drawn = random.permutation(old.ravel()).reshape(old.shape)
        new[field] = drawn.astype(np.float32)
    return replace(operator, **new)
