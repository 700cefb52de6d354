"""How a photo becomes a network's input, as data: size, crop, mean, scale, channel order."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from relprop.images import rgb

_RESAMPLING = {
    "bicubic": Image.Resampling.BICUBIC,
    "bilinear": Image.Resampling.BILINEAR,
}
_CHANNELS = {"rgb": 3, "bgr": 3, "grey": 1}


@dataclass(frozen=True)
class Placement:
    """Where a point of the photo lies in the network's input: ``scale * point + shift``.

    Points count in pixels from the upper left corner, so that the first pixel reaches from 0 to
    1; ``scale`` and ``shift`` are pairs for x and y.
    """

    scale: tuple[float, float]
    shift: tuple[float, float]

    def __call__(self, x: float, y: float) -> tuple[float, float]:
        """Return a point of the photo, in coordinates of the network's input."""
        return x * self.scale[0] + self.shift[0], y * self.scale[1] + self.shift[1]


@dataclass(frozen=True)
class Preprocessing:
    """Scale a photo, cut out its centre, normalise it: ``(pixel - mean) / std``.

    ``size`` is the network's (height, width). With ``resize`` the photo's short side is scaled
    to that length and the centre is cut out; without, the whole photo is scaled to ``size``,
    whatever its shape. ``mean`` and ``std`` count in pixel units of 0 to 255, one per channel in
    the network's ``channel_order``.
    """

    size: tuple[int, int]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    resize: int | None = None
    interpolation: Literal["bicubic", "bilinear"] = "bilinear"
    channel_order: Literal["rgb", "bgr", "grey"] = "rgb"

    def __post_init__(self) -> None:
        for name in ("size", "mean", "std"):
            given = np.asarray(getattr(self, name))
            if given.ndim != 1 or given.dtype.kind not in "fiu":
                raise TypeError(f"{name} must be a tuple of numbers, not {getattr(self, name)!r}.")
            object.__setattr__(self, name, tuple(given.tolist()))
        if len(self.size) != 2 or any(n < 1 or n != int(n) for n in self.size):
            raise ValueError(f"size must be a positive height and width, not {self.size}.")
        if self.resize is not None and self.resize < max(self.size):
            raise ValueError(
                f"resize is the short side that {self.size} is cut from: it must be at least "
                f"{max(self.size)}, not {self.resize}."
            )
        if self.interpolation not in _RESAMPLING:
            known = ", ".join(_RESAMPLING)
            raise ValueError(f"interpolation must be one of {known}, not {self.interpolation!r}.")
        if self.channel_order not in _CHANNELS:
            known = ", ".join(_CHANNELS)
            raise ValueError(f"channel_order must be one of {known}, not {self.channel_order!r}.")
        channels = _CHANNELS[self.channel_order]
        for name in ("mean", "std"):
            values = getattr(self, name)
            if len(values) != channels or not all(math.isfinite(v) for v in values):
                raise ValueError(
                    f"{name} must be {channels} finite numbers for channel_order="
                    f"{self.channel_order!r}, not {values}."
                )
        if min(self.std) <= 0:
            raise ValueError(f"std must be positive, not {self.std}.")
        with np.errstate(all="ignore"):
            finite = np.isfinite(self.bounds()).all()
        if not finite:
            raise ValueError(
                f"mean and std must leave pixels finite in float32, not {self.mean} and {self.std}."
            )

    def __call__(self, image: Image.Image | NDArray[np.uint8]) -> NDArray[np.float32]:
        """Return the network's input, float32 (channels, height, width)."""
        return self._normalise(np.asarray(self._crop(image)))

    def view(self, image: Image.Image | NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Return the part of the photo that the network sees, uint8 RGB (height, width, 3)."""
        return np.asarray(self._crop(image))

    def bounds(self) -> tuple[tuple[float, ...], tuple[float, ...]]:
        """Return what black and white pixels become, per channel: the box of z_box."""
        low, high = (self._normalise(np.full((1, 1, 3), v, np.uint8)) for v in (0, 255))
        return tuple(low.ravel().tolist()), tuple(high.ravel().tolist())

    def placement(self, height: int, width: int) -> Placement:
        """Return where the points of an upright photo of that size lie in the network's input."""
        left, top, right, bottom = self._window(height, width)
        scale = (self.size[1] / (right - left), self.size[0] / (bottom - top))
        return Placement(scale, (-left * scale[0], -top * scale[1]))

    def mask(self, mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
        """Return what a mask of the photo's pixels becomes, bool (height, width) as ``size``.

        A pixel of the input belongs to the mask where at least half of it does.
        """
        height, width = self.size
        image = Image.fromarray(mask.astype(np.uint8) * np.uint8(255))
        window = self._window(*mask.shape)
        return np.asarray(image.resize((width, height), Image.Resampling.BOX, window)) >= 128

    def _window(self, height: int, width: int) -> tuple[float, float, float, float]:
        """Left, top, right and bottom of the part of the photo that the network sees."""
        if self.resize is None:
            return 0.0, 0.0, float(width), float(height)
        # the crop is taken in the photo's own pixels, so that it is scaled only once
        scale = min(width, height) / self.resize
        left, top = (width - self.size[1] * scale) / 2, (height - self.size[0] * scale) / 2
        return left, top, width - left, height - top

    def _crop(self, image: Image.Image | NDArray[np.uint8]) -> Image.Image:
        if not isinstance(image, Image.Image | np.ndarray):
            raise TypeError(
                f"image must be a Pillow image or an array, not {type(image).__name__}; "
                "relprop.read_image reads a file."
            )
        if not isinstance(image, Image.Image):
            if image.dtype != np.uint8 or image.ndim not in (2, 3):
                raise ValueError(
                    "an image array must be uint8 of shape (height, width) or (height, width, 3), "
                    f"not {image.dtype} {image.shape}."
                )
            image = Image.fromarray(image)
        image = rgb(image)
        height, width = self.size
        window = self._window(image.height, image.width)
        return image.resize((width, height), _RESAMPLING[self.interpolation], window)

    def _normalise(self, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        if self.channel_order == "bgr":
            pixels = pixels[..., ::-1]
        elif self.channel_order == "grey":
            pixels = np.asarray(Image.fromarray(pixels).convert("L"))[..., None]
        planes = np.empty((pixels.shape[2], *pixels.shape[:2]), np.float32)
        for c, plane in enumerate(planes):  # six times as fast as all channels of a pixel at once
            np.subtract(pixels[..., c], np.float32(self.mean[c]), out=plane, dtype=np.float32)
            plane /= np.float32(self.std[c])
        return planes
