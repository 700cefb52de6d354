"""``relprop evaluate``, on a tiny network and a folder of class folders."""

from __future__ import annotations

import csv
import json
import os
import signal
import sys
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
import typer
from PIL import Image

from command_line import OWN, Run
from relprop import cli_evaluate
from relprop.cli_methods import methods_of
from relprop.composites import PRESETS
from relprop.evaluation import judging
from relprop.evaluation.ordering import By
from relprop.evaluation.perturbing import SCORES
from relprop.runs.classes import TARGETS

pytest.importorskip("torch")
pytest.importorskip("matplotlib", reason="needs matplotlib: pip install 'relprop[evaluation]'")
pytest.importorskip("pyarrow", reason="needs pyarrow: pip install 'relprop[evaluation]'")

FAST = ("--region", "8", "--steps", "2", "--repeats", "2", "--resamples", "50")
METHODS = ("--methods", "epsilon_plus_flat,gradient")


@pytest.fixture
def photos(run: Run) -> Path:
    """Three photos of cats, three of dogs."""
    rng = np.random.default_rng(0)
    for name in ("cat", "dog"):
        Path("photos", name).mkdir(parents=True)
        for number in range(3):
            pixels = rng.integers(0, 256, (20 + number, 30, 3), np.uint8)
            Image.fromarray(pixels).save(f"photos/{name}/{number}.png")
    return Path("photos")


def evaluate(
    run: Run, *arguments: str, dataset: str = "photos", methods: tuple[str, ...] = METHODS
) -> tuple[int, str, str]:
    own = (*OWN, "--classes", "names.txt", "-o", "out")
    return run("evaluate", "tiny_network:make", dataset, *own, *methods, *FAST, *arguments)


def table(name: str) -> list[dict[str, str]]:
    with Path("out", name).open(newline="") as file:
        return list(csv.DictReader(file))


def test_help(run: Run) -> None:
    code, out, _ = run("evaluate", "--help")
    assert code == 0
    assert "Exit codes" in out
    assert "from the 100th item on" in " ".join(out.replace("│", " ").split())
    for option in ("--methods", "--order", "--perturbation", "--region", "--metrics", "--seed"):
        assert option in out


def test_the_options_name_what_there_is() -> None:
    assert cli_evaluate.TARGETS == TARGETS
    assert cli_evaluate.SCORES == SCORES
    assert get_args(By) == cli_evaluate.BY
    for word in cli_evaluate.THE_PAPERS.split(","):
        assert word in PRESETS


def test_a_folder_of_class_folders(run: Run, photos: Path) -> None:
    arguments = ("--order", "morf,lerf,random", "--perturbation", "uniform,constant:black")
    code, out, err = evaluate(run, *arguments, "--metrics", "gini", "--metrics", "pointing_game")
    assert (code, err) == (0, "")
    assert "6 of 6 images; results in out: result.json" in out
    rows = table("aopc.csv")
    lines = [line.split() for line in out.splitlines()]
    for row in rows:
        shown = f"{float(row['aopc']):.3g}"
        name = row["method"].split()
        assert any(
            line[: len(name) + 1] == [row["order"], *name] and shown in line for line in lines
        )
    assert "ABPC" in out
    assert "pointing_game: not defined for up to 6 images" in out
    assert {row["images"] for row in rows} == {"6"}
    command = json.loads(Path("out/result.json").read_text())["command"]
    assert command[:4] == ["relprop", "evaluate", "tiny_network:make", "photos"]
    before = {path: path.read_bytes() for path in Path("out").iterdir()}
    again = evaluate(run, *arguments, "--metrics", "gini", "--metrics", "pointing_game")
    assert again[0] == 0
    assert "finished before: 6 of 6 images" in again[1]
    assert before == {path: path.read_bytes() for path in Path("out").iterdir()}


