"""Stability: how far maps move when a little noise is added to the image.

The class is held fixed, so that a change of the prediction does not count as one of the map.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from relprop.evaluation.maps import batches, explained_maps
from relprop.evaluation.streams import Stream
from relprop.explain import Explainer
from relprop.rules import Bound
from relprop.targets import Target


@dataclass(frozen=True, eq=False)
class Stability:
    """What :func:`noise_stability` returns; each array is (images, repeats).

    With M the map of the image x and M' that of x', the image with noise, and Euclidean norms:
    ``distance`` is ``|M' - M| / |M|``, NaN where M is zero. ``slope`` is ``|M' - M| / |x' - x|``,
    NaN where the noise did not change the image. ``target`` is the class of each image.
    """

    distance: NDArray[np.float64]
    slope: NDArray[np.float64]
    target: NDArray[np.int64]

    @property
    def largest_distance(self) -> NDArray[np.float64]:
        """The largest relative distance for each image."""
        return np.asarray(self.distance.max(axis=1))

    @property
    def mean_distance(self) -> NDArray[np.float64]:
        """The mean relative distance for each image."""
        return np.asarray(self.distance.mean(axis=1))

    @property
    def lipschitz(self) -> NDArray[np.float64]:
        """The local Lipschitz estimate for each image: its largest slope.

        It has the unit of relevance per input: compare it between images of one method, not
        between methods.
        """
        return np.asarray(self.slope.max(axis=1))


def noise_stability(
    explainer: Explainer,
    images: ArrayLike,
    keys: Sequence[str],
    target: Target = "argmax",
    *,
    noise: float = 0.02,
    repeats: int = 10,
    bounds: tuple[Bound, Bound] | None = None,
    seed: int = 0,
    batch_size: int = 16,
) -> Stability:
    """Explain images again with noise, and measure how far their maps move.

    What an image gets depends on the seed and its key alone, neither on the other images nor on
    the batch size.

    Parameters
    ----------
    explainer
        The method.
    images
        Inputs (N, C, H, W), preprocessed.
    keys
        A name for each image, which its noise belongs to.
    target
        ``"argmax"``, which is what the network predicts without noise, a class, or one for each
        image.
    noise
        Standard deviation of the Gaussian noise, as a share of the range of each image's values.
    repeats
        How often each image is explained with other noise.
    bounds
        Lowest and highest value of an input, a number or one per channel, to which noisy images are
        cut off; by default what the model's preprocessing makes of black and white, or none.
    seed
        Any whole number.
    batch_size
        How many images are explained at once.

    Returns
    -------
    Stability
        Distances and slopes, (N, repeats).

    Raises
    ------
    TypeError, ValueError
        If an argument does not fit, or an image lies outside the bounds.

    References
    ----------
    Alvarez-Melis and Jaakkola 2018, *On the robustness of interpretability methods*.
    """
    given = np.asarray(images)
    if given.ndim != 4 or len(given) == 0 or given.dtype.kind != "f":
        raise ValueError(
            f"images must be floats (N, C, H, W), not {given.dtype} of shape {given.shape}."
        )
    if len(keys) != len(given):
        raise ValueError(f"keys must be one for each of {len(given)} images, not {len(keys)}.")
    if not noise > 0 or not np.isfinite(noise):
        raise ValueError(f"noise must be above 0, not {noise}.")
    if repeats < 1:
        raise ValueError(f"repeats must be at least 1, not {repeats}.")
    own, classes = explained_maps(explainer, given, target, batch_size)
    low, high = _bounds(explainer, bounds)
    slack = 1e-5 * np.maximum(np.abs(low), np.abs(high))  # as z_box has it
    if (given < low - slack).any() or (given > high + slack).any():
        raise ValueError(
            f"images must lie in the bounds, not in [{given.min():g}, {given.max():g}]."
        )

    pairs = [(i, repeat) for i in range(len(given)) for repeat in range(repeats)]
    distance, slope = np.empty((2, len(given), repeats))
    for part in batches(len(pairs), batch_size):
        noisy = [
            _noisy(given[i], noise, low, high, Stream(seed, ("stability", keys[i], repeat)))
            for i, repeat in pairs[part]
        ]
        wanted = classes[[i for i, _ in pairs[part]]]
        maps, _ = explained_maps(explainer, np.stack(noisy), wanted, batch_size)
        for (i, repeat), other, image in zip(pairs[part], maps, noisy):
            moved = float(np.linalg.norm(other - own[i]))
            added = image.astype(np.float64) - given[i].astype(np.float64)
            distance[i, repeat] = _ratio(moved, float(np.linalg.norm(own[i])))
            slope[i, repeat] = _ratio(moved, float(np.linalg.norm(added)))
    return Stability(distance, slope, classes)


def _noisy(
    image: NDArray[np.floating],
    noise: float,
    low: NDArray[np.float32],
    high: NDArray[np.float32],
    stream: Stream,
) -> NDArray[np.float32]:
    deviation = noise * float(np.ptp(image.astype(np.float64)))
    moved = image + stream.generator().normal(0.0, deviation, image.shape)
    return np.asarray(np.clip(moved.astype(np.float32), low, high))


def _bounds(
    explainer: Explainer, bounds: tuple[Bound, Bound] | None
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """The lowest and the highest value, of shape (channels or 1, 1, 1)."""
    if bounds is None:
        known = explainer.model.preprocessing
        bounds = (-np.inf, np.inf) if known is None else known.bounds()
    low, high = (np.asarray(bound, np.float32).reshape(-1, 1, 1) for bound in bounds)
    return low, high


def _ratio(moved: float, by: float) -> float:
    return moved / by if by > 0.0 else float("nan")
