"""The command line, on a tiny network and generated photos."""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
import weakref
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import relprop
from command_line import NAMES, OWN, Run
from relprop.composites import PRESETS

pytest.importorskip("torch")


def explain(run: Run, *arguments: str) -> tuple[int, str, str]:
    return run(
        "explain", "tiny_network:make", *arguments, *OWN, "--classes", "names.txt", "-o", "out"
    )


def written() -> set[str]:
    return {path.name for path in Path("out").iterdir()}


def test_help(run: Run) -> None:
    for arguments in (("--help",), ("-h",)):
        code, out, _ = run(*arguments)
        assert code == 0
        assert "explain" in out
        assert "presets" in out
    code, out, _ = run("explain", "--help")
    assert code == 0
    assert "Exit codes" in out
    for option in ("--target", "--composite", "--output", "--json", "--cmap", "--mean"):
        assert option in out


def test_presets_are_listed(run: Run) -> None:
    code, out, _ = run("presets")
    assert code == 0
    assert all(name in out for name in PRESETS)
    assert "ZBox(low, high)" in out
    assert "…" not in out  # a narrow terminal cuts nothing off
    code, out, _ = run("presets", "--json")
    listed = json.loads(out)
    assert [one["name"] for one in listed] == list(PRESETS)
    nodes, rule = listed[1]["entries"][0]
    assert nodes.startswith("first Conv, ")
    assert rule == "Flat()"


def test_one_image(run: Run) -> None:
    code, out, err = explain(run, "left.png", "--target", "dog")
    assert (code, err) == (0, "")
    assert written() == {
        "left.epsilon_plus_flat.heatmap.png",
        "left.epsilon_plus_flat.overlay.png",
        "left.epsilon_plus_flat.npz",
    }
    for kind in ("heatmap", "overlay"):
        with Image.open(f"out/left.epsilon_plus_flat.{kind}.png") as picture:
            assert (picture.size, picture.mode) == ((16, 16), "RGB")
    with np.load("out/left.epsilon_plus_flat.npz") as arrays:
        assert arrays["relevance"].shape == (3, 16, 16)
        assert arrays["relevance"].dtype == np.float32
        assert arrays["scores"].shape == (3,)
        assert arrays["target"] == 1
    assert all(name in out for name in NAMES)
    assert "explains dog (1)" in out


def test_json_agrees_with_the_arrays(run: Run) -> None:
    code, out, _ = explain(run, "left.png", "--json", "-c", "epsilon", "-c", "alpha2_beta1")
    assert code == 0
    report = json.loads(out)
    assert report["model"] == "tiny_network:make"
    (image,) = report["images"]
    assert image["target"]["index"] == image["top"][0]["index"]
    assert sum(entry["probability"] for entry in image["top"]) == pytest.approx(1)
    for one in image["explanations"]:
        with np.load(one["files"]["relevance"]) as arrays:
            total = float(arrays["relevance"].sum(dtype=np.float64))
            score = float(arrays["scores"][arrays["target"]])
        assert one["relevance_sum"] == pytest.approx(total)
        assert one["conservation"] == pytest.approx(total / score)
        assert total + sum(one["absorbed"].values()) == pytest.approx(score, rel=1e-4)
        assert one["closure_error"] <= 1e-6
    assert report["sheets"] == ["out/sheet.png"]


@pytest.mark.parametrize("preset", PRESETS)
def test_every_preset_runs(run: Run, preset: str) -> None:
    assert explain(run, "left.png", "-c", preset)[0] == 0


def test_parameters_of_methods(run: Run) -> None:
    """Whole numbers, numbers of channels, words and none."""
    presets = ("integrated_gradients", "occlusion", "smoothgrad", "gradient")
    chosen = (word for name in presets for word in ("-c", name))
    values = ("steps=7", "quadrature=riemann_left", "baseline=0,0.5,-1", "window=5,6", "stride=4",
              "samples=3", "noise=0.3", "seed=9", "norm=none")  # fmt: skip
    options = [word for value in values for word in ("-p", value)]
    code, out, err = explain(run, "left.png", *chosen, *options, "--json")
    assert code == 0, err
    shapes, completeness = [], []
    for one in json.loads(out)["images"][0]["explanations"]:
        with np.load(one["files"]["relevance"]) as arrays:
            shapes.append(arrays["relevance"].shape)
        completeness.append(one["completeness"])
        assert one["conservation"] is None
    assert shapes == [(3, 16, 16), (1, 16, 16), (3, 16, 16), (3, 16, 16)]
    assert [value is None for value in completeness] == [False, True, True, True]


