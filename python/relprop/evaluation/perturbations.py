"""Perturbations: what is put in a region's place.

A perturbation is a plain frozen value. It is prepared for an image, once, or once for every repeat
where it draws random numbers; what that returns is then asked for the pixels of one region after
the other. docs/evaluation.md says how each is defined.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import ClassVar, Literal, Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

from relprop.evaluation.colours import Colour, Colours, checked_colour, per_channel, spelled
from relprop.evaluation.segments import Pixels
from relprop.evaluation.streams import Stream
from relprop.optional import import_optional

Float32: TypeAlias = NDArray[np.float32]

Replacement: TypeAlias = Callable[[Float32, int, Pixels], Float32]
"""Given x(k - 1) (C, H, W), a region's number and pixels (n,), the new pixels (C, n) or (C, 1).

What it returns must depend on the image, the repeat and its arguments alone, not on earlier calls:
all methods and orders of an image and repeat share one.
"""


class Perturbation(Protocol):
    """What every perturbation has; it is hashable."""

    @property
    def word(self) -> str:
        """Its name with its parameters, as :func:`perturbation_of` reads it."""

    @property
    def deterministic(self) -> bool:
        """Whether no random number is drawn, so that repeats would be alike."""

    def prepare(self, image: Float32, colours: Colours | None, stream: Stream) -> Replacement:
        """Return what replaces the regions of an image.

        Parameters
        ----------
        image
            x(0), the network's input, (C, H, W).
        colours
            The bounds and the mean of the network's input, where they are known.
        stream
            The random numbers of this image, repeat and perturbation.

        Raises
        ------
        ValueError
            If it does not fit the image, or needs colours that are not known.
        """


@dataclass(frozen=True)
class Uniform:
    """Every pixel and channel is drawn from the uniform distribution between two bounds.

    Samek et al. 2017, the paper's own choice. There is one image of noise for each repeat, from
    which regions take their pixels: draws are independent, and the same for all methods and orders.

    Parameters
    ----------
    low, high
        The bounds; by default what black and white become in the input, for each channel.
    """

    low: Colour | None = None
    high: Colour | None = None

    deterministic: ClassVar[bool] = False

    def __post_init__(self) -> None:
        if (self.low is None) != (self.high is None):
            raise ValueError(f"low and high go together, not {self.low} and {self.high}.")
        for name in ("low", "high"):
            if (value := getattr(self, name)) is not None:
                object.__setattr__(self, name, checked_colour(value, name))

    @property
    def word(self) -> str:
        """``uniform`` or ``uniform:LOW:HIGH``."""
        if self.low is None or self.high is None:
            return "uniform"
        return f"uniform:{spelled(self.low)}:{spelled(self.high)}"

    def prepare(self, image: Float32, colours: Colours | None, stream: Stream) -> Replacement:
        if self.low is None or self.high is None:
            known = _known(colours, image, "uniform")
            bounds: tuple[Colour, Colour] = (known.low, known.high)
        else:
            bounds = (self.low, self.high)
        low, high = (per_channel(bound, len(image)) for bound in bounds)
        if (low > high).any():
            raise ValueError(f"low must be <= high, not {self.low} and {self.high}.")
        drawn = stream.generator().random(image.shape)
        return _from((low + (high - low) * drawn).astype(np.float32))


@dataclass(frozen=True)
class Constant:
    """One colour for all regions.

    Parameters
    ----------
    value
        ``"mean"``, the mean colour that the preprocessing subtracts (0 in the network's input);
        ``"image_mean"``, each channel's mean over the image; ``"black"`` or ``"white"``, the lower
        or upper bound of each channel; or a number, or one for each channel, in the units of the
        network's input.
    """

    value: Literal["mean", "image_mean", "black", "white"] | Colour = "mean"

    deterministic: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if not isinstance(self.value, str):
            object.__setattr__(self, "value", checked_colour(self.value, "value"))
        elif self.value not in ("mean", "image_mean", "black", "white"):
            raise ValueError(
                "value must be mean, image_mean, black, white, a number or one for each channel, "
                f"not {self.value!r}."
            )

    @property
    def word(self) -> str:
        """``constant:mean``, ``constant:0.5``, ``constant:0.1/0.2/0.3`` and so on."""
        told = self.value if isinstance(self.value, str) else spelled(self.value)
        return f"constant:{told}"

    def prepare(self, image: Float32, colours: Colours | None, stream: Stream) -> Replacement:
        if not isinstance(self.value, str):
            colour: Colour = self.value
        elif self.value == "image_mean":
            colour = tuple(image.mean(axis=(1, 2), dtype=np.float64).tolist())
        else:
            known = _known(colours, image, self.word)
            if self.value == "mean" and known.mean is None:
                raise ValueError(
                    f"{self.word} needs the model's preprocessing, which is not known."
                )
            named = {"mean": known.mean, "black": known.low, "white": known.high}
            colour = named[self.value] or 0.0
        chosen = per_channel(colour, len(image)).reshape(-1, 1).astype(np.float32)
        return lambda current, region, pixels: chosen


@dataclass(frozen=True)
class Blur:
    """Regions of the original image after a Gaussian blur.

    The Gaussian is cut off at four sigma, the image is mirrored at its borders (the last pixel
    twice), and sums are float64.

    Parameters
    ----------
    sigma
        The Gaussian's standard deviation, in pixels.
    """

    sigma: float = 10.0

    deterministic: ClassVar[bool] = True

    def __post_init__(self) -> None:
        _check_positive("sigma", self.sigma)

    @property
    def word(self) -> str:
        """``blur:SIGMA``."""
        return f"blur:{spelled(self.sigma)}"

    def prepare(self, image: Float32, colours: Colours | None, stream: Stream) -> Replacement:
        wide = image.astype(np.float64)
        for axis in (1, 2):
            wide = _blurred(wide, self.sigma, axis)
        return _from(wide.astype(np.float32))


@dataclass(frozen=True, eq=False)
class DatasetMean:
    """The same places of one image, such as the mean of a dataset's inputs.

    Parameters
    ----------
    image
        In the units of the network's input, (C, H, W), finite.
    name
        What it is called in results.
    """

    image: NDArray[np.floating] = field(repr=False)
    name: str = "image"

    deterministic: ClassVar[bool] = True

    def __post_init__(self) -> None:
        image = np.array(self.image, np.float32)
        if image.ndim != 3 or not np.isfinite(image).all():
            raise ValueError(
                "image must be finite of shape (channels, height, width), not "
                f"{image.shape}{'' if np.isfinite(image).all() else ' with values that are not'}."
            )
        image.setflags(write=False)
        object.__setattr__(self, "image", image)

    @property
    def word(self) -> str:
        """``dataset_mean:NAME``, where the name is that of a file."""
        return f"dataset_mean:{self.name}"

    def prepare(self, image: Float32, colours: Colours | None, stream: Stream) -> Replacement:
        if self.image.shape != image.shape:
            raise ValueError(
                f"the dataset's mean must have the shape of the images, {image.shape}, not "
                f"{self.image.shape}."
            )
        return _from(self.image)


@dataclass(frozen=True)
class InPainting:
    """A region is painted in from what surrounds it in x(k - 1), by OpenCV.

    What was painted before counts as surroundings. Every channel is painted by itself, in float32;
    results are cut off at the bounds of the input where these are known.

    Parameters
    ----------
    method
        ``"telea"`` (Telea 2004) or ``"ns"``, Navier-Stokes (Bertalmio et al. 2001).
    radius
        How far the surroundings reach, in pixels.
    """

    method: Literal["telea", "ns"] = "telea"
    radius: float = 3.0

    deterministic: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if self.method not in ("telea", "ns"):
            raise ValueError(f'method must be "telea" or "ns", not {self.method!r}.')
        _check_positive("radius", self.radius)

    @property
    def word(self) -> str:
        """``inpainting:METHOD:RADIUS``."""
        return f"inpainting:{self.method}:{spelled(self.radius)}"

    def prepare(self, image: Float32, colours: Colours | None, stream: Stream) -> Replacement:
        cv2 = import_optional("cv2", "evaluation", "in-painting")
        flag = cv2.INPAINT_TELEA if self.method == "telea" else cv2.INPAINT_NS
        height, width = image.shape[1:]
        margin = 2 * math.ceil(self.radius) + 3  # beyond it nothing shows in the result
        low = high = None
        if colours is not None:
            _known(colours, image, self.word)
            low, high = (
                np.array(bound, np.float32)[:, None] for bound in (colours.low, colours.high)
            )

        def painted(current: Float32, region: int, pixels: Pixels) -> Float32:
            if len(pixels) == height * width:
                raise ValueError(
                    "in-painting needs a pixel outside the region; it covers them all."
                )
            rows, columns = np.divmod(pixels, width)
            top, left = (max(int(at.min()) - margin, 0) for at in (rows, columns))
            bottom, right = (int(at.max()) + 1 + margin for at in (rows, columns))
            window = current[:, top:bottom, left:right]
            rows, columns = rows - top, columns - left
            mask = np.zeros(window.shape[1:], np.uint8)
            mask[rows, columns] = 1
            new = np.stack(
                [
                    cv2.inpaint(np.ascontiguousarray(plane), mask, self.radius, flag)[rows, columns]
                    for plane in window
                ]
            )
            return new if low is None or high is None else new.clip(low, high)

        return painted


Painter: TypeAlias = Callable[[Float32, Pixels, np.random.Generator], NDArray[np.floating]]
"""Given x(k - 1) (C, H, W), a region's pixels (n,) and a generator, the new pixels (C, n)."""


@dataclass(frozen=True)
class Custom:
    """What a function of the user's makes of a region.

    Its generator belongs to the image, the repeat and the region: whatever the order, a region is
    given the same random numbers.

    Parameters
    ----------
    function
        Gets x(k - 1) (C, H, W), which it must not change, the region's pixels as places
        ``row * width + column`` (n,), and a generator; returns the new pixels, (C, n).
    name
        What it is called in results; random numbers depend on it.
    deterministic
        Whether it makes no use of the generator, so that repeats would be alike.
    """

    function: Painter
    name: str = "custom"
    deterministic: bool = False

    def __post_init__(self) -> None:
        if not callable(self.function):
            raise TypeError(f"function must be callable, not {self.function!r}.")

    @property
    def word(self) -> str:
        """``custom:NAME``; the command line cannot name it."""
        return f"custom:{self.name}"

    def prepare(self, image: Float32, colours: Colours | None, stream: Stream) -> Replacement:
        channels = len(image)

        def replaced(current: Float32, region: int, pixels: Pixels) -> Float32:
            shown = current.view()
            shown.setflags(write=False)
            new = np.asarray(self.function(shown, pixels, stream.child(region).generator()))
            if new.shape != (channels, len(pixels)):
                raise ValueError(
                    f"{self.name} must return pixels of shape {(channels, len(pixels))}, not "
                    f"{new.shape}."
                )
            if new.dtype.kind != "f" or not np.isfinite(new).all():
                raise ValueError(f"{self.name} must return finite floats (region {region}).")
            return new.astype(np.float32)

        return replaced


# ---- parts ---------------------------------------------------------------------------------------


def _from(source: Float32) -> Replacement:
    """Pixels of another image, at the same places."""
    flat = source.reshape(len(source), -1)
    return lambda current, region, pixels: flat[:, pixels]


def _known(colours: Colours | None, image: Float32, of: str) -> Colours:
    if colours is None:
        raise ValueError(
            f"{of} needs the bounds of the network's input: give bounds=(low, high), or a model "
            "with a preprocessing."
        )
    if len(colours.low) not in (1, len(image)):
        raise ValueError(
            f"the bounds of the input must have {len(image)} channels, not {len(colours.low)}."
        )
    return colours


def _check_positive(name: str, value: float) -> None:
    if not math.isfinite(value) or value <= 0:
        raise ValueError(f"{name} must be finite and positive, not {value!r}.")


def _blurred(image: NDArray[np.float64], sigma: float, axis: int) -> NDArray[np.float64]:
    """The image after a Gaussian along one axis, summed in a fixed order."""
    radius = int(4 * sigma + 0.5)
    weights = np.exp(-0.5 * (np.arange(radius + 1) / sigma) ** 2)
    weights /= weights[0] + 2 * weights[1:].sum()
    padding = [(radius, radius) if i == axis else (0, 0) for i in range(image.ndim)]
    padded = np.moveaxis(np.pad(image, padding, "symmetric"), axis, 0)
    size = image.shape[axis]
    summed = weights[0] * padded[radius : radius + size]
    for distance in range(1, radius + 1):
        before = padded[radius - distance : radius - distance + size]
        after = padded[radius + distance : radius + distance + size]
        summed += weights[distance] * (before + after)
    return np.moveaxis(summed, 0, axis)
