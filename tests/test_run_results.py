"""Runs of both commands in one folder: what each removes of the other's where it overwrites."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

import synthetic_evaluation
import synthetic_run
from relprop.evaluation import run as evaluations
from relprop.runs.folder import CHECKPOINT

aggregated = synthetic_run.run

MINE = ("notes.txt", "maps/mine.png", "shards/mine", "curves.txt", "aopc.json")
"""Names that no run gives."""


def evaluated(folder: Path, count: int, **options: Any) -> None:
    """Leave each kind of file, of one perturbation: plots take most of the time."""
    options = {"perturbations": ("constant:0",), "resamples": 50, **options}
    synthetic_evaluation.run(folder, count, bad=False, **options)


def paths(folder: Path) -> set[str]:
    """Of all that is in a folder, folders too."""
    return {str(path.relative_to(folder)) for path in folder.rglob("*")}


@pytest.fixture(scope="module")
def evaluation(tmp_path_factory: pytest.TempPathFactory) -> set[str]:
    """What an evaluation leaves where nothing was."""
    folder = tmp_path_factory.mktemp("evaluation")
    evaluated(folder, 4)
    return paths(folder)


@pytest.fixture(scope="module")
def aggregation(tmp_path_factory: pytest.TempPathFactory) -> set[str]:
    """What an aggregation leaves where nothing was."""
    folder = tmp_path_factory.mktemp("aggregation")
    aggregated(folder, 4)
    return paths(folder)


@pytest.mark.parametrize("kept", [None, "zarr", "virelay"])
def test_an_evaluation_overwrites_all_of_an_aggregation(
    tmp_path: Path, evaluation: set[str], kept: Any
) -> None:
    pytest.importorskip({"zarr": "zarr", "virelay": "h5py"}.get(kept, "numpy"))
    aggregated(tmp_path, 4, keep_maps=kept)
    (tmp_path / "shards").mkdir()  # as runs by Ray leave them
    shutil.copy(tmp_path / CHECKPOINT, tmp_path / "shards/00000")
    with pytest.raises(FileExistsError, match=r"run \(command: aggregate there, evaluate here"):
        evaluated(tmp_path, 4)
    evaluated(tmp_path, 4, force=True)
    assert paths(tmp_path) == evaluation


def test_an_aggregation_overwrites_all_of_an_evaluation(
    tmp_path: Path, aggregation: set[str]
) -> None:
    evaluated(tmp_path, 4)
    with pytest.raises(FileExistsError, match=r"run \(command: evaluate there, aggregate here"):
        aggregated(tmp_path, 4)
    aggregated(tmp_path, 4, force=True)
    assert paths(tmp_path) == aggregation


def test_an_aggregation_overwrites_an_evaluation_that_was_stopped(
    tmp_path: Path, aggregation: set[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(*_: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(evaluations, "_conclude", stop)
    with pytest.raises(KeyboardInterrupt):
        evaluated(tmp_path, 4)
    assert "records" in paths(tmp_path)
    aggregated(tmp_path, 4, force=True)
    assert paths(tmp_path) == aggregation


def test_what_a_user_put_there_stays(tmp_path: Path) -> None:
    for first, second in ((aggregated, evaluated), (evaluated, aggregated)):
        folder = tmp_path / first.__module__
        first(folder, 4)
        for name in MINE:
            (folder / name).parent.mkdir(exist_ok=True)
            (folder / name).write_text("mine")
        second(folder, 4, force=True)
        assert all((folder / name).read_text() == "mine" for name in MINE)


@pytest.mark.parametrize("checkpoint", [True, False])
def test_a_name_of_the_other_command_is_a_users_where_it_did_not_run(
    tmp_path: Path, checkpoint: bool
) -> None:
    for run, name in ((aggregated, "metrics.csv"), (evaluated, "pairs.csv")):
        mine = tmp_path / run.__module__ / name
        run(mine.parent, 4)
        mine.write_text("mine")
        if not checkpoint:
            (mine.parent / CHECKPOINT).unlink()
        run(mine.parent, 5, force=True)
        assert mine.read_text() == "mine"


def test_nothing_is_removed_where_a_folder_is_in_a_files_place(tmp_path: Path) -> None:
    evaluated(tmp_path, 4)
    (tmp_path / "abpc.csv").unlink()
    (tmp_path / "abpc.csv").mkdir()
    before = paths(tmp_path)
    with pytest.raises(FileExistsError, match=r"abpc\.csv: a folder, where a run has a file"):
        aggregated(tmp_path, 4, force=True)
    assert paths(tmp_path) == before
