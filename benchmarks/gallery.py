"""The README's picture of all methods: two free photos as one network sees them.

    python benchmarks/gallery.py docs/images/methods.jpg

EfficientNet-Lite0 with its real weights; the photos are scikit-image's (CC0).
"""

from __future__ import annotations

import argparse
import io
from importlib.util import find_spec
from pathlib import Path

from matplotlib.figure import Figure
from PIL import Image

import relprop
from relprop import Explainer

PHOTOS = {"chelsea.png": "Egyptian cat", "coffee.png": "espresso"}
METHODS = (
    "epsilon_plus_flat",
    "epsilon_gamma_box",
    "alpha2_beta1",
    "gradient_x_input",
    "integrated_gradients",
    "smoothgrad",
    "sensitivity",
    "deconvnet",
    "guided_backprop",
    "occlusion",
    "sobel",
)
COLUMNS = 6


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    options.add_argument("picture", type=Path)
    target = options.parse_args().picture
    found = find_spec("skimage")
    assert found is not None
    assert found.submodule_search_locations is not None
    folder = Path(found.submodule_search_locations[0]) / "data"
    model = relprop.load("efficientnet-lite0")
    assert model.preprocessing is not None
    rows = -(-(1 + len(METHODS)) // COLUMNS)
    figure = Figure(figsize=(2 * COLUMNS, 2.25 * rows * len(PHOTOS)), layout="constrained")
    axes = iter(figure.subplots(rows * len(PHOTOS), COLUMNS).flat)
    for photo, target_class in PHOTOS.items():
        image = relprop.read_image(folder / photo)
        pictures = {target_class: Image.fromarray(model.preprocessing.view(image))}
        for method in METHODS:
            result = Explainer(model, method)(model.preprocessing(image), target_class)
            pictures[method] = relprop.heatmap(result.relevance)
        for name, picture in pictures.items():
            panel = next(axes)
            panel.imshow(picture)
            panel.set_title(name, fontsize=10)
            panel.set_axis_off()
    drawn = io.BytesIO()
    figure.savefig(drawn, format="png", dpi=100)
    Image.open(drawn).convert("RGB").save(target, quality=88)


if __name__ == "__main__":
    main()
