"""``relprop aggregate``, on a tiny network and a folder of class folders."""

from __future__ import annotations

import csv
import json
import os
import signal
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from command_line import NAMES, OWN, Run
from relprop import cli_aggregate
from relprop.aggregation import explaining, kept_maps

pytest.importorskip("torch")


@pytest.fixture
def photos(run: Run) -> Path:
    """Four photos of cats, four of dogs."""
    rng = np.random.default_rng(0)
    for name in ("cat", "dog"):
        Path("photos", name).mkdir(parents=True)
        for number in range(4):
            pixels = rng.integers(0, 256, (20 + number, 30, 3), np.uint8)
            Image.fromarray(pixels).save(f"photos/{name}/{number}.png")
    return Path("photos")


def aggregate(run: Run, *arguments: str, dataset: str = "photos") -> tuple[int, str, str]:
    own = (*OWN, "--classes", "names.txt", "-o", "out")
    return run("aggregate", "tiny_network:make", dataset, *own, *arguments)


def table(name: str) -> list[dict[str, str]]:
    with Path("out", name).open(newline="") as file:
        return list(csv.DictReader(file))


def test_help(run: Run) -> None:
    code, out, _ = run("aggregate", "--help")
    assert code == 0
    assert "Exit codes" in out
    for option in ("--regions", "--classes-map", "--keep-maps", "--ray", "--most-rejected"):
        assert option in out


def test_the_options_name_what_there_is() -> None:
    assert cli_aggregate.TARGETS == explaining.TARGETS
    assert cli_aggregate.KINDS == kept_maps.KINDS


def test_a_folder_of_class_folders(run: Run, photos: Path) -> None:
    code, out, err = aggregate(run, "--regions", "thirds", "--regions", "grid:2x2")
    assert (code, err) == (0, "")
    assert "8 of 8 images; results in out" in out
    assert "largest errors of conservation: ledger" in out
    rows = table("regions.csv")
    assert [row["region"] for row in rows[:3]] == ["top", "middle", "bottom"]
    assert {row["class"] for row in rows} == {"cat", "dog"}
    assert {path.name for path in Path("out/maps").iterdir()} == {"0000-cat.png", "0001-dog.png"}
    assert table("rejected.csv") == []
    command = json.loads(Path("out/result.json").read_text())["command"]
    assert command[:4] == ["relprop", "aggregate", "tiny_network:make", "photos"]
    code, out, err = aggregate(run, "--regions", "thirds", "--regions", "grid:2x2")
    assert (code, err) == (0, "")
    assert "finished before: 8 of 8 images" in out


def test_boxes_of_voc(run: Run) -> None:
    """Two photos with a box of their class; one of another split is left out."""
    for name in ("JPEGImages", "Annotations", "ImageSets/Main"):
        Path("voc", name).mkdir(parents=True)
    for name, label in (("a", "cat"), ("b", "dog"), ("c", "dog")):
        Image.new("RGB", (40, 40), "red").save(f"voc/JPEGImages/{name}.jpg")
        Path(f"voc/Annotations/{name}.xml").write_text(
            "<annotation><size><width>40</width><height>40</height><depth>3</depth></size>"
            f"<object><name>{label}</name><difficult>0</difficult><bndbox><xmin>1</xmin>"
            "<ymin>1</ymin><xmax>20</xmax><ymax>40</ymax></bndbox></object></annotation>"
        )
    Path("voc/ImageSets/Main/val.txt").write_text("a\nb\n")
    arguments = ("--split", "val", "--regions", "boxes", "--target", "label")
    code, _, err = aggregate(run, *arguments, dataset="voc")
    assert (code, err) == (0, "")
    rows = table("regions.csv")
    assert [(row["class"], row["region"], row["count"]) for row in rows] == [
        (label, region, "1") for label in ("cat", "dog") for region in ("inside", "outside")
    ]
    assert {row["pixels_mean"] for row in rows} == {"128.0"}
    assert [row["class"] for row in table("context.csv")] == ["cat", "cat", "dog", "dog"]