@pytest.mark.parametrize(
    ("preset", "value", "text"),
    [
        ("smoothgrad", "samples=2.5", "samples must be a whole number"),
        ("sensitivity", "norm=none", "norm must be"),
        ("occlusion", "window=20", "window must fit into the image"),
        ("sobel", "seed=1", "is not KEY=VALUE"),
    ],
)
def test_parameters_of_methods_that_are_refused(
    run: Run, preset: str, value: str, text: str
) -> None:
    code, _, err = explain(run, "left.png", "-c", preset, "-p", value)
    assert code in (2, 3)
    assert text in " ".join(err.split())


def test_the_completeness_error_is_shown(run: Run) -> None:
    _, out, _ = explain(run, "left.png", "-c", "integrated_gradients", "-c", "sobel")
    assert "completeness error" in out
    (line,) = (line for line in out.splitlines() if line.startswith("integrated_gradients"))
    assert abs(float(line.split()[-1].removesuffix("*"))) < 1
    (line,) = (line for line in out.splitlines() if line.startswith("sobel"))
    assert line.split()[-2:] == ["-", "-"]
    assert "completeness" not in explain(run, "left.png", "-c", "sobel", "--force")[1]


def test_a_gradient_has_no_ledger(run: Run) -> None:
    arguments = ("left.png", "-c", "gradient", "-c", "epsilon")
    code, out, _ = explain(run, *arguments, "--json")
    assert code == 0
    gradient, epsilon = json.loads(out)["images"][0]["explanations"]
    assert [gradient[key] for key in ("absorbed", "conservation", "closure_error")] == [None] * 3
    assert epsilon["absorbed"].keys() == {"bias", "stabilizer", "constants", "zero"}
    code, out, _ = explain(run, *arguments, "--force")
    (line,) = (line for line in out.splitlines() if line.startswith("gradient"))
    assert line.split()[-2:] == ["-", "-"]
    assert "which the ledger lists" in out
    assert "which the ledger lists" not in explain(run, *arguments[:3], "--force")[1]


def test_several_images_make_a_sheet(run: Run) -> None:
    Path("more").mkdir()
    Image.new("RGB", (40, 40), "red").save("more/left.png")
    code, out, _ = explain(run, "left.png", "right.png", "more/left.png", "-t", "2")
    assert code == 0
    assert "explains motor scooter (2)" in out
    assert {"left-2.epsilon_plus_flat.npz", "right.epsilon_plus_flat.npz", "sheet.png"} < written()
    assert len(written()) == 3 * 3 + 1


