"""Running the command line in a test: a folder with a tiny network and two photos."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from relprop.cli import main

NETWORK = """
import torch

def make():
    torch.manual_seed(0)
    return torch.nn.Sequential(
        torch.nn.Conv2d(3, 4, 3, padding=1),
        torch.nn.ReLU(),
        torch.nn.MaxPool2d(4),
        torch.nn.Flatten(),
        torch.nn.Linear(64, 3),
    ).eval()

def training():
    return make().train().append(torch.nn.Dropout())

def broken():
    return {}["weights"]
"""
OWN = ("--size", "16", "--mean", "127", "--std", "128")
NAMES = ("cat", "dog", "motor scooter")

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """Run the command line in a folder with a network and two photos."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "tiny_network", raising=False)
    monkeypatch.setenv("COLUMNS", "300")
    (tmp_path / "tiny_network.py").write_text(NETWORK)
    (tmp_path / "names.txt").write_text("\n".join(NAMES))
    rng = np.random.default_rng(0)
    for name in ("left", "right"):
        pixels = rng.integers(0, 256, (20, 30, 3), np.uint8)
        Image.fromarray(pixels).save(tmp_path / f"{name}.png")

    def call(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["relprop", *arguments])
        with pytest.raises(SystemExit) as stopped:
            main()
        out, err = capsys.readouterr()
        assert "Traceback" not in out + err
        return int(stopped.value.code or 0), out, err

    return call
