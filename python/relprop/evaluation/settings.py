"""Settings: how explanations are judged in a run over a dataset, checked before it begins."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, get_args

import numpy as np

from relprop.evaluation.colours import Colours
from relprop.evaluation.cutting import Cutting, cutting_of
from relprop.evaluation.metrics import Metric, metrics_of
from relprop.evaluation.ordering import ORDERS, By, Order
from relprop.evaluation.perturbation_words import perturbation_of
from relprop.evaluation.perturbations import DatasetMean, Perturbation
from relprop.evaluation.perturbing import SCORES, Score
from relprop.evaluation.streams import Stream
from relprop.preprocessing import Preprocessing
from relprop.runs.classes import TARGETS, Target
from relprop.runs.file_names import file_name
from relprop.runs.fingerprint import Fingerprint

RANDOM_ORDER = "random order"
"""What stands in the place of a method where the order is random: no method decides it."""

Given = str | Perturbation
"""A perturbation, or the word that names it."""


@dataclass(frozen=True)
class Row:
    """What one curve is of: regions taken in an ``order`` that ``method`` gives."""

    perturbation: str
    order: str
    method: str


@dataclass(frozen=True)
class Settings:
    """How a run judges explanations; the defaults are the protocol of Samek et al. 2017.

    Parameters are those of :func:`relprop.evaluation.run.evaluate`, words made into what they name:
    ``perturbations`` by the names that results have for them, ``cutting`` for ``regions``.

    Raises
    ------
    ValueError
        If one of them is not known or out of range.
    """

    orders: tuple[Order, ...] = ("morf", "random")
    perturbations: Mapping[str, Perturbation] = field(
        default_factory=lambda: perturbations_of(["uniform"])
    )
    cutting: Cutting = field(default_factory=lambda: cutting_of("9"))
    by: By = "sum"
    steps: int = 100
    repeats: int = 10
    score: Score = "logit"
    target: Target = "argmax"
    metrics: tuple[Metric, ...] = ()
    seed: int = 0
    level: float = 0.95
    resamples: int = 10_000

    def __post_init__(self) -> None:
        for name, least in (("steps", 1), ("repeats", 1), ("seed", 0), ("resamples", 1)):
            if (number := getattr(self, name)) < least:
                raise ValueError(f"{name} must be at least {least}, not {number}.")
        known = {
            "orders": (self.orders, ORDERS),
            "by": ([self.by], get_args(By)),
            "score": ([self.score], SCORES),
            "target": ([self.target], TARGETS),
        }
        for name, (values, choices) in known.items():
            for one in values:
                if one not in choices:
                    raise ValueError(f"{name} must be one of {', '.join(choices)}, not {one!r}.")
        for name in ("orders", "perturbations"):
            if not getattr(self, name):
                raise ValueError(f"{name} must be at least one, not none.")
        files = Counter(map(file_name, self.perturbations))
        if (most := max(files.values())) > 1:
            alike = [name for name in self.perturbations if files[file_name(name)] == most]
            raise ValueError(f"{' and '.join(alike)} would have one name of a file.")
        if not 0 < self.level < 1:
            raise ValueError(f"level must lie between 0 and 1, not {self.level}.")

    @classmethod
    def of(
        cls,
        *,
        orders: Sequence[str] = ("morf", "random"),
        perturbations: Sequence[Given] | Mapping[str, Perturbation] = ("uniform",),
        regions: str | Cutting = "9",
        metrics: Sequence[str] = (),
        preprocessing: Preprocessing | None = None,
        **others: Any,
    ) -> Settings:
        """Make settings of words, as the command line has them."""
        words = [orders] if isinstance(orders, str) else orders
        figures = [metrics] if isinstance(metrics, str) else metrics
        return cls(
            orders=tuple(dict.fromkeys(words)),  # type: ignore[arg-type]
            perturbations=perturbations_of(perturbations),
            cutting=cutting_of(regions, preprocessing) if isinstance(regions, str) else regions,
            metrics=metrics_of(figures),
            **others,
        )

    def rows(self, methods: Sequence[str]) -> tuple[Row, ...]:
        """List the curves of each image: a random order is the same for all methods."""
        return tuple(
            Row(perturbation, order, method)
            for perturbation in self.perturbations
            for order in self.orders
            for method in ([RANDOM_ORDER] if order == "random" else methods)
        )

    def passes(self, methods: int, regions: int | None = None) -> int:
        """Count the forward passes of an image that has so many regions, or enough of them."""
        steps = self.steps if regions is None else min(self.steps, regions)
        curves = 0
        for perturbation in self.perturbations.values():
            for order in self.orders:
                several = order == "random" or not perturbation.deterministic
                curves += (1 if order == "random" else methods) * (self.repeats if several else 1)
        return 1 + curves * steps

    def try_out(self, shape: tuple[int, ...], colours: Colours | None) -> None:
        """Prepare every perturbation for an image of one colour.

        Raises
        ------
        ValueError
            If one does not fit images of that shape, or needs bounds that are not known.
        ImportError
            If a package that it needs is not installed.
        """
        image = np.zeros(shape, np.float32)
        for perturbation in self.perturbations.values():
            perturbation.prepare(image, colours, Stream(self.seed))

    def fingerprint(self) -> Fingerprint:
        """Describe them."""
        in_words = ("orders", "perturbations", "cutting", "metrics")
        return {
            "orders": ", ".join(self.orders),
            "perturbations": {name: _told(one) for name, one in self.perturbations.items()},
            "regions": self.cutting.word,
            "metrics": ", ".join(one.word for one in self.metrics),
            **{name: value for name, value in vars(self).items() if name not in in_words},
        }


def _told(perturbation: Perturbation) -> str:
    """What describes a perturbation; an image is told by its values, not by its file alone."""
    if isinstance(perturbation, DatasetMean):
        digest = hashlib.sha256(perturbation.image.tobytes()).hexdigest()
        return f"{perturbation.word} {digest[:16]}"
    return perturbation.word


def perturbations_of(
    given: str | Sequence[Given] | Mapping[str, Perturbation],
) -> dict[str, Perturbation]:
    """Make perturbations of words, by their words.

    Raises
    ------
    ValueError
        If a word names none, or two have one name.
    """
    if isinstance(given, Mapping):
        return dict(given)
    found: dict[str, Perturbation] = {}
    for one in [given] if isinstance(given, str) else given:
        perturbation = perturbation_of(one) if isinstance(one, str) else one
        name = one if isinstance(one, str) else one.word
        if name in found:
            raise ValueError(f"perturbations must differ, but {name!r} is there twice.")
        found[name] = perturbation
    return found
