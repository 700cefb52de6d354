"""Attribution methods that make something of plain runs: one file for each; docs/methods.md."""

from __future__ import annotations

from relprop.methods.channel_norm import ChannelNorm
from relprop.methods.gradient_x_input import GradientXInput
from relprop.methods.integrated_gradients import IntegratedGradients
from relprop.methods.method import Attribution, ManyRuns, Method, OneRun
from relprop.methods.occlusion import Occlusion
from relprop.methods.random import Random
from relprop.methods.runs import Runs
from relprop.methods.smoothgrad import SmoothGrad
from relprop.methods.sobel import Sobel

__all__ = [
    "Attribution",
    "ChannelNorm",
    "GradientXInput",
    "IntegratedGradients",
    "ManyRuns",
    "Method",
    "Occlusion",
    "OneRun",
    "Random",
    "Runs",
    "SmoothGrad",
    "Sobel",
]
