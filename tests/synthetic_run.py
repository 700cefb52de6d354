"""A run over a synthetic dataset with a tiny network, in a process that can be killed.

python synthetic_run.py FOLDER ITEMS SECONDS_PER_ITEM [KEEP_MAPS]
"""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from relprop import Explainer, Graph, Model
from relprop.aggregation.run import RunResult, aggregate
from relprop.datasets import Dataset, open_dataset
from relprop.graph import Activation, Conv, Dense, Input, MaxPool, Reshape

CLASSES = ("cat", "dog", "cow")
SHAPE = (2, 8, 8)


def network(seed: int = 0) -> Model:
    """A convolution, pooling and a dense layer."""
    rng = np.random.default_rng(seed)

    def normal(*shape: int) -> NDArray[np.float32]:
        return rng.standard_normal(shape, np.float32)

    graph = Graph()
    graph.add("input", Input(SHAPE))
    graph.add("conv", Conv(normal(4, 2, 3, 3), normal(4), padding=((1, 1), (1, 1))), ["input"])
    graph.add("relu", Activation("relu"), ["conv"])
    graph.add("pool", MaxPool((4, 4), (4, 4)), ["relu"])
    graph.add("flat", Reshape((16,)), ["pool"])
    graph.add("scores", Dense(normal(3, 16), normal(3)), ["flat"])
    return Model(graph, classes=CLASSES, name="tiny")


class Elements:
    """Images made of their index: some of another shape, some not finite, some of no known class.

    Every 40th is ``bad`` in one of three ways.
    """

    classes = CLASSES

    def __init__(self, count: int, seconds: float = 0.0, bad: bool = True) -> None:
        self._count = count
        self._seconds = seconds
        self._bad = bad

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, index: int) -> Any:
        time.sleep(self._seconds)
        image = np.random.default_rng(index).standard_normal(SHAPE, np.float32)
        if not self._bad or index % 40 != 7:
            return image, index % 3
        kind = index // 40 % 3
        if kind == 0:
            return image[:, :4], 0
        if kind == 1:
            image[0, 0, 0] = np.inf
            return image, 1
        return image, "horse"


def synthetic(count: int, seconds: float = 0.0, bad: bool = True) -> Dataset:
    """The images as a dataset."""
    return open_dataset(Elements(count, seconds, bad), name="synthetic")


def run(folder: Path, count: int, seconds: float = 0.0, **options: Any) -> RunResult:
    """Aggregate over them."""
    options = {"regions": ("thirds", "grid:2x2"), "checkpoint_seconds": 0.05, **options}
    explainer = Explainer(network(), "epsilon_plus_flat")
    return aggregate(explainer, synthetic(count, seconds), folder=folder, **options)


if __name__ == "__main__":
    os.close(sys.stdout.fileno())  # says that everything is imported
    where, items, pause, *kept = sys.argv[1:]
    run(
        Path(where),
        int(items),
        float(pause),
        keep_maps=kept[0] if kept else None,
        command=["synthetic"],
    )
