"""Perturbing: the forward passes of many curves, in full batches and constant memory."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias, cast, get_args

import numpy as np
from numpy.typing import NDArray

from relprop.arrays import to_numpy
from relprop.evaluation.colours import Colours
from relprop.evaluation.followed import Followed, Network, followed_in
from relprop.evaluation.ordering import By, Order, order_of
from relprop.evaluation.perturbations import Float32, Perturbation, Replacement
from relprop.evaluation.segments import Labels, Pixels, Regions
from relprop.evaluation.streams import Stream
from relprop.explain import Explainer

Score: TypeAlias = Literal["logit", "probability"]
"""What of the output is followed: the class's own value, or its share after a softmax."""

Predict: TypeAlias = Explainer | Callable[[Float32], Any]
"""What gives scores (samples, classes) for images (samples, C, H, W)."""

SCORES: tuple[Score, ...] = get_args(Score)


@dataclass(frozen=True, eq=False)
class CurveRequest:
    """A curve that is wanted of an image.

    Parameters
    ----------
    labels
        Each pixel's region, (H, W); see :mod:`relprop.evaluation.segments`.
    perturbation
        What is put in the regions' place.
    order
        In which order regions are taken.
    relevance
        What the order is made of, (C, H, W) or (H, W); a random one needs none.
    by
        What of its pixels' relevance ranks a region.
    """

    labels: Labels
    perturbation: Perturbation
    order: Order = "morf"
    relevance: Any = None
    by: By = "sum"

    @property
    def repeats_differ(self) -> bool:
        """Whether anything is random: if not, one repeat tells all."""
        return self.order == "random" or not self.perturbation.deterministic


@dataclass(frozen=True, eq=False)
class CurveTask:
    """An image and the curves that are wanted of it.

    Parameters
    ----------
    key
        The image's name, to which its random numbers belong.
    image
        The network's input x(0), (C, H, W), finite.
    wanted
        The curves.
    target
        The class that is followed; by default the one with the highest score for x(0).
    """

    key: str
    image: Any
    wanted: Sequence[CurveRequest]
    target: int | None = None


@dataclass(frozen=True, eq=False)
class TaskCurves:
    """The curves of one image: the score of ``target`` after 0, 1, 2, ... regions.

    ``scores`` holds a float64 array (repeats, steps + 1) for each request, in their order; where
    nothing is random there is one repeat. ``regions`` is the number of regions of each.
    """

    key: str
    target: int
    scores: tuple[NDArray[np.float64], ...]
    regions: tuple[int, ...]


