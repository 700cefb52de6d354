"""Checks of what every run over a dataset is given."""

from __future__ import annotations

from pathlib import Path

from relprop.datasets import Dataset
from relprop.explain import Explainer


def check_reading(batch: int, workers: int, limit: int | None, most_rejected: float) -> None:
    """Check how a dataset is to be read.

    Raises
    ------
    ValueError
        If one of them is out of range.
    """
    for name, value in (("batch", batch), ("workers", workers), ("limit", limit)):
        if value is not None and value < 1:
            raise ValueError(f"{name} must be at least 1, not {value}.")
    if not 0 <= most_rejected <= 1:
        raise ValueError(f"most_rejected must lie in [0, 1], not {most_rejected}.")


def check_folder(folder: Path, dataset: Dataset) -> None:
    """Check that results will not be items of the dataset.

    Raises
    ------
    ValueError
        If they would.
    """
    place = getattr(dataset, "all_of", None)
    if place is not None and place.holds(folder):
        raise ValueError(
            f"{folder} lies in the dataset {dataset.name}, all of whose files are items: take "
            "another folder for the results (folder, --output)."
        )


def check_classifier(explainer: Explainer) -> None:
    """Check that a model makes scores of images.

    Raises
    ------
    ValueError
        If it takes anything but one image, or gives anything but a vector.
    """
    inputs = explainer.graph.inputs
    shape = explainer.graph[explainer.graph.output].shape
    if len(inputs) != 1 or len(inputs[0].shape) != 3 or len(shape) != 1:
        raise ValueError(
            "the model must take one image and give a vector of scores; it takes "
            f"{' and '.join(str(one.shape) for one in inputs)} and gives {shape}."
        )
