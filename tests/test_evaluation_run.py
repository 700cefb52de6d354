"""Evaluations of datasets: what is judged, what is rejected, and going on after a stop."""

from __future__ import annotations

import csv
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from relprop import Explainer, rules
from relprop.datasets import Box, Item, open_dataset
from relprop.errors import TooManyRejectedError
from relprop.evaluation import (
    aopc,
    box_mask,
    difference,
    estimate,
    gini,
    perturbation_curve,
    relevance_mass,
)
from relprop.evaluation import run as runs
from relprop.evaluation.perturbations import Blur
from relprop.evaluation.run import EvaluationResult, evaluate
from relprop.runs.checkpoint import Checkpoint
from synthetic_evaluation import METHODS, explainers, run
from synthetic_run import CLASSES, SHAPE, Elements, network, synthetic

pytest.importorskip("matplotlib", reason="needs matplotlib: pip install 'relprop[evaluation]'")
pq = pytest.importorskip(
    "pyarrow.parquet", reason="needs pyarrow: pip install 'relprop[evaluation]'"
)

COUNT = 12
FAST: dict[str, Any] = {"perturbations": ("constant:0",), "orders": ("morf",), "metrics": ()}
"""One curve for each method: where curves are not what a test is about."""


def files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def rejected(folder: Path) -> dict[str, str]:
    return {row["key"]: row["reason"] for row in table(folder, "rejected")}


