"""The numbers of docs/case-study.md, measured again."""

from __future__ import annotations

import os
import re
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

import relprop
from real_data import real
from relprop.aggregation.run import aggregate
from relprop.datasets import open_dataset
from relprop.preprocessing import Preprocessing
from relprop.runs.classes import read_class_map

ROOT = Path(__file__).parent.parent
DATA = ROOT.parent / "shared/data"
PAGE = (ROOT / "docs/case-study.md").read_text(encoding="utf-8")
CROP = (110, 30, 530, 450)  # of the photo, as the page says


def stated(row: str) -> float:
    """The percentage in the first row of the page's tables that begins so."""
    found = re.search(rf"^\| {re.escape(row)}[^|]* \| ([\d.]+) % \|$", PAGE, re.MULTILINE)
    assert found, row
    return float(found[1])


def boxes() -> NDArray[np.bool_]:
    """The pixels of the network's input whose centres lie in one of the page's boxes."""
    inside = np.zeros((224, 224), bool)
    centres = (np.arange(224) + 0.5) / 224
    x = CROP[0] + centres * (CROP[2] - CROP[0])
    y = CROP[1] + centres * (CROP[3] - CROP[1])
    rows = re.findall(r"\| (\d+) \| (\d+) \| (\d+) \| (\d+) \|$", PAGE, re.MULTILINE)
    assert len(rows) == 7
    for left, top, right, bottom in (map(int, row) for row in rows):
        inside |= np.outer((y >= top) & (y < bottom), (x >= left) & (x < right))
    return inside


def test_relevance_lies_on_the_scooters():
    photo = DATA / "photos/scooter10.jpg"
    network = [DATA / f"models/bvlc_googlenet{end}" for end in ("_deploy.prototxt", ".caffemodel")]
    if not all(path.exists() for path in (photo, *network)) and not os.environ.get("CI"):
        pytest.skip(f"the photo and GoogLeNet are not at {DATA}")
    preprocessing = Preprocessing(
        size=(224, 224), resize=256, channel_order="bgr", mean=(104, 117, 123), std=(1, 1, 1)
    )
    model = relprop.load((network[0], network[1]), preprocessing=preprocessing)
    x = preprocessing(relprop.read_image(photo))
    inside = boxes()

    def share(values: NDArray[np.float64]) -> float:
        return float(100 * values[inside].sum() / values.sum())

    def positive(target: int, preset: str = "alpha2_beta1") -> NDArray[np.float64]:
        result = relprop.Explainer(model, preset)(x, target=target)
        return np.maximum(np.asarray(result.relevance, np.float64).sum(0), 0)

    relevance = positive(670)
    strongest = relevance >= np.sort(relevance.ravel())[-502]  # one percent
    grey = preprocessing.view(relprop.read_image(photo)).mean(2)
    measured = {
        "area": 100 * inside.mean(),
        'positive relevance for "motor scooter"': share(relevance),
        "the one percent of pixels": share(strongest.astype(np.float64)),
        "edges": share(np.hypot(*np.gradient(grey))),
        'positive relevance for "traffic light"': share(positive(920)),
        'positive relevance for "cab"': share(positive(468)),
        'positive relevance for "moped"': share(positive(665)),
        'positive relevance for "motor scooter" under `epsilon_plus_flat`': share(
            positive(670, "epsilon_plus_flat")
        ),
        'positive relevance for "motor scooter" under `epsilon`': share(positive(670, "epsilon")),
    }
    assert measured == {row: pytest.approx(stated(row), abs=0.1) for row in measured}


def test_animals_are_looked_at_where_they_are(tmp_path: Path) -> None:
    """The columns of SqueezeNet, the smaller one of the two."""
    photos, *network = real(
        "voc_animals", "models/squeezenet_v1.1_deploy.prototxt", "models/squeezenet_v1.1.caffemodel"
    )
    preprocessing = Preprocessing(
        size=(227, 227), resize=256, channel_order="bgr", mean=(104, 117, 123), std=(1, 1, 1)
    )
    model = relprop.load((network[0], network[1]), preprocessing=preprocessing)
    explainer = relprop.Explainer(model, "epsilon_plus_flat")
    known = read_class_map(ROOT / "docs/classes/animals-imagenet.json", model, 1000)
    result = aggregate(
        explainer,
        open_dataset(str(photos)),
        ["boxes"],
        folder=tmp_path,
        target="label",
        class_map=known,
    )
    tables = result.state.tables()
    inside = {row["class"]: row for row in tables["regions"] if row["region"] == "inside"}
    mu = {row["class"]: row for row in tables["context"] if row["items"] == "all"}
    recognised = {row["class"]: row["recognised"] for row in tables["classes"]}
    rows = re.findall(r"^\| (\w+) \| (\d+) \|.*\| (\d+) % \| ([\d.]+) \| (\d+) \|$", PAGE, re.M)
    assert [row[0] for row in rows] == list(known)
    for name, count, share, median, hits in rows:
        assert inside[name]["count"] == int(count)
        assert 100 * inside[name]["share_mean"] == pytest.approx(int(share), abs=0.6)
        assert mu[name]["mu_median"] == pytest.approx(float(median), abs=0.02)
        assert recognised[name] == pytest.approx(int(hits), abs=1)
    assert max(row["largest_error"] for row in tables["conservation"]) < 1e-5