def test_a_narrow_terminal_cuts_nothing_off(
    run: Run, photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "60")
    words = ["uniform", "constant:black", "constant:white", "constant:mean"]
    code, out, _ = evaluate(run, "--perturbation", ",".join(words))
    assert code == 0
    assert "…" not in out
    headings = [line.split() for line in out.splitlines() if line.startswith("order")]
    assert [heading[:2] for heading in headings] == [["order", "method"]] * len(headings)
    assert [word for heading in headings for word in heading[2:]] == words
    assert len(headings) > 1
    assert out.count("epsilon_plus_flat") == len(headings)


def test_the_papers_methods_are_compared_where_nobody_says(run: Run, photos: Path) -> None:
    assert evaluate(run, methods=())[0] == 0
    assert [row["method"] for row in table("aopc.csv")] == [
        "alpha2_beta1",
        "sensitivity",
        "deconvnet",
        "random order",
    ]


def test_parameters_of_methods(run: Run, photos: Path) -> None:
    methods = ("-c", "epsilon,epsilon:epsilon=100", "-p", "epsilon=1e-9")
    assert evaluate(run, "--limit", "2", methods=methods)[0] == 0
    told = json.loads(Path("out/result.json").read_text())["fingerprint"]["methods"]
    assert told["epsilon"]["rules"]["0"] == "Epsilon(epsilon=1e-09, bias='absorb')"
    assert "100" in told["epsilon:epsilon=100"]["rules"]["0"]


def test_json_for_machines(run: Run, photos: Path) -> None:
    code, out, err = evaluate(run, "--json", "--limit", "2", "--score", "probability")
    assert (code, err) == (0, "")
    report = json.loads(out)
    assert (report["items"], report["used"], report["rejected"]) == (2, 2, 0)
    assert [row["method"] for row in report["aopc"]] == [
        "epsilon_plus_flat",
        "gradient",
        "random order",
    ]
    assert all(-1 <= row["aopc"] <= 1 for row in report["aopc"])
    assert report["differences"][0]["p_value"] in (0.5, 1.0)  # of two images' four signs
    assert report["metrics"] == []


def test_rejected_images(run: Run, photos: Path) -> None:
    Path("photos/cat/broken.png").write_bytes(b"no picture")
    code, out, _ = evaluate(run)
    assert code == 1
    assert "6 of 7 images, 1 rejected (rejected.csv)" in out
    assert [row["key"] for row in table("rejected.csv")] == ["cat/broken.png"]
    assert evaluate(run)[0] == 1  # also when it is asked again


def test_folders_need_not_be_called_as_the_models_classes(run: Run, photos: Path) -> None:
    (photos / "cat").rename(photos / "n02123045")
    code, out, err = evaluate(run)
    assert (code, err) == (0, "")
    assert "6 of 6 images; results in out" in out


def test_too_many_rejected_images(run: Run, photos: Path) -> None:
    code, out, err = evaluate(run, "--region", "masks")
    assert (code, out) == (3, "")
    assert err.startswith("error: 6 of 6 items were rejected, see out/rejected.csv; the last: ")


def test_a_map_of_classes(run: Run, photos: Path) -> None:
    Path("map.json").write_text('{"cat": ["motor scooter", 0], "dog": "dog"}')
    assert evaluate(run, "--classes-map", "map.json", "-t", "label", "--json")[0] == 0
    Path("map.csv").write_text("cat,horse")
    code, _, err = evaluate(run, "--classes-map", "map.csv")
    assert code == 2
    assert "no class 'horse'" in err