def test_many_images_make_several_sheets(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("relprop.cli_output.SHEET_ROWS", 2)
    code, out, _ = explain(run, "left.png", "right.png", "left.png")
    assert code == 0
    assert {"sheet.png", "sheet-2.png", "left-2.epsilon_plus_flat.npz"} < written()
    assert "side by side: out/sheet-2.png" in out
    with Image.open("out/sheet.png") as first, Image.open("out/sheet-2.png") as second:
        assert first.height > second.height


def test_names_are_taken_literally(run: Run) -> None:
    Path("left.png").rename("[red] :cat:.png")
    Path("names.txt").write_text("[bold]\n:dog:\nlast, [/x]")
    code, out, _ = explain(run, "[red] :cat:.png")
    assert code == 0
    for text in ("[red] :cat:.png", "[bold]", ":dog:", "last"):
        assert text in out
    code, _, err = explain(run, "[blue] :cat:.png")
    assert (code, err) == (3, "error: [blue] :cat:.png: there is no such file.\n")


def test_global_normalisation_shares_the_scale(run: Run) -> None:
    def darkest() -> list[int]:
        found = []
        for name in ("left", "right"):
            with Image.open(f"out/{name}.epsilon.heatmap.png") as picture:
                found.append(int(np.asarray(picture).max(axis=2).min()))
        return found

    images = ("left.png", "right.png", "-c", "epsilon", "-t", "0")
    assert explain(run, *images)[0] == 0
    assert darkest() == [128, 128]  # both reach the strongest colour
    assert explain(run, *images, "--normalize", "global", "--force")[0] == 0
    assert sorted(darkest())[0] == 128
    assert sorted(darkest())[1] > 128


def test_colours(run: Run) -> None:
    assert explain(run, "left.png", "--cmap", "black_body")[0] == 0
    code, _, err = explain(run, "left.png", "--cmap", "jet", "--force")
    assert code == 2
    assert "'jet' is not one of blue_white_red, black_body" in err


def test_a_bad_image_among_several_is_reported_and_the_rest_kept(run: Run) -> None:
    Path("broken.png").write_bytes(b"no image")
    code, out, err = explain(run, "left.png", "broken.png", "missing.png", "right.png")
    assert code == 1
    assert "error: broken.png: not an image" in err
    assert "error: missing.png: there is no such file" in err
    assert "left.png" in out
    assert {"left.epsilon_plus_flat.npz", "right.epsilon_plus_flat.npz"} < written()
    code, out, _ = explain(run, "left.png", "broken.png", "--json", "--force")
    assert code == 1
    assert [one["image"] for one in json.loads(out)["failed"]] == ["broken.png"]


def test_only_bad_images(run: Run) -> None:
    code, _, err = explain(run, "missing.png")
    assert code == 3
    assert "missing.png" in err


def test_results_are_not_overwritten_unasked(run: Run) -> None:
    assert explain(run, "left.png")[0] == 0
    before = Path("out/left.epsilon_plus_flat.npz").stat().st_mtime_ns
    code, _, err = explain(run, "left.png")
    assert code == 3
    assert (
        "results exist already: out/left.epsilon_plus_flat.heatmap.png and 2 more; --force" in err
    )
    assert Path("out/left.epsilon_plus_flat.npz").stat().st_mtime_ns == before
    assert explain(run, "left.png", "--force")[0] == 0
    assert explain(run, "right.png")[0] == 0
    Path("out/sheet.png").write_text("somebody's")
    code, _, err = explain(run, "left.png", "right.png", "-c", "epsilon")
    assert (code, "already: out/sheet.png;" in err) == (3, True)
    assert explain(run, "left.png", "-c", "epsilon")[0] == 0


def test_an_unwritable_folder(run: Run) -> None:
    Path("file").write_text("")
    code, _, err = run("explain", "tiny_network:make", "left.png", *OWN, "-o", "file")
    assert code == 3
    assert "cannot write to the folder file" in err


@pytest.mark.parametrize(
    ("target", "text"),
    [
        ("scotter", "has no class 'scotter'; close are motor scooter"),
        ("3", "3 is not an output; the model has 3, counted from 0"),
        ("-1", "-1 is not an output"),
    ],
)
def test_unknown_targets(run: Run, target: str, text: str) -> None:
    code, _, err = explain(run, "left.png", "--target", target)
    assert code == 2
    assert text in err


def test_names_of_classes_come_before_indices(run: Run) -> None:
    Path("names.txt").write_text("1\n2\n0\n")
    for target, index in (("1", 0), ("2", 1), ("0", 2)):
        code, out, _ = explain(run, "left.png", "--json", "--force", "-t", target)
        assert (code, json.loads(out)["images"][0]["target"]["index"]) == (0, index)
    Path("names.txt").write_text("1\n1\n2\n")
    code, out, _ = explain(run, "left.png", "--json", "--force", "-t", "0")
    assert (code, json.loads(out)["images"][0]["target"]["index"]) == (0, 0)


def test_presets_and_their_parameters(run: Run) -> None:
    code, _, err = explain(run, "left.png", "-c", "epsilon_plus_fla")
    assert code == 2
    assert "did you mean epsilon_plus_flat" in err
    code, _, err = explain(run, "left.png", "-c", "zzz")
    assert code == 2
    assert "no preset 'zzz'; there are epsilon_plus, epsilon_plus_flat" in err
    code, _, err = explain(run, "left.png", "-p", "gamma=1")
    assert code == 2
    assert "'gamma=1' is not KEY=VALUE with one of bias, epsilon" in err
    box = ("-p", "low=-1,-1,-1", "-p", "high=1.1", "-p", "gamma=0.5")
    assert explain(run, "left.png", "-c", "epsilon_gamma_box", *box)[0] == 0
    for value, reason in (("0", "must be finite and > 0"), ("a", "must be a number, not 'a'")):
        code, _, err = explain(run, "right.png", "-p", f"epsilon={value}")
        assert code == 2
        assert f"epsilon_plus_flat: epsilon {reason}" in err


def test_rules_for_nodes(run: Run) -> None:
    assert explain(run, "left.png", "-c", "epsilon", "-r", "-1=ZPlus()")[0] == 0
    overrides = ("-r", "Conv=Gamma(0.5)", "-r", "Dense=AlphaBeta(alpha=1, beta=0)")
    assert explain(run, "left.png", "-c", "epsilon", *overrides, "--force")[0] == 0
    for text, reason in (
        ("Conv=Gama(1)", "'Gama' is not one of the rules Epsilon, AlphaBeta"),
        ("Conv=Gamma(-1)", "gamma must be finite and >= 0"),
        ("Conv", "'Conv' is not NODE=RULE"),
        ("Conv=Gamma(", "'Conv=Gamma(': '(' was never closed"),
        ("Conv=print('hello')", "'print' is not one of the rules"),
    ):
        code, _, err = explain(run, "left.png", "-r", text)
        assert code == 2
        assert reason in err
    code, _, err = explain(run, "right.png", "-r", "Conv=Pass()")
    assert code == 3
    assert "Pass() does not apply" in err


@pytest.mark.parametrize(
    ("model", "text"),
    [
        ("nothing", "'nothing' is no known model"),
        ("missing.onnx", "'missing.onnx': there is no such file"),
        ("tiny_network:absent", "has no 'absent'"),
        ("absent_package:make", "no module 'absent_package'"),
        ("tiny_network:training", "train"),
        ("tiny_network:broken", "tiny_network:broken failed with KeyError: 'weights'"),
    ],
)
def test_models_that_cannot_be_used(run: Run, model: str, text: str) -> None:
    code, _, err = run("explain", model, "left.png", *OWN, "-o", "out")
    assert code == 3
    assert text in err
    assert not Path("out").exists()


def test_preprocessing_must_be_known(run: Run) -> None:
    code, _, err = run("explain", "tiny_network:make", "left.png")
    assert code == 3
    assert "tiny_network:make: give --size, --mean and --std" in err
    code, _, err = run("explain", "tiny_network:make", "left.png", "--size", "16")
    assert code == 2
    assert "needs --mean, --std as well" in err
    code, _, err = run("explain", "tiny_network:make", "left.png", *OWN, "--size", "1,2,3")
    assert code == 2
    assert "'1,2,3' is not 2 numbers" in err
    for option in (("--resize", "20"), ("--channel-order", "rgb"), ("--interpolation", "bicubic")):
        code, _, err = run("explain", "tiny_network:make", "left.png", *option)
        assert code == 2
        assert "needs --size, --mean, --std as well" in err
    for size in ("16.5", "nan", "inf"):
        code, _, err = run("explain", "tiny_network:make", "left.png", *OWN, "--size", size)
        assert code == 2
        assert f"'{size}' is not 2 whole numbers" in err


@pytest.mark.parametrize(
    ("name", "writer"),
    [("npz", (np, "savez_compressed")), ("heatmap.png", (Image.Image, "save"))],
)
def test_no_room_for_a_result(run: Run, monkeypatch: pytest.MonkeyPatch, name, writer) -> None:
    def full(*_: object, **__: object) -> None:
        path.write_bytes(b"part")
        raise OSError(errno.ENOSPC, "No space left on device")

    path = Path("out") / f"left.epsilon_plus_flat.{name}"
    monkeypatch.setattr(*writer, full)
    code, _, err = explain(run, "left.png")
    assert code == 3
    assert err == f"error: cannot write {path}: No space left on device.\n"
    assert not path.exists()


def test_want_of_memory_is_said_in_words(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> None:
        raise MemoryError("std::bad_alloc")

    monkeypatch.setattr(relprop.Explainer, "__call__", full)
    code, out, err = explain(run, "left.png", "--json")
    assert code == 3
    assert err == "error: there is not enough memory for what the network computes.\n"
    assert json.loads(out)["failed"][0]["error"] in err


def interrupted_at(count: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a signal come while so many images are explained already."""
    original, explained = relprop.Explainer.__call__, []

    def interrupting(self: relprop.Explainer, *arguments: object, **how: object) -> object:
        if len(explained) == count:
            signal.raise_signal(signal.SIGINT)
        explained.append(self)
        return original(self, *arguments, **how)

    monkeypatch.setattr(relprop.Explainer, "__call__", interrupting)


@pytest.mark.parametrize("normalize", ["image", "global"])
def test_what_was_done_before_an_interruption_is_complete(
    run: Run, monkeypatch: pytest.MonkeyPatch, normalize: str
) -> None:
    interrupted_at(1, monkeypatch)
    images = ("left.png", "right.png", "missing.png", "left.png")
    code, out, err = explain(run, *images, "--normalize", normalize, "--json")
    assert (code, len(json.loads(out)["images"])) == (130, 2)
    assert err == "interrupted after 2 of 4 images; the results of these are kept.\n"
    endings = ("heatmap.png", "overlay.png", "npz")
    files = {f"{name}.epsilon_plus_flat.{e}" for name in ("left", "right") for e in endings}
    assert written() == {*files, "sheet.png"}


def test_an_interruption_of_the_last_image_is_none(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    interrupted_at(1, monkeypatch)
    assert explain(run, "left.png", "right.png")[0] == 0


def test_a_command_says_that_it_was_interrupted(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupting(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("relprop.loading.load", interrupting)
    assert explain(run, "left.png") == (130, "", "interrupted.\n")
    assert run("inspect", "tiny_network:make") == (130, "", "interrupted.\n")


def test_half_a_picture_is_removed(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupting(picture: Image.Image, path: Path) -> None:
        path.write_bytes(b"half")
        raise KeyboardInterrupt

    monkeypatch.setattr(Image.Image, "save", interrupting)
    assert explain(run, "left.png")[0] == 130
    assert written() == {"left.epsilon_plus_flat.npz"}


@pytest.mark.parametrize("normalize", ["image", "global"])
def test_relevance_is_not_held_for_all_images(
    run: Run, monkeypatch: pytest.MonkeyPatch, normalize: str
) -> None:
    original, held = relprop.Explainer.__call__, []

    def counting(self: relprop.Explainer, *arguments: object, **how: object) -> relprop.Result:
        result = original(self, *arguments, **how)  # type: ignore[arg-type]
        held.append(weakref.ref(result.relevance))
        assert sum(one() is not None for one in held) <= 2
        return result

    monkeypatch.setattr(relprop.Explainer, "__call__", counting)
    code, _, err = explain(run, *["left.png"] * 5, "--normalize", normalize)
    assert (code, err) == (0, "")
    assert not any(one() is not None for one in held)


def test_names_that_are_no_utf_8(run: Run) -> None:
    name = os.fsdecode(b"caf\xe9.png")
    try:
        Path("left.png").rename(name)
    except OSError:
        pytest.skip("this file system takes UTF-8 alone")
    code, out, err = explain(run, name, "right.png")
    assert (code, err) == (0, "")
    assert "caf\\udce9.png" in out
    assert "sheet.png" in written()


def test_common_terminals_lose_nothing(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    code, out, _ = explain(run, "left.png", "-c", "epsilon_alpha2_beta1_flat")
    assert code == 0
    assert "…" not in out


def test_names_of_classes_are_text(run: Run) -> None:
    arguments = ("explain", "tiny_network:make", "left.png", *OWN)
    code, _, err = run(*arguments, "--classes", "left.png")
    assert code == 3
    assert "--classes left.png: not a text in UTF-8" in err
    Path("names.txt").write_text("cat\ndog\nhorse", encoding="utf-8-sig")
    code, out, _ = explain(run, "left.png", "-t", "0", "--json")
    assert (code, json.loads(out)["images"][0]["target"]["name"]) == (0, "cat")


def test_as_a_program(tmp_path: Path) -> None:
    def call(*arguments: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "relprop", *arguments]
        return subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)

    version = call("--version")
    assert (version.returncode, version.stdout[:8]) == (0, "relprop ")
    unknown = call("explain", "nothing", "photo.jpg")
    assert (unknown.returncode, unknown.stdout) == (3, "")
    assert unknown.stderr.startswith("error: source 'nothing' is no known model")
    assert len(unknown.stderr.splitlines()) == 1


IMPORT_COST = """
import time
import numpy
start = time.process_time()
import relprop
print(time.process_time() - start)
import sys
assert not {"torch", "typer", "rich", "PIL"} & set(sys.modules)
"""


def test_importing_relprop_costs_next_to_nothing() -> None:
    def seconds() -> float:
        command = [sys.executable, "-c", IMPORT_COST]
        return float(subprocess.run(command, capture_output=True, text=True, check=True).stdout)

    assert min(seconds() for _ in range(3)) <= 0.05