def table(folder: Path, name: str) -> list[dict[str, str]]:
    with (folder / f"{name}.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def images(count: int) -> NDArray[np.float32]:
    return np.stack([Elements(count, bad=False)[index][0] for index in range(count)])


@pytest.fixture(scope="module")
def judged(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, EvaluationResult]:
    """A run over good images."""
    folder = tmp_path_factory.mktemp("judged")
    return folder, run(folder, COUNT, bad=False, command=["relprop", "evaluate"])


Direct = dict[tuple[str, str, str], NDArray[np.float64]]


@pytest.fixture(scope="module")
def direct() -> Direct:
    """The curves of all images by the functions on arrays, mean over repeats."""
    pixels = images(COUNT)
    options: dict[str, Any] = {
        "keys": [str(index) for index in range(COUNT)],
        "region": 2,
        "steps": 5,
        "repeats": 2,
        "bounds": (-2.0, 2.0),
    }
    found: Direct = {}
    for word in ("uniform:-2:2", "constant:0"):
        options["perturbation"] = word
        predict = next(iter(explainers().values()))
        curve = perturbation_curve(predict, pixels, order="random", **options)
        found[word, "random", "random order"] = curve.mean
        for name, explainer in explainers().items():
            relevance = explainer(pixels).relevance
            for order in ("morf", "lerf"):
                curve = perturbation_curve(predict, pixels, relevance, order=order, **options)
                found[word, order, name] = curve.mean
    return found


def over(curves: NDArray[np.float64]) -> NDArray[np.float64]:
    """The area over each image's curve."""
    return aopc(curves[:, None])


# --- What is judged -------------------------------------------------------------------------------


def test_the_curves_are_those_of_the_functions_on_arrays(
    judged: tuple[Path, EvaluationResult], direct: Direct
) -> None:
    rows = pq.read_table(judged[0] / "curves.parquet").to_pylist()
    assert len(rows) == COUNT * len(direct)
    scores = explainers()["gradient"].forward(images(COUNT))
    for row in rows:
        index = int(row["key"])
        curve = direct[row["perturbation"], row["order"], row["method"]][index]
        assert row["curve"] == curve.tolist()
        assert row["aopc"] == over(curve[None])[0]
        assert row["score"] == scores[index].max()
        assert row["label"] == CLASSES[index % 3]
        assert row["predicted"] == row["target"] == CLASSES[scores[index].argmax()]
    assert [row["key"] for row in rows[:: len(direct)]] == [str(i) for i in range(COUNT)]


def test_means_have_the_intervals_of_the_bootstrap(
    judged: tuple[Path, EvaluationResult], direct: Direct
) -> None:
    rows = judged[1].tables["aopc"]
    assert [tuple(row[k] for k in ("perturbation", "order", "method")) for row in rows] == [
        (word, order, method)
        for word in ("uniform:-2:2", "constant:0")
        for order in ("morf", "lerf", "random")
        for method in (METHODS if order != "random" else ("random order",))
    ]
    for row in rows:
        own = direct[row["perturbation"], row["order"], row["method"]]
        expected = estimate(over(own), resamples=200)
        assert row["images"] == COUNT
        for name, value in (
            ("aopc", expected.mean),
            ("low", expected.low),
            ("high", expected.high),
        ):
            assert row[name] == pytest.approx(float(value), rel=1e-12)


def test_differences_are_paired(judged: tuple[Path, EvaluationResult], direct: Direct) -> None:
    rows = judged[1].tables["differences"]
    assert len(rows) == 2 * 2 * (1 + 2)
    for row in rows:
        word = row["perturbation"]
        order = "random" if row["other"] == "random order" else row["order"]
        expected = difference(
            over(direct[word, row["order"], row["method"]]),
            over(direct[word, order, row["other"]]),
            resamples=200,
        )
        assert row["difference"] == pytest.approx(float(expected.mean), rel=1e-9)
        assert row["low"] == pytest.approx(float(expected.low), rel=1e-9)
        assert row["high"] == pytest.approx(float(expected.high), rel=1e-9)
        assert row["p_value"] == float(expected.p_value)


def test_the_area_between_both_orders(
    judged: tuple[Path, EvaluationResult], direct: Direct
) -> None:
    rows = judged[1].tables["abpc"]
    assert [row["method"] for row in rows] == list(METHODS) * 2
    for row in rows:
        morf, lerf = (over(direct[row["perturbation"], o, row["method"]]) for o in ("morf", "lerf"))
        expected = difference(morf, lerf, resamples=200)
        assert row["abpc"] == pytest.approx(float(np.mean(morf - lerf)), rel=1e-12)
        assert row["low"] == pytest.approx(float(expected.low), rel=1e-9)


def test_mean_curves(judged: tuple[Path, EvaluationResult], direct: Direct) -> None:
    rows = table(judged[0], "mean_curves")
    assert len(rows) == len(direct) * 6
    for row in rows:
        own = direct[row["perturbation"], row["order"], row["method"]]
        step = int(row["step"])
        drops = own[:, 0] - own[:, step]
        assert float(row["score"]) == pytest.approx(own[:, step].mean())
        assert float(row["drop"]) == pytest.approx(drops.mean(), abs=1e-12)
        assert float(row["low"]) <= float(row["drop"]) + 1e-12
        assert float(row["drop"]) <= float(row["high"]) + 1e-12
        if step == 0:
            assert float(row["low"]) == float(row["high"]) == 0.0


def test_what_a_folder_holds_at_the_end(judged: tuple[Path, EvaluationResult]) -> None:
    folder, result = judged
    plots = {f"{stem}.{end}" for stem in PLOTS for end in ("png", "svg")}
    tables = {f"{name}.csv" for name in runs.TABLES}
    others = {".lock", "checkpoint", "rejected.csv", "result.json"}
    assert set(files(folder)) == plots | tables | others | {"curves.parquet", "metrics.parquet"}
    content = json.loads((folder / "result.json").read_text())
    assert content["command"] == ["relprop", "evaluate"]
    assert {"relprop", "numpy", "pyarrow", "matplotlib"} <= content["versions"].keys()
    assert content["fingerprint"]["steps"] == 5
    assert content["fingerprint"]["methods"]["gradient"]["rules"]["conv"] == "Gradient()"
    assert (content["seed"], content["items"], content["used"]) == (0, COUNT, COUNT)
    assert content["aopc"] == result.tables["aopc"]
    assert [float(row["aopc"]) for row in table(folder, "aopc")] == [
        row["aopc"] for row in content["aopc"]
    ]


PLOTS = ("curves-uniform_-2_2", "curves-constant_0", "aopc")


def test_the_true_class_is_judged_where_that_is_asked_for(tmp_path: Path) -> None:
    run(tmp_path, 6, bad=False, target="label", score="probability", **FAST)
    scores = explainers()["gradient"].forward(images(6)).astype(np.float64)
    shares = np.exp(scores) / np.exp(scores).sum(axis=1, keepdims=True)
    for row in pq.read_table(tmp_path / "curves.parquet").to_pylist():
        index = int(row["key"])
        assert row["target"] == row["label"] == CLASSES[index % 3]
        assert row["predicted"] == CLASSES[scores[index].argmax()]
        assert row["score"] == pytest.approx(shares[index, index % 3])


def test_a_perturbation_of_ones_own_and_a_cutting(tmp_path: Path) -> None:
    class Halves:
        word = "halves"

        def labels(self, sample: Any) -> NDArray[np.int32]:
            return np.repeat(np.arange(2, dtype=np.int32), 4)[:, None].repeat(8, axis=1)

    options = FAST | {"perturbations": {"soft": Blur(1.5)}, "regions": Halves()}
    result = run(tmp_path, 4, bad=False, **options)
    (curve, *_) = pq.read_table(tmp_path / "curves.parquet")["curve"].to_pylist()
    assert len(curve) == 6
    assert len(set(curve[2:])) == 1  # two regions are all there are
    assert result.tables["aopc"][0]["perturbation"] == "soft"
    assert (tmp_path / "curves-soft.svg").exists()


def test_one_image_has_no_interval(tmp_path: Path) -> None:
    result = run(tmp_path, 1, bad=False, **FAST)
    assert result.tables["aopc"][0]["low"] is None
    assert table(tmp_path, "aopc")[0]["low"] == ""


# --- Metrics --------------------------------------------------------------------------------------


class Boxed:
    """Images of which some have a box of their class, or of another one."""

    name = "boxed"
    classes = CLASSES
    boxes = (
        (Box(0, 0, 4, 8, "cat"),),
        (Box(2, 2, 6, 6, 1), Box(0, 0, 1, 1, "horse")),
        (Box(0, 0, 4, 4, "cat"),),
        (Box(1, 1, 3, 3),),
        (),
    )

    def __iter__(self) -> Iterator[Item]:
        for index, boxes in enumerate(self.boxes):
            yield Item(str(index), array=images(5)[index], label=index % 3, boxes=boxes)

    def __len__(self) -> int:
        return len(self.boxes)

    def shard(self, index: int, count: int) -> Any:
        raise NotImplementedError


def test_metrics_of_maps_and_of_the_class_that_is_judged(tmp_path: Path) -> None:
    own = explainers()
    options = {"steps": 1, "metrics": ("relevance_mass", "gini", "pointing_game:2")}
    result = evaluate(
        own, Boxed(), folder=tmp_path, target="label", perturbations=["constant:0"], **options
    )
    rows = pq.read_table(tmp_path / "metrics.parquet").to_pylist()
    truths = np.arange(5) % 3
    means: dict[str, list[float]] = {name: [] for name in own}
    for index, row in enumerate(rows):
        image, name = divmod(index, 2)
        explainer = own[METHODS[name]]
        relevance = explainer(images(5), truths).relevance.sum(axis=1, dtype=np.float64)[image]
        assert row["method"] == METHODS[name]
        assert row["gini"] == gini(relevance)
        if image in (2, 4):  # a box of another class alone, or none
            assert row["relevance_mass"] is None
            assert row["pointing_game:2"] is None
        else:
            mask = box_mask(Boxed.boxes[image][:1], 8, 8)
            assert row["relevance_mass"] == relevance_mass(relevance, mask)
            assert row["pointing_game:2"] in (0.0, 1.0)
            means[row["method"]].append(row["relevance_mass"])
    of_mass = [row for row in result.tables["metrics"] if row["metric"] == "relevance_mass"]
    for row in of_mass:
        cat_a, dog, cat_b = means[row["method"]]
        assert (row["images"], row["undefined"]) == (3, 2)
        assert row["mean"] == pytest.approx(np.mean(means[row["method"]]))
        assert row["low"] <= row["mean"] <= row["high"]
        assert row["class_mean"] == pytest.approx(((cat_a + cat_b) / 2 + dog) / 2)


def test_a_metric_that_is_defined_nowhere(judged: tuple[Path, EvaluationResult]) -> None:
    rows = [row for row in judged[1].tables["metrics"] if row["metric"] == "relevance_mass"]
    for row in rows:
        assert (row["images"], row["undefined"], row["mean"], row["low"]) == (0, COUNT, None, None)
    assert pq.read_table(judged[0] / "metrics.parquet")["relevance_mass"].null_count == COUNT * 2


# --- The same, whatever happens -------------------------------------------------------------------


@pytest.mark.parametrize("options", [{"batch": 1}, {"batch": 5, "workers": 4}, {"batch": 100}])
def test_batches_and_workers_change_nothing(
    tmp_path: Path, judged: tuple[Path, EvaluationResult], options: dict[str, int]
) -> None:
    run(tmp_path, COUNT, bad=False, command=["relprop", "evaluate"], **options)
    assert files(tmp_path) == files(judged[0])


def test_another_seed_gives_other_noise(
    tmp_path: Path, judged: tuple[Path, EvaluationResult]
) -> None:
    result = run(tmp_path, COUNT, bad=False, seed=1)
    for row, before in zip(result.tables["aopc"], judged[1].tables["aopc"], strict=True):
        drawn = row["perturbation"] != "constant:0" or row["order"] == "random"
        assert (row["aopc"] != before["aopc"]) == drawn


def test_what_other_methods_and_orders_are_there_changes_no_curve(
    tmp_path: Path, direct: Direct
) -> None:
    explainer = {"gradient": explainers()["gradient"]}
    dataset = synthetic(COUNT, bad=False)
    evaluate(
        explainer,
        dataset,
        folder=tmp_path,
        orders=("morf",),
        perturbations=("uniform:-2:2",),
        regions="2",
        steps=5,
        repeats=2,
    )
    found = pq.read_table(tmp_path / "curves.parquet")["curve"].to_pylist()
    assert found == direct["uniform:-2:2", "morf", "gradient"].tolist()


# --- What is rejected -----------------------------------------------------------------------------


def test_every_kind_of_bad_item_is_listed_with_its_reason(tmp_path: Path) -> None:
    result = run(tmp_path, 100, target="label", **FAST)
    assert (result.items, result.used, len(result.rejected)) == (100, 97, 3)
    reasons = rejected(tmp_path)
    assert list(reasons) == ["7", "47", "87"]
    assert reasons["7"] == f"the model takes {SHAPE}, not (2, 4, 8)."
    assert "must be finite" in reasons["47"]
    assert reasons["87"].startswith("tiny has no class 'horse'. Name the model's classes (--cl")
    keys = pq.read_table(tmp_path / "curves.parquet")["key"].to_pylist()
    assert set(keys) == {str(index) for index in range(100)} - set(reasons)


def test_what_only_explaining_finds_out_rejects_that_item_alone(tmp_path: Path) -> None:
    """An image whose relevance overflows, among others of its batch."""
    pixels = images(6)
    pixels[4] *= 5e37
    own = {"epsilon": Explainer(network(), "epsilon")}
    dataset = open_dataset([(image, 0) for image in pixels])
    result = evaluate(own, dataset, folder=tmp_path, regions="4", steps=2, **FAST)
    ((key, reason),) = result.rejected
    assert (key, result.used) == ("4", 5)
    assert "finite" in reason


def test_what_only_perturbing_finds_out_rejects_that_item_alone(tmp_path: Path) -> None:
    own = explainers()
    options = FAST | {"perturbations": ("constant:3e38",)}
    with pytest.raises(TooManyRejectedError, match=r"2 of 2 items were rejected.*finite"):
        evaluate(own, synthetic(2, bad=False), folder=tmp_path, regions="4", steps=2, **options)


def test_items_without_masks_or_labels(tmp_path: Path) -> None:
    with pytest.raises(TooManyRejectedError, match=r"3 of 3 items were rejected.* has no masks"):
        run(tmp_path / "masks", 3, bad=False, regions="masks")
    unlabelled = open_dataset(list(images(3)))
    options = FAST | {"regions": "4", "steps": 2}
    with pytest.raises(TooManyRejectedError, match="it has no label to explain"):
        evaluate(explainers(), unlabelled, folder=tmp_path / "no", target="label", **options)
    result = evaluate(explainers(), unlabelled, folder=tmp_path / "yes", **options)
    assert result.used == 3
    assert pq.read_table(tmp_path / "yes/curves.parquet")["label"].null_count == 6


def test_the_predicted_class_needs_no_label_that_the_model_knows(tmp_path: Path) -> None:
    pixels = images(3)
    boxes = (Box(0, 0, 4, 4, "horse"),)
    elements = [Item(str(i), array=pixels[i], label="horse", boxes=boxes) for i in range(3)]

    class Horses:
        name, classes = "horses", ("horse",)

        def __iter__(self) -> Iterator[Item]:
            return iter(elements)

    options = FAST | {"regions": "4", "steps": 2, "metrics": ("relevance_mass",)}
    result = evaluate(explainers(), Horses(), folder=tmp_path / "argmax", **options)  # type: ignore[arg-type]
    assert (result.used, result.rejected) == (3, [])
    assert pq.read_table(tmp_path / "argmax/curves.parquet")["label"].null_count == 6
    assert [row["undefined"] for row in result.tables["metrics"]] == [3, 3]
    with pytest.raises(TooManyRejectedError, match=r"tiny has no class 'horse'. Name the model's"):
        evaluate(
            explainers(),
            Horses(),  # type: ignore[arg-type]
            folder=tmp_path / "label",
            target="label",
            **options,
        )


def test_too_many_rejected_items_stop_the_run(tmp_path: Path) -> None:
    with pytest.raises(TooManyRejectedError, match=r"2 of 100 items were rejected, see .*rejected"):
        run(tmp_path, 120, most_rejected=0.01, **FAST)
    assert not (tmp_path / "result.json").exists()
    assert Checkpoint.read(tmp_path / "checkpoint").position == 100
    run(tmp_path, 120, **FAST)  # it goes on where more are allowed
    run(tmp_path / "unbroken", 120, **FAST)
    assert files(tmp_path / "unbroken") == {
        path.name: path.read_bytes() for path in sorted(tmp_path.iterdir()) if path.is_file()
    }


def test_an_empty_dataset_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(TooManyRejectedError, match="the dataset is empty"):
        evaluate(explainers(), open_dataset([]), folder=tmp_path, **FAST)


# --- Refusals -------------------------------------------------------------------------------------


def test_a_finished_run_is_not_done_again(tmp_path: Path) -> None:
    first = run(tmp_path, 10, **FAST)
    before = files(tmp_path)
    again = run(tmp_path, 10, **FAST)
    assert again.before
    assert not first.before
    assert (again.tables, again.rejected) == (first.tables, first.rejected)
    (tmp_path / "records").write_bytes(b"left behind")
    run(tmp_path, 10, **FAST)
    assert files(tmp_path) == before


def test_a_finished_run_says_what_has_gone(tmp_path: Path) -> None:
    """It cannot be made again: what was known of each image is in the tables alone."""
    run(tmp_path, 10)
    (tmp_path / "aopc.csv").unlink()
    with pytest.raises(FileNotFoundError, match=r"aopc\.csv is missing from what a finished run"):
        run(tmp_path, 10)
    names = set(files(tmp_path)) - {".lock", "checkpoint", "result.json"}
    for name in names:
        (tmp_path / name).unlink()
    with pytest.raises(FileNotFoundError) as caught:
        run(tmp_path, 10)
    said = str(caught.value).partition(": ")[2].partition(" are missing")[0]
    assert set(said.split(", ")) == names | {"aopc.csv"}


@pytest.mark.parametrize(
    ("options", "difference"),
    [
        ({"orders": ("lerf",)}, "orders: morf there, lerf here"),
        ({"perturbations": ("blur:2",)}, "perturbations: constant:0: constant:0 there, nothing"),
        ({"regions": "4"}, "regions: 2 there, 4 here"),
        ({"metrics": ("gini",)}, "metrics:  there, gini here"),
        ({"steps": 6}, "steps: 5 there, 6 here"),
        ({"seed": 1}, "seed: 0 there, 1 here"),
        ({"score": "probability"}, "score: logit there, probability here"),
        ({"target": "label"}, "target: argmax there, label here"),
        ({"limit": 5}, "limit: nothing there, 5 here"),
        ({"class_map": {"cat": (0,)}}, r"class map: cat: nothing there, \(0,\) here"),
    ],
)
def test_another_run_is_refused(
    tmp_path_factory: pytest.TempPathFactory, options: dict[str, Any], difference: str
) -> None:
    folder = tmp_path_factory.getbasetemp() / "refusing"
    run(folder, 10, **FAST)  # done by the first of these tests
    with pytest.raises(FileExistsError, match=f"holds another run .*{difference}"):
        run(folder, 10, **FAST | options)


def test_other_methods_are_refused(tmp_path: Path) -> None:
    options = FAST | {"folder": tmp_path, "regions": "4", "steps": 2}
    model = network()
    evaluate({"a": Explainer(model, "epsilon")}, synthetic(4, bad=False), **options)
    for others, differing in (
        ({"b": Explainer(model, "epsilon")}, "methods: a: "),
        ({"a": Explainer(model, "epsilon_plus")}, "composite: epsilon there, epsilon_plus here"),
        (
            {"a": Explainer(model, "epsilon", rules={"conv": rules.WSquare()})},
            r"methods: a: rules: conv: Epsilon\(.*\) there, WSquare",
        ),
        ({"a": Explainer(network(1), "epsilon")}, r"model: tiny \w+ there, tiny \w+ here"),
    ):
        with pytest.raises(FileExistsError, match=differing):
            evaluate(others, synthetic(4, bad=False), **options)


def test_another_order_is_another_run(tmp_path: Path) -> None:
    """Records have methods, perturbations and classes by their places."""
    options = FAST | {"folder": tmp_path, "regions": "4", "steps": 2}
    known = {"cat": (0,), "dog": (1,), "cow": (2,)}
    words = ("constant:0", "constant:1")
    given = options | {"perturbations": words, "class_map": known}
    methods, dataset = explainers(), synthetic(4, bad=False)
    evaluate(methods, dataset, **given)
    with pytest.raises(FileExistsError, match="methods: epsilon_plus_flat, gradient there, grad"):
        evaluate(dict(reversed(methods.items())), dataset, **given)
    with pytest.raises(FileExistsError, match="perturbations: constant:0, constant:1 there, const"):
        evaluate(methods, dataset, **given | {"perturbations": words[::-1]})
    with pytest.raises(FileExistsError, match="class map: cat, dog, cow there, cow, dog, cat here"):
        evaluate(methods, dataset, **given | {"class_map": dict(reversed(known.items()))})


def test_force_begins_anew(tmp_path: Path) -> None:
    run(tmp_path / "one", 10)
    run(tmp_path / "one", 4, force=True, **FAST)
    run(tmp_path / "fresh", 4, **FAST)
    assert files(tmp_path / "one") == files(tmp_path / "fresh")


def test_results_without_a_checkpoint_are_refused(tmp_path: Path) -> None:
    (tmp_path / "aopc.csv").write_text("mine")
    with pytest.raises(FileExistsError, match=r"aopc\.csv exists already"):
        run(tmp_path, 4, **FAST)
    assert files(tmp_path) == {".lock": b"", "aopc.csv": b"mine"}


def test_records_without_a_checkpoint_are_refused_unless_they_are_empty(tmp_path: Path) -> None:
    records = tmp_path / "records"
    records.write_text("mine")
    with pytest.raises(FileExistsError, match="records exists already"):
        run(tmp_path, 4, **FAST)
    assert records.read_text() == "mine"
    records.write_text("")  # as a run leaves them that is killed before its first checkpoint
    run(tmp_path, 4, **FAST)
    assert not records.exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"batch": 0}, "batch must be at least 1, not 0"),
        ({"workers": 0}, "workers must be at least 1, not 0"),
        ({"limit": 0}, "limit must be at least 1, not 0"),
        ({"most_rejected": 1.5}, r"most_rejected must lie in \[0, 1\], not 1.5"),
        ({"steps": 0}, "steps must be at least 1, not 0"),
        ({"perturbations": ("uniform",)}, "uniform needs the bounds of the network's input"),
        ({"perturbations": ("constant:1/2/3",)}, "a colour must have 2 channels, not 3"),
    ],
)
def test_wrong_arguments_are_refused(tmp_path: Path, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        run(tmp_path / "out", 10, **options)
    assert not (tmp_path / "out").exists()


def test_no_results_among_the_photos(tmp_path: Path) -> None:
    (tmp_path / "photos/cat").mkdir(parents=True)
    with pytest.raises(ValueError, match=r"photos/out lies in the dataset .*photos, all of whose"):
        evaluate(explainers(), open_dataset(tmp_path / "photos"), folder=tmp_path / "photos/out")
    assert not (tmp_path / "photos/out").exists()


def test_methods_that_cannot_be_compared_are_refused(tmp_path: Path) -> None:
    model, options = network(), {"dataset": synthetic(2), "folder": tmp_path / "out"}
    one = Explainer(model, "epsilon")
    with pytest.raises(ValueError, match="explainers must be at least one, not none"):
        evaluate({}, **options)
    with pytest.raises(ValueError, match="no method can be called 'random order'"):
        evaluate({"random order": one}, **options)
    with pytest.raises(TypeError, match=r"explainers\['a'\] must be an Explainer, not str"):
        evaluate({"a": "epsilon"}, **options)  # type: ignore[dict-item]
    with pytest.raises(ValueError, match=r"of one output of one model.*'b' is not"):
        evaluate({"a": one, "b": Explainer(network(1), "epsilon")}, **options)
    equal = {"a": one, "b": Explainer(network(), "gradient")}
    assert evaluate(equal, regions="4", steps=1, **FAST, **options).used == 2


def test_a_missing_package_is_named_before_work_begins(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for package in ("pyarrow", "matplotlib"):
        with monkeypatch.context() as patch:
            patch.setitem(sys.modules, package, None)
            with pytest.raises(ImportError, match=rf"needs {package}: pip install 'relprop\[eval"):
                run(tmp_path / "out", 2)
    assert not (tmp_path / "out").exists()


# --- Going on after a stop ------------------------------------------------------------------------


def child(folder: Path, *arguments: object) -> subprocess.Popen[bytes]:
    """Begin a run in another process, which closes its output once it has imported all."""
    script = Path(__file__).parent / "synthetic_evaluation.py"
    paths = [str(Path(runs.__file__).parents[2]), *sys.path]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(paths)}
    command = [sys.executable, str(script), str(folder), *map(str, arguments)]
    begun = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE)
    assert begun.stdout
    with begun.stdout:
        begun.stdout.read()
    return begun