class Perturbing:
    """Takes images apart, region by region, and follows their scores.

    Batches of perturbed images are filled across steps, repeats, curves and images, so that the
    network nearly always sees full ones; no more than one batch of images is held. Random numbers
    depend on the seed, the image's key, the repeat and the perturbation, and a sample's scores on
    nothing but the sample: neither the batch nor the order of tasks nor which other curves are
    wanted shows in a curve.

    Where all classes' scores are much of an Explainer's work, the target's logit is computed alone
    (:mod:`relprop.evaluation.followed`).

    Parameters
    ----------
    predict
        An Explainer, or a function that gives scores (samples, classes) for float32 images
        (samples, C, H, W). It must not keep the array, which is used again.
    steps
        How many regions are taken, L. Where an image has fewer, the curve stays at its last value.
    repeats
        How often random draws are repeated.
    score
        ``"logit"`` for the output as it is, ``"probability"`` for its softmax.
    seed
        Of all random draws.
    batch
        How many images go through the network at a time.
    colours
        The bounds of the network's input; by default those of the Explainer's model, where its
        preprocessing is known.
    passed
        Is told before each batch of forward passes how many they are; it may raise, to stop.

    Raises
    ------
    TypeError, ValueError
        If one of them is of another type or out of range.
    """

    def __init__(
        self,
        predict: Predict,
        *,
        steps: int = 100,
        repeats: int = 10,
        score: Score = "logit",
        seed: int = 0,
        batch: int = 32,
        colours: Colours | None = None,
        passed: Callable[[int], None] | None = None,
    ) -> None:
        for name, value in (("steps", steps), ("repeats", repeats), ("batch", batch)):
            if value < 1:
                raise ValueError(f"{name} must be at least 1, not {value}.")
        if score not in SCORES:
            raise ValueError(f"score must be one of {', '.join(SCORES)}, not {score!r}.")
        if not isinstance(predict, Explainer) and not callable(predict):
            raise TypeError(
                f"predict must be an Explainer or a function, not {type(predict).__name__}."
            )
        self.steps = steps
        self.repeats = repeats
        self.score: Score = score
        self.seed = seed
        self.batch = batch
        self.colours = colours
        self._passed = passed
        self._predict: Callable[[Float32], Any]
        self._followed: Followed | None = None
        if isinstance(predict, Explainer):
            self._predict = predict.forward
            if score == "logit":
                self._followed = followed_in(predict)
            if colours is None and predict.model.preprocessing is not None:
                self.colours = Colours.of(predict.model.preprocessing)
        else:
            self._predict = predict

    def curves(
        self,
        key: str,
        image: Any,
        wanted: Sequence[CurveRequest],
        target: int | None = None,
    ) -> TaskCurves:
        """Return the curves of one image; the arguments are those of :class:`CurveTask`."""
        return next(self(iter([CurveTask(key, image, wanted, target)])))

    def __call__(self, tasks: Iterable[CurveTask]) -> Iterator[TaskCurves]:
        """Yield the curves of each task, in the order of tasks, as soon as they are complete.

        Tasks are read as batches are filled, at most a batch ahead.

        Raises
        ------
        TypeError, ValueError
            If an image, a request or a target is not as it must be, or a score is not finite.
        """
        running: deque[_Running] = deque()
        rows = np.empty((0, 0, 0, 0), np.float32)
        places: list[_Place] = []
        for task in tasks:
            now = _Running(task, self)
            if self._followed is not None:
                now.follow(self._followed, self._predicted)
            other_network = places and places[-1].running.network is not now.network
            if other_network or now.image.shape != rows.shape[1:]:
                self._read(rows[: len(places)], places)
            if now.image.shape != rows.shape[1:]:
                rows = np.empty((self.batch, *now.image.shape), np.float32)
            running.append(now)
            for place, change in now.changes():
                row = rows[len(places)]
                # the one before is where a batch that is full has left it
                np.copyto(row, now.image if place.step <= 1 else rows[len(places) - 1])
                if change is not None:
                    replacement, region, pixels = change
                    row.reshape(len(row), -1)[:, pixels] = replacement(row, region, pixels)
                places.append(place)
                if len(places) == self.batch:
                    self._read(rows, places)
                    while running and running[0].complete:
                        yield running.popleft().result()
        self._read(rows[: len(places)], places)
        while running:
            yield running.popleft().result()

    def _read(self, rows: Float32, places: list[_Place]) -> None:
        """Compute the scores of a batch and enter them where they belong."""
        if not places:
            return
        if self._passed is not None:
            self._passed(len(rows))
        network = places[0].running.network or self._predict
        scores = to_numpy(network(rows), "scores")
        if scores.ndim != 2 or len(scores) != len(rows):
            raise ValueError(
                f"scores must have shape ({len(rows)}, classes) for {len(rows)} images, not "
                f"{scores.shape}: only a class can be followed."
            )
        scores = scores.astype(np.float64)
        best = scores.argmax(axis=1)
        if self.score == "probability":
            np.exp(scores - scores.max(axis=1, keepdims=True), out=scores)
            scores /= scores.sum(axis=1, keepdims=True)
        for place, row, highest in zip(places, scores, best):
            place.running.enter(place, row, int(highest))
        places.clear()

    def _predicted(self, image: Float32) -> int:
        """The class with the highest score."""
        return int(np.argmax(self._predict(image[None])[0]))


class _Place:
    """Where a score belongs; ``curve`` is -1 for x(0)."""

    __slots__ = ("curve", "repeat", "running", "step")

    def __init__(self, running: _Running, curve: int, repeat: int, step: int) -> None:
        self.running = running
        self.curve = curve
        self.repeat = repeat
        self.step = step


_Change = tuple[Replacement, int, Pixels]


