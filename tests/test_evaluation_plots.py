"""Plots of an evaluation: which files, what they show, the same bytes each time."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from relprop.evaluation.plots import COLOURS, GREY, MARKERS, write_plots

matplotlib = pytest.importorskip(
    "matplotlib", reason="needs matplotlib: pip install 'relprop[evaluation]'"
)

PERTURBATIONS = ("uniform", "constant:black")
METHODS = ("alpha2_beta1", "sensitivity:norm=max")


def tables(
    orders: tuple[str, ...] = ("morf", "lerf", "random"),
    interval: bool = True,
    perturbations: tuple[str, ...] = PERTURBATIONS,
    methods: tuple[str, ...] = METHODS,
) -> Any:
    rows = [
        {"perturbation": perturbation, "order": order, "method": method}
        for perturbation in perturbations
        for order in orders
        for method in (methods if order != "random" else ("random order",))
    ]
    ends = {"low": -0.5, "high": 3.0} if interval else {"low": None, "high": None}
    curves = [row | ends | {"step": step, "drop": 0.5 * step} for row in rows for step in range(4)]
    return {"aopc": [row | ends | {"aopc": 1.5} for row in rows], "mean_curves": curves}


def write(folder: Path, **options: Any) -> dict[str, bytes]:
    folder.mkdir(exist_ok=True)
    write_plots(folder, tables(**options), PERTURBATIONS, METHODS, "logit")
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_pictures_and_drawings(tmp_path: Path) -> None:
    written = write(tmp_path)
    assert set(written) == {
        f"{stem}.{suffix}"
        for stem in ("curves-uniform", "curves-constant_black", "aopc")
        for suffix in ("png", "svg")
    }
    for name in written:
        if name.endswith(".png"):
            with Image.open(tmp_path / name) as picture:
                assert min(picture.size) > 150
    drawing = (tmp_path / "curves-constant_black.svg").read_text()
    for text in (
        "constant:black",
        "sensitivity:norm=max, least relevant first",
        "random order",
        "drop of the logit, mean over images",
    ):
        assert f">{text}<" in drawing
    for colour in (COLOURS[0], COLOURS[1], GREY):
        assert colour.lower() in drawing
    areas = (tmp_path / "aopc.svg").read_text()
    assert ">alpha2_beta1, lerf<" in areas
    assert ">AOPC (logit)<" in areas


def test_names_are_shown_as_they_are(tmp_path: Path) -> None:
    r"""No formulas (\frac alone is none that can be read), and none is taken for hidden."""
    names, methods = (r"mean:a$\frac$.npy", "x_{^"), ("_own", "$a$b", "__")
    both = tables(orders=("morf",), perturbations=names, methods=methods)
    write_plots(tmp_path, both, names, methods, "logit")
    drawings = {path.name: path.read_text() for path in tmp_path.glob("*.svg")}
    assert rf">{names[0]}<" in drawings.pop("curves-mean_a_frac_.npy.svg")
    for drawing in drawings.values():
        for shown in (names[1], *methods):
            assert f">{shown}<" in drawing


def test_one_order_needs_no_name(tmp_path: Path) -> None:
    write(tmp_path, orders=("morf", "random"))
    assert ">alpha2_beta1<" in (tmp_path / "curves-uniform.svg").read_text()
    assert ">alpha2_beta1<" in (tmp_path / "aopc.svg").read_text()


def test_one_image_has_no_band(tmp_path: Path) -> None:
    bands, none = write(tmp_path / "bands"), write(tmp_path / "none", interval=False)
    assert (
        b"PolyCollection" in bands["curves-uniform.svg"]
        or b"FillBetween" in bands["curves-uniform.svg"]
    )
    assert len(none["curves-uniform.svg"]) < len(bands["curves-uniform.svg"])


def test_equal_tables_give_equal_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever the user's settings of matplotlib, the time and hashing say."""
    first = write(tmp_path / "first")
    monkeypatch.setitem(os.environ, "SOURCE_DATE_EPOCH", "0")
    with matplotlib.rc_context({"font.size": 20, "lines.linewidth": 9, "svg.hashsalt": "other"}):
        assert write(tmp_path / "second") == first
        assert matplotlib.rcParams["font.size"] == 20


def test_many_methods_look_different() -> None:
    looks = {(COLOURS[i % len(COLOURS)], MARKERS[i % len(MARKERS)]) for i in range(30)}
    assert len(looks) == 30
