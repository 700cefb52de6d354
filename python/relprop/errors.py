"""The exceptions that are relprop's own; everything else is a ValueError, TypeError or OSError."""

from __future__ import annotations


class UnsupportedOperatorError(ValueError):
    """A model holds operators that the Graph cannot represent; the message lists all of them."""


class UnmatchedLayerError(ValueError):
    """No entry of the composite matches a node, or the matching rule does not apply to it."""


class MissingAnnotation(ValueError):
    """A sample has no box or mask of the class whose regions were asked for."""


class TooManyRejectedError(RuntimeError):
    """A run over a dataset stopped, because too many of its items could not be used."""
