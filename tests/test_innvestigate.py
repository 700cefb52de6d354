"""iNNvestigate's stored attributions: one layer and the largest neuron's relevance.

Its stabiliser acts only where a sum is exactly zero, its LRPZ is epsilon's limit, and its alpha
beta puts the whole bias into either term; so methods are compared where the definitions meet.
"""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from peers import peer
from relprop import Explainer, rules
from relprop import graph as g

FOLDER = Path(__file__).parents[2] / "shared/data/reference_innvestigate"