class _Running:
    """A task on its way."""

    def __init__(self, task: CurveTask, settings: Perturbing) -> None:
        self._task = task
        self._settings = settings
        self.image = _read_image(task.image, task.key)
        self._target = task.target
        self._column = task.target
        self.network: Network | None = None
        self._regions: dict[int, Regions] = {}
        for request in task.wanted:
            if id(request.labels) not in self._regions:
                regions = Regions(request.labels)
                if regions.labels.shape != self.image.shape[1:]:
                    raise ValueError(
                        f"{task.key}: labels must have the image's height and width, "
                        f"{self.image.shape[1:]}, not {regions.labels.shape}."
                    )
                self._regions[id(request.labels)] = regions
        self._counts = tuple(len(self._regions[id(of.labels)]) for of in task.wanted)
        self._scores = [
            np.empty((settings.repeats if of.repeats_differ else 1, settings.steps + 1))
            for of in task.wanted
        ]
        taken = (min(settings.steps, count) for count in self._counts)
        self._missing = 1 + sum(len(scores) * steps for scores, steps in zip(self._scores, taken))

    def follow(self, followed: Followed, predicted: Callable[[Float32], int]) -> None:
        """Compute the score of the target alone from now on."""
        if self._target is None:
            self._target = predicted(self.image)
        if 0 <= self._target < followed.classes:  # else the first score tells that it is none
            self.network, self._column = followed(self._target), 0

    def changes(self) -> Iterator[tuple[_Place, _Change | None]]:
        """Yield, for every image that the network must see, what changes in the one before.

        Step 1 changes x(0), and step 0 is x(0) itself.
        """
        yield _Place(self, -1, 0, 0), None
        task, steps = self._task, self._settings.steps
        stream = Stream(self._settings.seed, (task.key,))
        fixed_orders: dict[int, NDArray[np.intp]] = {}
        fixed: dict[Perturbation, Replacement] = {}
        for repeat in range(max(map(len, self._scores), default=0)):
            drawn: dict[Perturbation, Replacement] = {}
            of_repeat = stream.child(repeat)
            for curve, request in enumerate(task.wanted):
                if repeat >= len(self._scores[curve]):
                    continue
                regions = self._regions[id(request.labels)]
                if curve not in fixed_orders:
                    order = order_of(
                        request.order,
                        regions,
                        request.relevance,
                        by=request.by,
                        stream=of_repeat.child("order"),
                    )
                    if request.order != "random":
                        fixed_orders[curve] = order[:steps]
                else:
                    order = fixed_orders[curve]
                perturbation = request.perturbation
                known = fixed if perturbation.deterministic else drawn
                if perturbation not in known:
                    known[perturbation] = perturbation.prepare(
                        self.image, self._settings.colours, of_repeat.child(perturbation.word)
                    )
                replacement = known[perturbation]
                for step, region in enumerate(order[:steps].tolist(), 1):
                    pixels = regions.pixels(region)
                    yield _Place(self, curve, repeat, step), (replacement, region, pixels)

    def enter(self, place: _Place, scores: NDArray[np.float64], highest: int) -> None:
        """Keep the score of the target, which is the highest one's class where none is given."""
        if place.curve < 0:
            if self._target is None:
                self._target = self._column = highest
            if not 0 <= cast(int, self._column) < len(scores):
                raise ValueError(
                    f"{self._task.key}: target must lie in [0, {len(scores)}), not {self._target}."
                )
        score = float(scores[cast(int, self._column)])
        if not np.isfinite(score):
            raise ValueError(
                f"{self._task.key}: scores must be finite, not {score} after {place.step} regions."
            )
        if place.curve < 0:
            for curve in self._scores:
                curve[:, 0] = score
        else:
            self._scores[place.curve][place.repeat, place.step] = score
        self._missing -= 1

    @property
    def complete(self) -> bool:
        """Whether all scores are known."""
        return self._missing == 0

    def result(self) -> TaskCurves:
        """The curves; those of fewer regions than steps stay at their last value."""
        for curve, count in zip(self._scores, self._counts):
            curve[:, count + 1 :] = curve[:, count : count + 1]
        target = cast(int, self._target)
        return TaskCurves(self._task.key, target, tuple(self._scores), self._counts)


def _read_image(image: Any, key: str) -> Float32:
    array = to_numpy(image, "image")
    if array.dtype.kind != "f":
        raise TypeError(
            f"{key}: image must be floating point, the network's input, not {array.dtype}."
        )
    if array.ndim != 3 or not array.size:
        raise ValueError(
            f"{key}: image must have shape (channels, height, width), not {array.shape}."
        )
    with np.errstate(over="ignore"):
        read = np.ascontiguousarray(array, np.float32)
    if not np.isfinite(read).all():
        raise ValueError(f"{key}: image must be finite in float32.")
    return read
