"""Metrics: figures of one map that need no perturbing, by the words that name them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from relprop.evaluation.localisation import (
    Mask,
    pointing_game,
    relevance_mass,
    relevance_rank,
    top_k_intersection,
)
from relprop.evaluation.maps import Map
from relprop.evaluation.sparseness import entropy, gini

FORMS = (
    "pointing_game, pointing_game:PIXELS, relevance_mass, relevance_rank, top_k:K, gini, entropy"
)
"""The words that :func:`metric_of` reads, as error texts list them."""


@dataclass(frozen=True)
class Metric:
    """A figure of a map (H, W), and of the mask of the class where it is ``localising``.

    ``of`` returns NaN or None where it is not defined.
    """

    word: str
    localising: bool
    of: Callable[..., float | bool | None]

    def __call__(self, relevance: Map, mask: Mask | None) -> float:
        """Return the figure, NaN where it is not defined: without a mask, for one."""
        if self.localising and mask is None:
            return float("nan")
        value = self.of(relevance, mask) if self.localising else self.of(relevance)
        return float("nan") if value is None else float(value)


def metric_of(word: str) -> Metric:
    """Make the metric that the command line's word names.

    Raises
    ------
    ValueError
        If the word names none.
    """
    name, _, text = word.partition(":")
    number = int(text) if text.isascii() and text.isdecimal() else None
    if word in _PLAIN:
        return Metric(word, *_PLAIN[word])
    if name == "pointing_game" and number is not None:
        return Metric(word, True, lambda of, mask: pointing_game(of, mask, number))
    if name == "top_k" and number:
        return Metric(word, True, lambda of, mask: top_k_intersection(of, mask, number))
    raise ValueError(f"metrics must be of {FORMS}, not {word!r}.")


def metrics_of(words: Sequence[str]) -> tuple[Metric, ...]:
    """Make the metrics that words name, each once."""
    return tuple(metric_of(word) for word in dict.fromkeys(words))


_PLAIN: dict[str, tuple[bool, Callable[..., float | bool | None]]] = {
    "pointing_game": (True, pointing_game),
    "relevance_mass": (True, relevance_mass),
    "relevance_rank": (True, relevance_rank),
    "gini": (False, gini),
    "entropy": (False, entropy),
}
