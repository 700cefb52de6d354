"""Tables of single images: Parquet files in groups of rows, the same bytes each time."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import numpy as np
import pytest

from relprop.evaluation import image_tables
from relprop.evaluation.image_tables import ImageTables
from relprop.evaluation.record_file import Record
from relprop.evaluation.settings import Settings

pq = pytest.importorskip(
    "pyarrow.parquet", reason="needs pyarrow: pip install 'relprop[evaluation]'"
)

SETTINGS = Settings.of(steps=3, metrics=["gini", "relevance_mass"])


def records(count: int) -> list[Record]:
    found = []
    for number in range(count):
        rng = np.random.default_rng(number)
        metrics = np.array([[0.5, np.nan], [0.25, 1.0]])
        curves = rng.standard_normal((3, 4))
        found.append(Record(f"ü{number}", number % 3 - 1, 1, 4, 2.0, curves, metrics))
    return found


def written(folder: Path, count: int, settings: Settings = SETTINGS) -> None:
    outputs = [f"output {number}" for number in range(5)]
    tables = ImageTables(("cat", "dog"), outputs, ("a", "b"), settings)
    tables.write(folder, records(count))


def test_rows_and_columns(tmp_path: Path) -> None:
    written(tmp_path, 4)
    rows = pq.read_table(tmp_path / "curves.parquet").to_pylist()
    for number, one in enumerate(records(4)):
        for k, (order, method) in enumerate(
            [("morf", "a"), ("morf", "b"), ("random", "random order")]
        ):
            curve = one.curves[k]
            assert rows[3 * number + k] == {
                "key": one.key,
                "label": (None, "cat", "dog")[number % 3],
                "predicted": "dog",
                "target": "output 4",
                "perturbation": "uniform",
                "order": order,
                "method": method,
                "score": curve[0],
                "aopc": pytest.approx(sum(curve[0] - value for value in curve) / 4),
                "curve": curve.tolist(),
            }
    rows = pq.read_table(tmp_path / "metrics.parquet").to_pylist()
    assert [row["method"] for row in rows] == ["a", "b"] * 4
    assert {name: rows[0][name] for name in ("key", "label", "gini", "relevance_mass")} == {
        "key": "ü0",
        "label": None,
        "gini": 0.5,
        "relevance_mass": None,
    }


def test_no_metrics_no_table(tmp_path: Path) -> None:
    written(tmp_path, 1, Settings.of(steps=3))
    assert [path.name for path in tmp_path.iterdir()] == ["curves.parquet"]


@pytest.mark.skipif(sys.platform != "linux", reason="other systems have names in Unicode alone")
def test_a_folder_may_have_any_name(tmp_path: Path) -> None:
    folder = tmp_path / os.fsdecode(b"\xff")
    folder.mkdir()
    written(folder, 1)
    assert {path.name for path in folder.iterdir()} == {"curves.parquet", "metrics.parquet"}


def test_groups_of_rows_are_written_one_after_the_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "one").mkdir()
    (tmp_path / "many").mkdir()
    written(tmp_path / "one", 10)
    monkeypatch.setattr(image_tables, "GROUP_BYTES", 1000)
    written(tmp_path / "many", 10)
    one, many = (pq.ParquetFile(tmp_path / name / "curves.parquet") for name in ("one", "many"))
    assert one.metadata.num_row_groups == 1
    assert many.metadata.num_row_groups > 3
    assert one.read() == many.read()