def test_a_run_that_is_killed_again_and_again_ends_as_if_it_was_not(tmp_path: Path) -> None:
    kills = 8
    count = 150 * kills
    assert child(tmp_path / "unbroken", count, 0).wait() == 0
    folder = tmp_path / "killed"
    delays = random.Random(0)
    resumed = set()
    for kill in range(10 * kills):
        if kill >= kills and len(resumed) > kills / 3:
            break  # a slow machine takes more kills, and later ones, to come as far
        begun = child(folder, count, 0.004)
        time.sleep(delays.uniform(0.0, 0.7) * max(1.0, kill / kills))
        begun.kill()
        assert begun.wait() == -signal.SIGKILL, "it was done before it could be killed"
        if (folder / "checkpoint").exists():
            resumed.add(Checkpoint.read(folder / "checkpoint").position)
    assert len(resumed) > kills / 3
    assert child(folder, count, 0).wait() == 0
    assert files(folder) == files(tmp_path / "unbroken")


@pytest.mark.parametrize("failing", ["curves.parquet", "aopc.svg", "result.json", "records"])
def test_a_run_that_is_killed_while_it_writes_results(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failing: str
) -> None:
    class Killed(BaseException):
        pass

    def replace(path: Path, target: Path) -> Path:
        if target.name == failing:
            raise Killed
        return renamed(path, target)

    def unlink(path: Path, missing_ok: bool = False) -> None:
        if path.name == failing:
            raise Killed
        removed(path, missing_ok)

    renamed, removed = Path.replace, Path.unlink
    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", replace)
        patch.setattr(Path, "unlink", unlink)
        with pytest.raises(Killed):
            run(tmp_path / "killed", 10)
    run(tmp_path / "killed", 10)
    run(tmp_path / "unbroken", 10)
    assert files(tmp_path / "killed") == files(tmp_path / "unbroken")


