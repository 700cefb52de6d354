"""Runs over datasets: what is added up, what is rejected, and going on after a stop."""

from __future__ import annotations

import csv
import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from relprop import Explainer, rules
from relprop.aggregation import run as runs
from relprop.aggregation.regions import LabelMap, Thirds
from relprop.aggregation.run import aggregate
from relprop.datasets import open_dataset
from relprop.errors import TooManyRejectedError
from relprop.runs.checkpoint import Checkpoint
from synthetic_run import CLASSES, SHAPE, Elements, network, run, synthetic

COUNT = 200


def files(folder: Path) -> dict[str, bytes]:
    """All files but Zarr's, whose chunks may end in what lies beyond the array."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and "maps.zarr" not in path.parts
    }


def rejected(folder: Path) -> dict[str, str]:
    with (folder / "rejected.csv").open(newline="") as file:
        return {row["key"]: row["reason"] for row in csv.DictReader(file)}


def images(count: int) -> NDArray[np.float32]:
    return np.stack([Elements(count, bad=False)[index][0] for index in range(count)])


# --- What is added up -----------------------------------------------------------------------------


def test_the_figures_are_those_of_explaining_all_at_once(tmp_path: Path) -> None:
    explainer = Explainer(network(), "epsilon_plus_flat")
    dataset = synthetic(60, bad=False)
    result = aggregate(explainer, dataset, {"thirds": Thirds()}, folder=tmp_path)
    assert (result.items, result.state.count, result.rejected) == (60, 60, [])
    explained = explainer(images(60))
    truth = np.arange(60) % 3
    thirds = np.split(explained.relevance.sum(axis=1, dtype=np.float64), [3, 6], axis=1)
    rows = {(r["class"], r["region"]): r for r in result.state.tables()["regions"]}
    for label, name in enumerate(CLASSES):
        for region, part in zip(("top", "middle", "bottom"), thirds, strict=True):
            expected = part.sum(axis=(1, 2))[truth == label].mean()
            assert rows[name, region]["relevance_mean"] == pytest.approx(expected, rel=1e-6)
            assert rows[name, region]["count"] == 20
    average = result.state.average_maps()["dog"].mean
    expected_map = explained.relevance[truth == 1].sum(axis=1, dtype=np.float64).mean(axis=0)
    np.testing.assert_allclose(average, expected_map, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("name", ["sensitivity", "smoothgrad", "random"])
def test_methods_are_added_up_too(tmp_path: Path, name: str) -> None:
    """Of one map for each image, or of a run for each of many copies, whatever the batch."""
    explainer = Explainer(network(), name)
    states = []
    for batch in (4, 7):
        kept = _kept(explainer, tmp_path / str(batch), batch=batch)
        states.append([one.relevance for one in kept])
    assert states[0][0].shape == explainer.attribution_shape
    np.testing.assert_array_equal(states[0], states[1])
    expected = explainer(images(12)).relevance
    np.testing.assert_array_equal(states[0], expected)
    folder = tmp_path / "run"
    result = aggregate(explainer, synthetic(12, bad=False), folder=folder, keep_maps="zarr")
    assert (result.items, result.rejected) == (12, [])
    average = result.state.average_maps()["dog"].mean
    of_dogs = expected[np.arange(12) % 3 == 1].sum(axis=1, dtype=np.float64).mean(axis=0)
    np.testing.assert_allclose(average, of_dogs, rtol=1e-6, atol=1e-6)


def test_another_method_is_another_run(tmp_path: Path) -> None:
    dataset = synthetic(6, bad=False)
    aggregate(Explainer(network(), "smoothgrad", seed=1), dataset, folder=tmp_path)
    with pytest.raises(FileExistsError, match=r"method: SmoothGrad\(.*seed=1\) there, .*seed=2"):
        aggregate(Explainer(network(), "smoothgrad", seed=2), dataset, folder=tmp_path)


def test_the_true_class_is_explained_where_that_is_asked_for(tmp_path: Path) -> None:
    explainer = Explainer(network(), "epsilon_plus_flat")
    kept = list(_kept(explainer, tmp_path, target="label"))
    scores = explainer.forward(images(12))
    assert [one.target for one in kept] == [index % 3 for index in range(12)]
    known = {"cat": (0, 2), "dog": (1,), "cow": (2,)}
    kept = list(_kept(explainer, tmp_path / "map", target="label", class_map=known))
    for index, one in enumerate(kept):
        candidates = known[CLASSES[index % 3]]
        assert one.target == max(candidates, key=lambda output: scores[index, output])
        direct = explainer(images(12)[index], target=one.target).relevance
        assert np.array_equal(one.relevance, direct)


def _kept(explainer: Explainer, folder: Path, **options: Any) -> list[Any]:
    """The maps that a run over twelve images would keep."""
    kept: list[Any] = []

    class Keeping:
        count = 0

        def __init__(self, *arguments: object) -> None: ...

        def add(self, one: Any) -> None:
            kept.append(one)

        def flush(self) -> None: ...

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(runs, "KeptMaps", Keeping)
        dataset = synthetic(12, bad=False)
        aggregate(explainer, dataset, folder=folder, keep_maps="zarr", **options)
    return kept


@pytest.mark.parametrize("options", [{"batch": 1}, {"batch": 7, "workers": 5}, {"batch": 64}])
def test_batches_and_workers_change_nothing(tmp_path: Path, options: dict[str, int]) -> None:
    run(tmp_path / "one", COUNT)
    run(tmp_path / "other", COUNT, **options)
    assert files(tmp_path / "one") == files(tmp_path / "other")


def test_what_a_folder_holds_at_the_end(tmp_path: Path) -> None:
    result = run(tmp_path, COUNT, command=["relprop", "aggregate"])
    names = {name for name in files(tmp_path) if not name.startswith("maps")}
    assert names == {
        ".lock",
        "average_maps.npz",
        "channels.csv",
        "checkpoint",
        "classes.csv",
        "conservation.json",
        "extremes.csv",
        "pairs.csv",
        "regions.csv",
        "rejected.csv",
        "result.json",
    }
    content = json.loads((tmp_path / "result.json").read_text())
    assert content["command"] == ["relprop", "aggregate"]
    assert content["versions"].keys() == {"relprop", "numpy", "Pillow"}
    assert content["fingerprint"]["dataset"] == "synthetic"
    assert (content["items"], content["used"]) == (COUNT, COUNT - 5)
    assert content["regions"] == result.state.tables()["regions"]
    with (tmp_path / "regions.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 3 * (3 + 4)
    assert float(rows[0]["relevance_mean"]) == content["regions"][0]["relevance_mean"]
    with np.load(tmp_path / "average_maps.npz") as arrays:
        assert arrays["classes"].tolist() == list(CLASSES)
        assert arrays["means"].shape == arrays["deviations"].shape == (3, 8, 8)
        assert arrays["counts"].sum() == content["used"]
    for number, name in enumerate(CLASSES):
        with Image.open(tmp_path / f"maps/{number:04}-{name}.png") as picture:
            assert picture.size == (8, 8)


def test_average_maps_shrink_where_there_are_many_classes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runs, "MAP_BYTES", 32 * 4 * 4 * 4)
    result = run(tmp_path, 30)
    assert result.state.average_maps()["cat"].mean.shape == (4, 4)


def test_a_limit_ends_the_run(tmp_path: Path) -> None:
    assert run(tmp_path / "limited", COUNT, limit=50).items == 50
    whole = run(tmp_path / "whole", 50)
    assert run(tmp_path / "again", COUNT, limit=50).state.tables() == whole.state.tables()


# --- What is rejected -----------------------------------------------------------------------------


def test_every_kind_of_bad_item_is_listed_with_its_reason(tmp_path: Path) -> None:
    shape, value, label = 7, 47, 87
    run(tmp_path, COUNT)
    reasons = rejected(tmp_path)
    assert list(reasons) == ["7", "47", "87", "127", "167"]
    assert reasons[str(shape)] == f"the model takes {SHAPE}, not (2, 4, 8)."
    assert "must be finite" in reasons[str(value)]
    assert reasons[str(label)] == (
        "tiny has no class 'horse'. Name the model's classes (--classes), or map the dataset's "
        "(--classes-map)."
    )


def test_what_only_explaining_finds_out_rejects_that_item_alone(tmp_path: Path) -> None:
    """An image whose relevance overflows, among others of its batch."""
    pixels = images(10)
    pixels[4] *= 5e37
    dataset = open_dataset([(image, 0) for image in pixels])
    explainer = Explainer(network(), "epsilon")
    result = aggregate(explainer, dataset, folder=tmp_path, batch=10)
    assert result.state.count == 9
    ((key, reason),) = result.rejected
    assert key == "4"
    assert "finite" in reason


def test_missing_annotations_reject(tmp_path: Path) -> None:
    dataset = synthetic(10, bad=False)
    with pytest.raises(TooManyRejectedError, match=r"10 of 10 items were rejected"):
        aggregate(Explainer(network(), "epsilon"), dataset, "boxes", folder=tmp_path)
    assert rejected(tmp_path)["0"] == "there is no box of class 'cat'."
    unlabelled = open_dataset(list(images(3)))
    with pytest.raises(TooManyRejectedError, match="it has no label to explain"):
        aggregate(
            Explainer(network(), "epsilon"), unlabelled, folder=tmp_path / "no", target="label"
        )
    result = aggregate(Explainer(network(), "epsilon"), unlabelled, folder=tmp_path / "yes")
    assert list(result.state.average_maps()) == [None]
    assert (tmp_path / "yes/maps/0000-unlabelled.png").exists()


def test_regions_of_the_users_own_may_reject(tmp_path: Path) -> None:
    def label(key: str) -> NDArray[np.int64]:
        return np.full((8, 8), 2 if key == "3" else 0)

    own = {"own": LabelMap(("a", "b"), label)}
    result = aggregate(
        Explainer(network(), "epsilon"), synthetic(6, bad=False), own, folder=tmp_path
    )
    assert result.rejected == [("3", "labels must lie in [-1, 2), not be 2.")]


def test_too_many_rejected_items_stop_the_run(tmp_path: Path) -> None:
    with pytest.raises(TooManyRejectedError, match=r"3 of 100 items were rejected, see .*rejected"):
        run(tmp_path, COUNT, most_rejected=0.02)
    assert list(rejected(tmp_path)) == ["7", "47", "87"]
    assert not (tmp_path / "result.json").exists()
    assert Checkpoint.read(tmp_path / "checkpoint").position == 100
    run(tmp_path, COUNT)  # it goes on where more are allowed
    run(tmp_path / "unbroken", COUNT)
    unbroken = files(tmp_path / "unbroken")
    assert {name: content for name, content in files(tmp_path).items() if name in unbroken} == (
        unbroken
    )


def test_an_empty_dataset_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(TooManyRejectedError, match="the dataset is empty"):
        aggregate(Explainer(network(), "epsilon"), open_dataset([]), folder=tmp_path)


# --- Refusals -------------------------------------------------------------------------------------


def test_a_finished_run_is_not_done_again(tmp_path: Path) -> None:
    first = run(tmp_path, COUNT)
    before = files(tmp_path)
    again = run(tmp_path, COUNT)
    assert again.before
    assert not first.before
    assert again.state.tables() == first.state.tables()
    assert again.rejected == first.rejected
    assert files(tmp_path) == before
    # killed before the last file was written, or tidied away
    for name in ("result.json", "regions.csv", "average_maps.npz", "maps/0001-dog.png"):
        (tmp_path / name).unlink()
        assert run(tmp_path, COUNT).before
        assert files(tmp_path) == before


@pytest.mark.parametrize(
    ("options", "difference"),
    [
        ({"regions": ("thirds",)}, r"regions: grid:2x2: r1c1, r1c2, r2c1, r2c2 there, nothing"),
        ({"target": "label"}, "target: argmax there, label here"),
        ({"limit": 100}, "limit: nothing there, 100 here"),
        ({"class_map": {"cat": (0,)}}, r"class map: cat: nothing there, \(0,\) here"),
        ({"keep_maps": "zarr"}, "maps: nothing there, zarr float32 here"),
    ],
)
def test_another_run_is_refused(tmp_path: Path, options: dict[str, Any], difference: str) -> None:
    run(tmp_path, COUNT)
    with pytest.raises(FileExistsError, match=f"holds another run .*{difference}"):
        run(tmp_path, COUNT, **options)


def test_another_model_or_rule_is_refused(tmp_path: Path) -> None:
    run(tmp_path, COUNT)
    options: dict[str, Any] = {"regions": ("thirds", "grid:2x2"), "folder": tmp_path}
    for explainer, difference in (
        (Explainer(network(1), "epsilon_plus_flat"), r"model: tiny \w+ there, tiny \w+ here"),
        (Explainer(network(), "epsilon"), "composite: epsilon_plus_flat there, epsilon here"),
        (
            Explainer(network(), "epsilon_plus_flat", rules={"conv": rules.WSquare()}),
            r"rules: conv: Flat\(\) there, WSquare",
        ),
    ):
        with pytest.raises(FileExistsError, match=difference):
            aggregate(explainer, synthetic(COUNT), **options)
    with pytest.raises(FileExistsError, match="items: 200 there, 201 here"):
        run(tmp_path, COUNT + 1)


def test_another_order_of_classes_is_another_run(tmp_path: Path) -> None:
    """The state has them by their places."""
    known = {"cat": (0,), "dog": (1,), "cow": (2,)}
    run(tmp_path, 30, class_map=known)
    with pytest.raises(FileExistsError, match="class map: cat, dog, cow there, cow, dog, cat here"):
        run(tmp_path, 30, class_map=dict(reversed(known.items())))


def test_force_begins_anew(tmp_path: Path) -> None:
    run(tmp_path, COUNT)
    run(tmp_path, 40, force=True)
    run(tmp_path / "fresh", 40)
    fresh = files(tmp_path / "fresh")
    assert {name: files(tmp_path)[name] for name in fresh} == fresh


def test_force_removes_what_the_new_run_does_not_write(tmp_path: Path) -> None:
    pytest.importorskip("zarr")
    run(tmp_path, 40, keep_maps="zarr")
    (tmp_path / "maps/mine.png").write_bytes(b"mine")
    (tmp_path / "notes.txt").write_bytes(b"mine")
    run(tmp_path, 40, force=True)
    assert not (tmp_path / "maps.zarr").exists()
    assert (tmp_path / "maps/mine.png").exists()
    assert (tmp_path / "notes.txt").exists()


def test_results_without_a_checkpoint_are_refused(tmp_path: Path) -> None:
    (tmp_path / "regions.csv").write_text("mine")
    with pytest.raises(FileExistsError, match=r"regions\.csv exists already"):
        run(tmp_path, COUNT)
    assert files(tmp_path) == {".lock": b"", "regions.csv": b"mine"}
    run(tmp_path / "other", 40)
    with pytest.raises(FileExistsError, match=r"result\.json exists already"):
        run(tmp_path / "other", 40, resume=False)


def test_a_damaged_checkpoint_is_refused(tmp_path: Path) -> None:
    run(tmp_path, 40)
    path = tmp_path / "checkpoint"
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(ValueError, match="checkpoint: damaged"):
        run(tmp_path, 40)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"batch": 0}, "batch must be at least 1, not 0"),
        ({"workers": 0}, "workers must be at least 1, not 0"),
        ({"limit": 0}, "limit must be at least 1, not 0"),
        ({"most_rejected": 1.5}, r"most_rejected must lie in \[0, 1\], not 1.5"),
        ({"target": "dog"}, "target must be one of argmax, label, not 'dog'"),
        ({"regions": "quarters"}, "regions must be thirds"),
        ({"keep_maps": "npz"}, "as zarr or virelay, not 'npz'"),
    ],
)
def test_wrong_arguments_are_refused(tmp_path: Path, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        run(tmp_path, 10, **options)


# --- Going on after a stop ------------------------------------------------------------------------


def child(folder: Path, *arguments: object) -> subprocess.Popen[bytes]:
    """Begin a run in another process, which closes its output once it has imported all."""
    script = Path(__file__).parent / "synthetic_run.py"
    paths = [str(Path(runs.__file__).parents[2]), *sys.path]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(paths)}
    command = [sys.executable, str(script), str(folder), *map(str, arguments)]
    begun = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE)
    assert begun.stdout
    with begun.stdout:
        begun.stdout.read()
    return begun


@pytest.mark.parametrize(("kept", "kills"), [("", 20), ("zarr", 5), ("virelay", 5)])
def test_a_run_that_is_killed_again_and_again_ends_as_if_it_was_not(
    tmp_path: Path, kept: str, kills: int
) -> None:
    if kept:
        pytest.importorskip({"zarr": "zarr", "virelay": "h5py"}[kept])
    options = [kept] if kept else []
    count = 400 * kills
    assert child(tmp_path / "unbroken", count, 0, *options).wait() == 0
    folder = tmp_path / "killed"
    delays = random.Random(0)
    resumed = set()
    for kill in range(10 * kills):
        if kill >= kills and len(resumed) > kills / 3:
            break  # a slow machine takes more kills, and later ones, to come as far
        begun = child(folder, count, 0.001, *options)
        time.sleep(delays.uniform(0.0, 0.6) * max(1.0, kill / kills))
        begun.kill()
        assert begun.wait() == -signal.SIGKILL, "it was done before it could be killed"
        if (folder / "checkpoint").exists():
            resumed.add(Checkpoint.read(folder / "checkpoint").position)
    assert len(resumed) > kills / 3
    assert child(folder, count, 0, *options).wait() == 0
    assert files(folder) == files(tmp_path / "unbroken")
    if kept == "zarr":
        import zarr

        one, other = (
            dict(zarr.open_group(path / "maps.zarr", mode="r").arrays())
            for path in (folder, tmp_path / "unbroken")
        )
        assert one.keys() == other.keys()
        assert all(np.array_equal(one[name][:], other[name][:]) for name in one)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_run_leaves_a_checkpoint(tmp_path: Path, number: signal.Signals) -> None:
    """Also where none was due for a long time."""

    class Interrupting(Elements):
        def __getitem__(self, index: int) -> Any:
            if index == 150:
                signal.raise_signal(number)
            return super().__getitem__(index)

    explainer = Explainer(network(), "epsilon_plus_flat")
    options: dict[str, Any] = {"folder": tmp_path / "broken", "regions": ("thirds", "grid:2x2")}
    dataset = open_dataset(Interrupting(COUNT), name="synthetic")
    with pytest.raises(KeyboardInterrupt, match=r"stopped after \d+ items; the same call goes on"):
        aggregate(explainer, dataset, **options)
    assert 0 < Checkpoint.read(tmp_path / "broken/checkpoint").position <= 150
    run(tmp_path / "broken", COUNT)
    run(tmp_path / "whole", COUNT)
    assert files(tmp_path / "broken") == files(tmp_path / "whole")


def test_no_checkpoint_that_is_not_due(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    written = []

    def write(checkpoint: Checkpoint, path: Path) -> None:
        written.append(checkpoint.position)

    monkeypatch.setattr(Checkpoint, "write", write)
    run(tmp_path / "rare", 64, checkpoint_seconds=1e6)
    assert written == [0, 64]
    run(tmp_path / "often", 64, checkpoint_seconds=0.0)
    assert written == [0, 64, 0, 16, 32, 48, 64, 64]


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="reads /proc")
def test_memory_does_not_grow_with_the_items(tmp_path: Path) -> None:
    """RELPROP_ITEMS=100000 takes a minute."""
    count = int(os.environ.get("RELPROP_ITEMS", "12000"))
    resident = []

    class Measuring(Elements):
        def __getitem__(self, index: int) -> Any:
            if index in (count // 4, count - 1):
                pages = int(Path("/proc/self/statm").read_text().split()[1])
                resident.append(pages * os.sysconf("SC_PAGE_SIZE") / 2**20)
            return super().__getitem__(index)

    dataset = open_dataset(Measuring(count, bad=False), name="synthetic")
    explainer = Explainer(network(), "epsilon_plus_flat")
    result = aggregate(explainer, dataset, folder=tmp_path, checkpoint_seconds=1.0)
    assert result.state.count == count
    before, after = resident
    print(f"{count} items: {before:.1f} MiB after a quarter, {after:.1f} MiB at the end")
    assert after - before < 4