def test_json_for_machines(run: Run, photos: Path) -> None:
    code, out, err = aggregate(run, "--json", "--limit", "5", "-c", "epsilon", "-p", "epsilon=1e-9")
    assert (code, err) == (0, "")
    report = json.loads(out)
    assert (report["items"], report["used"], report["rejected"]) == (5, 5, 0)
    assert [row["count"] for row in report["classes"]] == [4, 1]
    assert report["conservation"][0]["largest_error"] < 1e-5


def test_rejected_images(run: Run, photos: Path) -> None:
    Path("photos/cat/broken.png").write_bytes(b"no picture")
    Path("photos/mouse").mkdir()
    Image.new("RGB", (20, 20)).save("photos/mouse/0.png")
    code, out, _ = aggregate(run, "--target", "label")
    assert code == 1
    assert "8 of 10 images, 2 rejected (rejected.csv)" in out
    reasons = {row["key"]: row["reason"] for row in table("rejected.csv")}
    assert reasons.keys() == {"cat/broken.png", "mouse/0.png"}
    assert "no class 'mouse'" in reasons["mouse/0.png"]
    assert aggregate(run, "--target", "label")[0] == 1  # also when it is asked again


def test_too_many_rejected_images(run: Run, photos: Path) -> None:
    code, out, err = aggregate(run, "--regions", "boxes")
    assert (code, out) == (3, "")
    assert err.startswith("error: 8 of 8 items were rejected, see out/rejected.csv; the last: ")
    assert len(err.splitlines()) == 1


def test_a_map_of_classes(run: Run, photos: Path) -> None:
    Path("map.json").write_text('{"cat": ["motor scooter", 0], "dog": "dog"}')
    assert aggregate(run, "--classes-map", "map.json", "-t", "label")[0] == 0
    assert [row["class"] for row in table("classes.csv")] == ["cat", "dog"]
    Path("map.csv").write_text("cat,horse")
    code, _, err = aggregate(run, "--classes-map", "map.csv")
    assert code == 2
    assert "map.csv" in err
    assert "no class 'horse'" in err
    assert aggregate(run, "--classes-map", "missing.csv")[0] == 3


def test_a_saved_model_needs_no_options(run: Run, photos: Path) -> None:
    saved = ("save", "tiny_network:make", *OWN, "--classes", "names.txt", "-o", "net.relprop")
    assert run(*saved)[0] == 0
    assert run("aggregate", "net.relprop", "photos", "-o", "out")[0] == 0
    assert len(table("regions.csv")) == 2 * 3
    assert NAMES[0] in Path("out/classes.csv").read_text()


def test_results_of_another_run_are_refused(run: Run, photos: Path) -> None:
    assert aggregate(run)[0] == 0
    code, _, err = aggregate(run, "--target", "label")
    assert code == 3
    assert err == (
        "error: out holds another run (target: argmax there, label here): take another folder, or "
        "overwrite it (force, --force).\n"
    )
    assert aggregate(run, "--target", "label", "--force")[0] == 0


def test_a_dataset_that_has_changed_is_another_one(run: Run, photos: Path) -> None:
    assert aggregate(run)[0] == 0
    (photos / "dog/0.png").rename(photos / "cat/9.png")
    code, _, err = aggregate(run)
    assert code == 3
    assert "out holds another run (keys and labels: " in err
    (photos / "cat/9.png").rename(photos / "dog/0.png")
    (photos / "cow").mkdir()
    assert (
        "dataset's classes: ['cat', 'dog'] there, ['cat', 'cow', 'dog'] here" in aggregate(run)[2]
    )


@pytest.mark.parametrize("output", ["photos", "photos/out", "photos/cat/out", "other/../photos/o"])
def test_no_results_among_the_photos(run: Run, photos: Path, output: str) -> None:
    before = sorted(photos.rglob("*"))
    code, out, err = aggregate(run, "-o", output)
    assert (code, out) == (3, "")
    assert err == (
        f"error: {output} lies in the dataset photos, all of whose files are items: take another "
        "folder for the results (folder, --output).\n"
    )
    assert sorted(photos.rglob("*")) == before


