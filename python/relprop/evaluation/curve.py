"""Curve: how the score falls as regions are taken, and the areas over and between curves."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from relprop.arrays import to_numpy
from relprop.evaluation.colours import Colour, Colours
from relprop.evaluation.ordering import ORDERS, By, Order
from relprop.evaluation.perturbation_words import perturbation_of
from relprop.evaluation.perturbations import Perturbation
from relprop.evaluation.perturbing import CurveRequest, CurveTask, Perturbing, Predict, Score
from relprop.evaluation.segments import Labels, grid
from relprop.explain import Explainer
from relprop.graph import Graph
from relprop.model import Model
from relprop.targets import Target, read_target

Float64 = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Curve:
    """The score of a class after 0, 1, 2, ... regions, for every image and repeat.

    ``scores`` is float64 (images, repeats, steps + 1); where nothing is random there is one repeat.
    ``target`` (images,) is the class that was followed, ``regions`` (images,) how many regions an
    image has: with fewer than steps its curve stays at the last value. The other fields are the
    arguments of :func:`perturbation_curve`.
    """

    scores: Float64
    keys: tuple[str, ...]
    target: NDArray[np.int64]
    regions: NDArray[np.int64]
    order: Order
    perturbation: Perturbation
    score: Score
    by: By
    seed: int

    @property
    def steps(self) -> int:
        """How many regions were taken, L."""
        return int(self.scores.shape[-1]) - 1

    @property
    def repeats(self) -> int:
        """How often random draws were repeated."""
        return int(self.scores.shape[-2])

    @property
    def mean(self) -> Float64:
        """The mean over repeats, (images, steps + 1)."""
        mean: Float64 = self.scores.mean(axis=-2)
        return mean


def perturbation_curve(
    predict: Predict,
    images: Any,
    relevance: Any = None,
    *,
    order: Order = "morf",
    perturbation: str | Perturbation = "uniform",
    region: int = 9,
    labels: ArrayLike | Sequence[Labels] | None = None,
    by: By = "sum",
    steps: int = 100,
    repeats: int = 10,
    target: Target = "argmax",
    score: Score = "logit",
    seed: int = 0,
    keys: Sequence[str] | None = None,
    batch: int = 32,
    bounds: tuple[Colour, Colour] | None = None,
) -> Curve:
    """Take regions from images, one after the other, and follow the score.

    Samek et al. 2017: x(0) = x and x(k) = g(x(k - 1), r_k), where r_1, r_2, ... are the regions in
    their order and g puts other pixels in a region's place. The defaults are the paper's.

    Parameters
    ----------
    predict
        An Explainer, or a function that gives scores (samples, classes) for float32 images
        (samples, C, H, W). It must not keep the array, which is used again.
    images
        The network's input, (samples, C, H, W), as preprocessed for it.
    relevance
        Of the images, such as ``explainer(images).relevance``: (samples, C, H, W), whose channels
        are summed, or (samples, H, W). ``order="random"`` needs none.
    order
        ``"morf"``, most relevant first; ``"lerf"``, least relevant first; ``"random"``, another one
        for every image and repeat.
    perturbation
        What is put in a region's place, as a value of :mod:`relprop.evaluation.perturbations` or a
        word such as ``"uniform"`` or ``"blur:10"``.
    region
        The side of the squares that images are cut into; 1 takes single pixels.
    labels
        Each pixel's region, in place of squares: (H, W) for all images or (samples, H, W); see
        :mod:`relprop.evaluation.segments`.
    by
        Whether regions are ranked by the ``"sum"`` or the ``"mean"`` of their pixels' relevance.
    steps
        How many regions are taken, L. Where an image has fewer, its curve stays at the last value.
    repeats
        How often random draws are repeated. Without any there is one repeat.
    target
        The class that is followed: an index or a name, one for each image, or ``"argmax"``, the one
        with the highest score for x(0).
    score
        ``"logit"`` for the output as it is, ``"probability"`` for its softmax.
    seed
        Of all random draws.
    keys
        Names of the images, to which random draws belong; by default their numbers.
    batch
        How many images go through the network at a time; it does not show in the result where the
        network computes samples independently, as the core does.
    bounds
        What black and white are in the network's input, each a number or one for each channel; by
        default what the Explainer's model knows by its preprocessing.

    Raises
    ------
    TypeError, ValueError
        If an argument is of another type or shape or out of range, relevance or a score is not
        finite, or the perturbation needs bounds that are not known.
    """
    if order not in ORDERS:
        raise ValueError(f"order must be one of {', '.join(ORDERS)}, not {order!r}.")
    inputs = to_numpy(images, "images")
    if inputs.ndim != 4 or not len(inputs):
        raise ValueError(
            "images must be at least one, of shape (samples, channels, height, width), not "
            f"{inputs.shape}."
        )
    n, channels, height, width = inputs.shape
    names = tuple(map(str, range(n))) if keys is None else tuple(keys)
    if len(names) != n or len(set(names)) != n:
        raise ValueError(
            f"keys must be {n} different names, not {len(set(names))} of {len(names)}."
        )
    maps: Any = [None] * n
    if relevance is not None:
        maps = to_numpy(relevance, "relevance")
        if maps.ndim not in (3, 4) or maps.shape[:1] + maps.shape[-2:] != (n, height, width):
            raise ValueError(
                f"relevance must have shape ({n}, {height}, {width}), or with channels ({n}, "
                f"channels, {height}, {width}), not {maps.shape}."
            )
    cut = _labels(labels, n, height, width, region)
    chosen = perturbation_of(perturbation) if isinstance(perturbation, str) else perturbation
    perturbing = Perturbing(
        predict,
        steps=steps,
        repeats=repeats,
        score=score,
        seed=seed,
        batch=batch,
        colours=None if bounds is None else Colours.of_bounds(bounds, channels),
    )
    targets = _targets(predict, target, n)
    tasks = (
        CurveTask(
            names[i],
            inputs[i],
            [CurveRequest(cut[i], chosen, order, maps[i], by)],
            targets[i],
        )
        for i in range(n)
    )
    found = list(perturbing(tasks))
    return Curve(
        scores=np.stack([each.scores[0] for each in found]),
        keys=names,
        target=np.array([each.target for each in found], np.int64),
        regions=np.array([each.regions[0] for each in found], np.int64),
        order=order,
        perturbation=chosen,
        score=score,
        by=by,
        seed=seed,
    )


def aopc(curve: Curve | Float64, steps: int | None = None) -> Float64:
    """Return the area over the perturbation curve of every image, (images,).

    Samek et al. 2017: 1 / (L + 1) times the sum over k = 0 ... L of f(x(0)) - f(x(k)), as
    the mean over repeats. The paper's figure is the mean over images. It is in units of the score.

    Parameters
    ----------
    curve
        A Curve, or scores (..., repeats, steps + 1).
    steps
        L, where it shall be less than the curve's own.

    Raises
    ------
    ValueError
        If the curve has fewer steps, or scores are of another shape.
    """
    scores = _scores(curve)
    taken = scores.shape[-1] - 1 if steps is None else steps
    if not 0 <= taken < scores.shape[-1]:
        raise ValueError(
            f"steps must lie in [0, {scores.shape[-1] - 1}], the steps of the curve, not {taken}."
        )
    drops = scores[..., :1] - scores[..., : taken + 1]
    area: Float64 = drops.mean(axis=-1).mean(axis=-1)
    return area


def abpc(morf: Curve | Float64, lerf: Curve | Float64, steps: int | None = None) -> Float64:
    """Return the area between the curves of two orders, (images,): AOPC(MoRF) - AOPC(LeRF).

    Per step, like :func:`aopc`; sums over the steps, as the paper prints them, are L + 1 times as
    large.

    Parameters
    ----------
    morf, lerf
        The curves of one method, most relevant first and least relevant first.
    steps
        L, where it shall be less than the curves' own.

    Raises
    ------
    ValueError
        If they are not two orders of the same images, classes, perturbation and steps.
    """
    if isinstance(morf, Curve) and isinstance(lerf, Curve):
        for name, wanted in (("morf", morf.order), ("lerf", lerf.order)):
            if wanted != name:
                raise ValueError(f"{name} must be a curve of that order, not of {wanted!r}.")
        for name in ("keys", "perturbation", "score"):
            one, other = getattr(morf, name), getattr(lerf, name)
            if one != other:
                raise ValueError(f"morf and lerf must have the same {name}, not {one} and {other}.")
        if not np.array_equal(morf.target, lerf.target):
            raise ValueError("morf and lerf must follow the same classes (target).")
    if (one := _scores(morf).shape[-1] - 1) != (other := _scores(lerf).shape[-1] - 1):
        raise ValueError(f"morf and lerf must have as many steps, not {one} and {other}.")
    return aopc(morf, steps) - aopc(lerf, steps)


def _scores(curve: Curve | Float64) -> Float64:
    scores = curve.scores if isinstance(curve, Curve) else np.asarray(curve, np.float64)
    if scores.ndim < 2 or 0 in scores.shape[-2:]:
        raise ValueError(f"scores must have shape (..., repeats, steps + 1), not {scores.shape}.")
    return scores


def _labels(labels: Any, n: int, height: int, width: int, region: int) -> Sequence[Labels]:
    if labels is None:
        return [grid(height, width, region)] * n
    given = np.asarray(labels)
    if given.shape == (height, width):
        return [given] * n
    if given.shape != (n, height, width):
        raise ValueError(
            f"labels must have shape ({height}, {width}) or ({n}, {height}, {width}), not "
            f"{given.shape}."
        )
    return list(given)


def _targets(predict: Predict, target: Target, n: int) -> list[int | None]:
    """The class of each image, None where it is the one with the highest score."""
    if isinstance(predict, Explainer):
        shape = predict.graph[predict.graph.output].shape
        start = read_target(target, n, shape, predict.model)
    else:
        # a function tells the number of its classes when it is first asked
        start = read_target(target, n, (np.iinfo(np.int64).max,), Model(Graph()))
    if start.argmax:
        return [None] * n
    if start.mask is not None or start.given is not None:
        raise ValueError("target must name one class for each image: only a class can be followed.")
    return [int(index) for index in start.indices]
