"""Samples of a run: which of them a model can explain, and which one is to blame where it fails."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Protocol, TypeVar

from relprop.datasets import Rejected, Sample
from relprop.explain import Explainer
from relprop.runs.classes import NO_LABEL, Classes, Target, UnknownClassError


class Prepared(Protocol):
    """A sample with what was found out about it before a run explains it."""

    @property
    def sample(self) -> Sample:
        """The sample itself."""


P = TypeVar("P", bound=Prepared)
E = TypeVar("E")


def truth_of(
    sample: Sample,
    explainer: Explainer,
    classes: Classes,
    target: Target,
    *,
    known: bool = True,
) -> int:
    """Return the number of a sample's true class, if the sample can be explained.

    Unless classes must be ``known`` for something else than the target, -1 stands for one that is
    none of ``classes``, as it does for a sample without a class.

    Raises
    ------
    ValueError
        If it is of another shape than the model's input, its class is not known, or it has none
        where ``target`` is ``"label"``.
    """
    shape = explainer.graph.inputs[0].shape
    if sample.pixels.shape != shape:
        raise ValueError(f"the model takes {shape}, not {sample.pixels.shape}.")
    try:
        truth = classes.truth(sample.label)
    except UnknownClassError:
        if known or target == "label":
            raise
        truth = NO_LABEL
    if target == "label":
        classes.require_outputs(truth)
    return truth


def explained_or_rejected(
    batch: Sequence[P], explain: Callable[[Sequence[P]], Iterable[E]]
) -> list[E | Rejected]:
    """Explain a batch; where that fails, its samples one by one, to learn which is to blame."""
    if not batch:
        return []
    try:
        return list(explain(batch))
    except ValueError as error:
        if len(batch) == 1:
            return [rejection(batch[0].sample.key, error)]
        return [outcome for one in batch for outcome in explained_or_rejected([one], explain)]


def rejection(key: str, error: Exception) -> Rejected:
    """Say of a sample why it cannot be used, without its key where the error begins with it."""
    return Rejected(key, str(error).removeprefix(f"{key}: "))