@pytest.mark.parametrize(
    ("dataset", "message"),
    [
        ("missing", "missing"),
        ("empty", "no dataset of a known kind"),
        ("left.png", "left.png"),
        ("", "a dataset's path must not be empty"),
    ],
)
def test_no_dataset(run: Run, dataset: str, message: str) -> None:
    Path("empty").mkdir()
    code, out, err = aggregate(run, dataset=dataset)
    assert (code, out) == (3, "")
    assert err.startswith("error: ")
    assert message in err
    assert not Path("out").exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--target", "dog"), "'dog' is not one of argmax, label"),
        (("--regions", "halves"), "regions must be thirds"),
        (("--regions", "boxes:doggo"), "the dataset has no class 'doggo'; close are dog."),
        (("--composite", "epsilom"), "did you mean epsilon"),
        (("--keep-maps", "npz"), "'npz' is not one of zarr, virelay"),
        (("--keep-maps", "virelay", "--maps-dtype", "float16"), "ViRelAy's files hold float32"),
        (("--keep-maps", "zarr", "--ray", "local"), "goes without --ray"),
        (("--batch", "0"), "should be greater than or equal to 1"),
        (("--limit", "0"), "should be greater than or equal to 1"),
        (("--most-rejected", "2"), "should be less than or equal to 1"),
        (("--rule", "0=Nothing()"), "'Nothing' is not one of the rules"),
        (("--rule", "Conv=Flat()", "--rule", "Conv=ZPlus()"), "'Conv' has two rules"),
        (("-c", "epsilon", "-p", "epsilon=1", "-p", "epsilon=2"), "'epsilon' is given twice"),
    ],
)
def test_wrong_use(run: Run, photos: Path, options: tuple[str, ...], message: str) -> None:
    code, out, err = aggregate(run, *options)
    assert (code, out) == (2, "")
    assert message in " ".join(err.replace("│", " ").split())
    assert not Path("out").exists()


def test_an_interrupted_run_says_how_to_go_on(
    run: Run, photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    prepared = explaining.Explaining._prepared

    def interrupting(self, sample):  # type: ignore[no-untyped-def]
        if sample.key == "dog/0.png":
            os.kill(os.getpid(), signal.SIGINT)
        return prepared(self, sample)

    with monkeypatch.context() as patch:
        patch.setattr(explaining.Explaining, "_prepared", interrupting)
        code, out, err = aggregate(run, "--batch", "2", "--force")
    assert (code, out) == (130, "")
    assert "stopped after 6 items; the same call goes on from there." in err
    command = err.splitlines()[-1].split()
    assert "--force" not in command
    assert command[0] == "relprop"
    assert run(*command[1:])[0] == 0
    assert sum(int(row["count"]) for row in table("classes.csv")) == 8


def test_an_interruption_before_the_run_gives_no_advice(
    run: Run, photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupting(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("relprop.aggregation.run.begin", interrupting)
    code, out, err = aggregate(run, "--force")
    assert (code, out, err) == (130, "", "interrupted.\n")


@pytest.mark.parametrize("kind", kept_maps.KINDS)
def test_maps_are_kept(run: Run, photos: Path, kind: str) -> None:
    pytest.importorskip({"zarr": "zarr", "virelay": "h5py"}[kind])
    assert aggregate(run, "--keep-maps", kind)[0] == 0
    made = {path.name for path in Path("out").iterdir()}
    expected = {"zarr": {"maps.zarr"}, "virelay": {"attributions-00000.h5", "label-map.json"}}
    assert expected[kind] <= made


def test_a_missing_package_is_named(
    run: Run, photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for package in ("zarr", "ray"):
        monkeypatch.setitem(sys.modules, package, None)
    code, _, err = aggregate(run, "--keep-maps", "zarr")
    assert code == 3
    assert "pip install 'relprop[zarr]'" in err
    code, _, err = aggregate(run, "--ray", "local")
    assert code == 3
    assert "pip install 'relprop[ray]'" in err


def test_a_local_cluster(run: Run, photos: Path) -> None:
    pytest.importorskip("ray", reason="needs Ray: pip install 'relprop[ray]'")
    code, out, err = aggregate(run, "--ray", "local", "--ray-workers", "2")
    assert code == 0, err
    assert "8 of 8 images; results in out" in out
    shared = table("regions.csv")
    assert aggregate(run, "--force")[0] == 0
    for row, other in zip(shared, table("regions.csv"), strict=True):
        assert float(row["relevance_mean"]) == pytest.approx(float(other["relevance_mean"]))