def test_results_of_another_run_are_refused(run: Run, photos: Path) -> None:
    assert evaluate(run)[0] == 0
    code, _, err = evaluate(run, "--seed", "1")
    assert code == 3
    assert err == (
        "error: out holds another run (seed: 0 there, 1 here): take another folder, or "
        "overwrite it (force, --force).\n"
    )
    assert evaluate(run, "--seed", "1", "--force")[0] == 0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--methods", "epsilom"), "did you mean epsilon"),
        (("--methods", "epsilon:gamma=1"), "'gamma=1' is not KEY=VALUE with one of bias, epsilon"),
        (("--methods", "gradient"), "'gradient' is there twice"),
        (("--methods", "epsilon:epsilon=1:epsilon=2"), "'epsilon' is given twice"),
        (("--param", "gamma=1"), "'gamma=1' is not KEY=VALUE with one of"),
        (("--order", "best"), "orders must be one of morf, lerf, random, not 'best'"),
        (("--perturbation", "noise"), "perturbation must be uniform"),
        (("--region", "half"), "regions must be a side in pixels such as 9"),
        (("--metrics", "iou"), "metrics must be of pointing_game"),
        (("--level", "1"), "level must lie between 0 and 1, not 1.0"),
        (("--steps", "0"), "should be greater than or equal to 1"),
        (("--repeats", "0"), "should be greater than or equal to 1"),
        (("--batch", "0"), "should be greater than or equal to 1"),
        (("--limit", "0"), "should be greater than or equal to 1"),
        (("--seed", "-1"), "should be greater than or equal to 0"),
        (("--score", "odds"), "'odds' is not one of logit, probability"),
        (("--target", "dog"), "'dog' is not one of argmax, label"),
    ],
)
def test_wrong_use(run: Run, photos: Path, options: tuple[str, ...], message: str) -> None:
    code, out, err = evaluate(run, *options)
    assert (code, out) == (2, "")
    assert message in " ".join(err.replace("│", " ").split())
    assert not Path("out").exists()


def test_a_model_without_preprocessing(run: Run, photos: Path) -> None:
    own = [*METHODS, *FAST, "-o", "out"]
    assert run("evaluate", "tiny_network:make", "photos", *own)[0] in (2, 3)
    assert not Path("out").exists()


def test_no_dataset(run: Run) -> None:
    code, out, err = evaluate(run, dataset="missing")
    assert (code, out) == (3, "")
    assert err.startswith("error: ")
    assert not Path("out").exists()


def test_a_missing_package_is_named(
    run: Run, photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    code, _, err = evaluate(run)
    assert code == 3
    assert "pip install 'relprop[evaluation]'" in err


def test_an_interrupted_run_says_how_to_go_on(
    run: Run, photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    judged = judging.Judging._judged

    def interrupting(self: Any, one: Any) -> Any:
        if one.sample.key == "dog/0.png":
            os.kill(os.getpid(), signal.SIGINT)
        return judged(self, one)

    with monkeypatch.context() as patch:
        patch.setattr(judging.Judging, "_judged", interrupting)
        code, out, err = evaluate(run, "--force")
    assert (code, out) == (130, "")
    first, second = err.splitlines()
    assert first == "stopped after 3 items; the same call goes on from there."
    assert second.strip().startswith("relprop evaluate tiny_network:make photos")
    assert "--force" not in second
    code, out, _ = evaluate(run)
    assert code == 0
    assert "6 of 6 images" in out


@pytest.mark.parametrize(
    ("texts", "params", "expected"),
    [
        (["epsilon, gradient"], [], {"epsilon": ("epsilon", {}), "gradient": ("gradient", {})}),
        (
            ["epsilon_gamma_box:low=-2,-1.5,0:high=3,epsilon"],
            ["epsilon=1e-9"],
            {
                "epsilon_gamma_box:low=-2,-1.5,0:high=3": (
                    "epsilon_gamma_box",
                    {"epsilon": 1e-9, "low": (-2.0, -1.5, 0.0), "high": 3.0},
                ),
                "epsilon": ("epsilon", {"epsilon": 1e-9}),
            },
        ),
        (
            ["sensitivity:norm=max", "sensitivity"],
            ["norm=l2"],
            {
                "sensitivity:norm=max": ("sensitivity", {"norm": "max"}),
                "sensitivity": ("sensitivity", {"norm": "l2"}),
            },
        ),
    ],
)
def test_methods_in_words(texts: list[str], params: list[str], expected: object) -> None:
    assert methods_of(texts, params) == expected


def test_no_methods_in_words() -> None:
    with pytest.raises(typer.BadParameter, match="must name at least one"):
        methods_of([","], [])
