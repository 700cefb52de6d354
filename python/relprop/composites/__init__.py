"""Composites map every node of a Graph to a rule; presets are composites by name.

>>> preset("epsilon_plus_flat")
>>> Composite("mine", (Entry(First(), Flat()), Entry("Conv", ZPlus()), Entry(object, Epsilon())))
"""

from __future__ import annotations

from relprop.composites.composite import Composite, Entry, Initial, assign, match
from relprop.composites.matchers import First, Matcher, describe
from relprop.composites.presets import PRESETS, RULES_ALONE, parameters, preset, rectifier, required

__all__ = [
    "PRESETS",
    "RULES_ALONE",
    "Composite",
    "Entry",
    "First",
    "Initial",
    "Matcher",
    "assign",
    "describe",
    "match",
    "parameters",
    "preset",
    "rectifier",
    "required",
]
