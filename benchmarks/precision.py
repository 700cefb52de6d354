"""What rounding costs trained networks: each backend and precision beside float64, as a table.

    python benchmarks/precision.py [-n squeezenet] [--photos 5] [--device cuda] [-o out.json]

Real weights, real photos (shared/data beside the checkout), classes as float64 sees them. The truth
is the tests' reference in float64 and decides its own gates and winners, so that what flips counts
as an error; the CPU's row says how much of that any float32 run has. A network or a device that is
not there is left out, and the reason printed.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

import relprop
from relprop import Explainer, Graph

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
import reference
from real_data import DATA

Images = NDArray[np.float32]
Sample = tuple[Graph, Images, dict[str, tuple[float, ...]]]
"""A network, photos as it wants them, and the bounds of what any photo can be."""

PRESETS = ("epsilon_plus_flat", "epsilon_gamma_box", "epsilon_alpha2_beta1")
PRECISIONS = ("float32", "tf32", "bf16")
COLOURS = (104.0, 117.0, 123.0)
"""What Caffe's networks take away from blue, green and red."""


def stored(network: str, photos: int) -> NDArray[np.uint8]:
    """Photos as they are cut for a network, (photos, height, width, 3) with blue first."""
    with np.load(DATA / "models/reference_forward.npz") as arrays:
        return arrays[f"{network}_input_bgr"][:photos]


def caffe(network: str, files: str, photos: int) -> Sample:
    prototxt, weights = (
        DATA / f"models/{files}{end}" for end in ("_deploy.prototxt", ".caffemodel")
    )
    model = relprop.load((prototxt, weights))
    images = stored(network, photos).astype(np.float32) - np.float32(COLOURS)
    bounds = {"low": tuple(-c for c in COLOURS), "high": tuple(255 - c for c in COLOURS)}
    return model.graph, np.ascontiguousarray(images.transpose(0, 3, 1, 2)), bounds


def efficientnet_lite0(photos: int) -> Sample:
    graph = relprop.load("efficientnet-lite0").graph
    images = (stored("googlenet", photos)[..., ::-1].astype(np.float32) - 127) / 128
    bounds = {"low": (-127 / 128,), "high": (1.0,)}
    return graph, np.ascontiguousarray(images.transpose(0, 3, 1, 2)), bounds


NETWORKS: dict[str, Callable[[int], Sample]] = {
    "squeezenet": lambda photos: caffe("squeezenet", "squeezenet_v1.1", photos),
    "googlenet": lambda photos: caffe("googlenet", "bvlc_googlenet", photos),
    "efficientnet-lite0": efficientnet_lite0,
}


def measure(
    sample: Sample, preset: str, places: Iterable[tuple[str, str]]
) -> Iterator[dict[str, Any]]:
    """Each place's errors, a list of one figure for every photo."""
    from scipy.stats import spearmanr

    graph, images, bounds = sample
    bounds = bounds if "low" in relprop.composites.parameters(preset) else {}
    rules = Explainer(graph, preset, device="cpu", **bounds).rules
    truth = reference.forward(graph, images)[graph.output]
    target = truth.reshape(len(images), -1).argmax(axis=1)
    start = np.zeros_like(truth).reshape(len(images), -1)
    rows = np.arange(len(images))
    start[rows, target] = truth.reshape(start.shape)[rows, target]
    expected = reference.relevance(graph, rules, images, start)[0][graph.input.name]
    for device, precision in places:
        explainer = Explainer(graph, preset, device=device, precision=precision, **bounds)
        begun = time.perf_counter()
        result = explainer(images, target, initial="value")
        maps = zip(result.relevance.sum(axis=1), expected.sum(axis=1))
        yield {
            "preset": preset,
            "device": device,
            "precision": precision,
            "seconds": time.perf_counter() - begun,
            "scores": errors(result.scores, truth),
            "relevance": errors(result.relevance, expected),
            "closure": result.ledger.closure_error.tolist(),
            "rank": [float(spearmanr(a.ravel(), b.ravel()).statistic) for a, b in maps],
        }


def errors(found: NDArray[Any], truth: NDArray[np.float64]) -> list[float]:
    """Each sample's relative error."""
    return [
        float(np.linalg.norm(a.ravel() - b.ravel()) / np.linalg.norm(b))
        for a, b in zip(found, truth)
    ]


def row(network: str, found: dict[str, Any]) -> str:
    """Medians, and behind a stroke the worst photo."""
    cells = [network, found["preset"], found["device"], found["precision"]]
    for figure in ("scores", "relevance", "closure"):
        cells.append(f"{np.median(found[figure]):.1e} / {max(found[figure]):.1e}")
    cells.append(f"{np.median(found['rank']):.5f} / {min(found['rank']):.5f}")
    return f"| {' | '.join(cells)} |"


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    options.add_argument("-n", "--network", action="append", choices=NETWORKS)
    options.add_argument("-c", "--composite", action="append", choices=PRESETS)
    options.add_argument("--photos", type=int, default=5, help="of 25")
    options.add_argument("--device", default="cuda", help="beside the CPU")
    options.add_argument("--precision", action="append", choices=PRECISIONS)
    options.add_argument("-o", "--output", type=Path, help="a JSON file")
    given = options.parse_args()
    places = [("cpu", "float32")]
    if given.device != "cpu":
        places += [(given.device, precision) for precision in given.precision or PRECISIONS]
    print("| network | preset | device | precision | scores | relevance | closure | rank |")
    print("|---|---|---|---|---:|---:|---:|---:|")
    report: list[dict[str, Any]] = []
    for network in given.network or NETWORKS:
        try:
            sample = NETWORKS[network](given.photos)
        except (ImportError, OSError) as error:
            print(f"{network} is left out: {error}", file=sys.stderr)
            continue
        for preset in given.composite or PRESETS:
            for found in measure(sample, preset, places):
                print(row(network, found), flush=True)
                report.append({"network": network, "photos": given.photos, **found})
                if given.output:
                    given.output.write_text(json.dumps(report, indent=1) + "\n")
    if not report:
        sys.exit("nothing is measured.")


if __name__ == "__main__":
    main()