def test_records_that_were_lost_are_missed(tmp_path: Path) -> None:
    class Stopping(Elements):
        def __getitem__(self, index: int) -> Any:
            if index == 35:
                signal.raise_signal(signal.SIGINT)
            return super().__getitem__(index)

    options = FAST | {"folder": tmp_path, "regions": "4", "steps": 2, "batch": 4}
    with pytest.raises(KeyboardInterrupt):
        evaluate(explainers(), open_dataset(Stopping(40, bad=False), name="s"), **options)
    records = tmp_path / "records"
    records.write_bytes(records.read_bytes()[:-1])
    with pytest.raises(ValueError, match=r"records: must begin with the \d+ bytes .* has fewer"):
        evaluate(explainers(), open_dataset(Elements(40, bad=False), name="s"), **options)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_run_leaves_a_checkpoint(
    tmp_path: Path, number: signal.Signals, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In the middle of an image, too, and where no checkpoint was due for a long time."""
    forward, calls = Explainer.forward, []

    def interrupting(explainer: Explainer, given: Any) -> Any:
        calls.append(len(given))
        if len(calls) == 60:
            signal.raise_signal(number)
        return forward(explainer, given)

    with monkeypatch.context() as patch:
        patch.setattr(Explainer, "forward", interrupting)
        with pytest.raises(KeyboardInterrupt, match=r"stopped after \d+ items; the same call goes"):
            run(tmp_path / "broken", COUNT, checkpoint_seconds=1e6, batch=8)
    assert len(calls) == 60, "it went on to the end of the image"
    assert 0 < Checkpoint.read(tmp_path / "broken/checkpoint").position < COUNT
    run(tmp_path / "broken", COUNT)
    run(tmp_path / "whole", COUNT)
    assert files(tmp_path / "broken") == files(tmp_path / "whole")


def test_progress_within_an_image(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[float] = []

    class Bar(runs.RunProgress):
        def within(self, share: float) -> None:
            told.append(share)

    monkeypatch.setattr(runs, "RunProgress", Bar)
    run(tmp_path, 2, bad=False, batch=4)
    # of 5 steps: both orders of 2 methods and a random one; twice where something is random
    passes = 1 + 5 * (2 * 5 + 4 + 2)
    batches = [4 * i / passes for i in range(-(-passes // 4))]
    once = [0.0, *told[1 : len(batches)]]
    assert once == pytest.approx(batches)
    assert told[len(batches)] == 0.0  # the next item


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="reads /proc")
def test_memory_does_not_grow_with_the_items(tmp_path: Path) -> None:
    """RELPROP_ITEMS=100000 takes minutes."""
    count = int(os.environ.get("RELPROP_ITEMS", "4000"))
    resident = []

    class Measuring(Elements):
        def __getitem__(self, index: int) -> Any:
            if index in (count // 4, count - 1):
                pages = int(Path("/proc/self/statm").read_text().split()[1])
                resident.append(pages * os.sysconf("SC_PAGE_SIZE") / 2**20)
            return super().__getitem__(index)

    dataset = open_dataset(Measuring(count, bad=False), name="synthetic")
    options = FAST | {"regions": "4", "steps": 4, "resamples": 50}
    result = evaluate(explainers(), dataset, folder=tmp_path, **options)
    assert result.used == count
    before, after = resident
    print(f"{count} items: {before:.1f} MiB after a quarter, {after:.1f} MiB at the end")
    assert after - before < 4
