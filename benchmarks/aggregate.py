"""What a run over a dataset costs beside bare explaining: images a second, and the ratio.

    python benchmarks/aggregate.py [--network squeezenet] [--images 256] [--batch 16] [--turns 5]

Bare explaining is a loop over arrays that are ready. A run is timed over the same arrays in memory,
and over JPEG files of the same number and of the size that cameras and datasets usually have. All
three take turns, and the medians are compared.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from statistics import median

import numpy as np
from PIL import Image

import relprop
from relprop import Explainer, Preprocessing
from relprop.aggregation.run import aggregate
from relprop.benchmark.networks import build
from relprop.datasets import Dataset, open_dataset

PHOTO = (375, 500)
"""Height and width of the JPEG files: those of most photos in ImageNet and VOC."""


def explainer_of(network: str, preset: str) -> Explainer:
    """The network with random weights, and a preprocessing as most have it."""
    module, shape = build(network)
    model = relprop.load(module, shape)
    size = (shape[1], shape[2])
    preprocessing = Preprocessing(size, (123.7, 116.3, 103.5), (58.4, 57.1, 57.4), resize=256)
    return Explainer(replace(model, preprocessing=preprocessing), preset)


def write_photos(folder: Path, count: int) -> None:
    """Smooth random pictures with some noise: as many bytes as photos have."""
    rng = np.random.default_rng(0)
    height, width = PHOTO
    for index in range(count):
        coarse = Image.fromarray(rng.integers(0, 256, (12, 16, 3), np.uint8))
        smooth = np.asarray(coarse.resize((width, height), Image.Resampling.BICUBIC), np.int16)
        noisy = smooth + rng.integers(-12, 13, smooth.shape)
        photo = Image.fromarray(noisy.clip(0, 255).astype(np.uint8))
        photo.save(folder / f"{index:05}.jpg", quality=90)


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    options.add_argument("--network", default="squeezenet")
    options.add_argument("--composite", default="epsilon_plus_flat")
    options.add_argument("--images", type=int, default=256)
    options.add_argument("--batch", type=int, default=16)
    options.add_argument("--workers", type=int, default=2)
    options.add_argument("--turns", type=int, default=5)
    given = options.parse_args()
    explainer = explainer_of(given.network, given.composite)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "photos").mkdir()
        write_photos(folder / "photos", given.images)
        kilobytes = sum(path.stat().st_size for path in folder.rglob("*.jpg")) / given.images / 1e3
        arrays = np.random.default_rng(0).standard_normal(
            (given.images, *explainer.graph.inputs[0].shape), np.float32
        )

        def bare() -> None:
            for start in range(0, given.images, given.batch):
                explainer(arrays[start : start + given.batch])

        def over(dataset: Dataset) -> Callable[[], None]:
            def run() -> None:
                out = folder / "out"
                aggregate(
                    explainer,
                    dataset,
                    folder=out,
                    batch=given.batch,
                    workers=given.workers,
                    force=True,
                )

            return run

        contenders = {
            "bare explaining": bare,
            "aggregate, arrays": over(open_dataset(arrays)),
            "aggregate, JPEG": over(open_dataset(folder / "photos")),
        }
        seconds: dict[str, list[float]] = {contender: [] for contender in contenders}
        for turn in range(given.turns + 1):
            for contender, run in contenders.items():
                begun = time.perf_counter()
                run()
                if turn:  # the first warms up
                    seconds[contender].append(time.perf_counter() - begun)
    print(f"{given.network}, {given.composite}, {given.images} images, batches of {given.batch}")
    print(f"JPEG of {PHOTO[1]} x {PHOTO[0]} pixels, {kilobytes:.0f} kB")
    rates = {contender: given.images / median(times) for contender, times in seconds.items()}
    for contender, rate in rates.items():
        low, high = (given.images / extreme(seconds[contender]) for extreme in (max, min))
        share = rate / rates["bare explaining"]
        print(f"{contender:<18} {rate:7.1f} a second ({low:.1f} to {high:.1f})  {share:6.1%}")


if __name__ == "__main__":
    main()
