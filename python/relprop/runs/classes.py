"""Which of the model's classes a class of a dataset stands for."""

from __future__ import annotations

import csv
import io
import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from relprop.model import Model

NO_LABEL = -1
"""The number of a class that is not known."""

Target = Literal["argmax", "label"]
TARGETS = get_args(Target)
"""What a run explains of each item: the class that the model says, or the true one."""

ClassMap = Mapping[str, tuple[int, ...]]
"""For each class of the dataset the model's: one, several that it is made of, or none."""


class UnknownClassError(ValueError):
    """A class of the dataset is none of the model's."""


class Classes:
    """The classes that a run tells apart, numbered from 0, and what they are in the model.

    Without a map they are the model's; with one they are the map's, in its order.

    Parameters
    ----------
    model
        Whose classes they are.
    outputs
        How many outputs the model has.
    known
        The map; without one, a class of the dataset is the model's of the same name or index.
    of_dataset
        The dataset's classes. They name the outputs of a model that has no names and as many.
    """

    def __init__(
        self,
        model: Model,
        outputs: int,
        known: ClassMap | None = None,
        of_dataset: Sequence[str] = (),
    ) -> None:
        if len(model.classes) != outputs:  # they are another output's
            model = replace(model, classes=())
        if known is None and not model.classes and len(of_dataset) == outputs:
            model = replace(model, classes=tuple(of_dataset))
        self._model = model
        self._of_dataset = tuple(of_dataset)
        self._outputs = outputs
        self._known = known
        if known is None:
            self.names = _different([model.class_name(index) for index in range(outputs)])
        else:
            self.names = tuple(known)
        self._numbers: dict[str | int, int] = {}

    def truth(self, label: str | int | None) -> int:
        """Return the number of a class of the dataset; -1 where the class is not known.

        Raises
        ------
        UnknownClassError
            If it is none of these classes.
        """
        if label is None:
            return NO_LABEL
        if label not in self._numbers:
            self._numbers[label] = self._number(label)
        return self._numbers[label]

    def outputs(self, number: int) -> tuple[int, ...]:
        """Return the model's classes of which a class is made."""
        return (number,) if self._known is None else self._known[self.names[number]]

    def require_outputs(self, number: int) -> tuple[int, ...]:
        """Return the model's classes of which a class is made, where there are any.

        Raises
        ------
        ValueError
            If the class is not known, or none of the model's.
        """
        if number == NO_LABEL:
            raise ValueError("it has no label to explain.")
        if not self.outputs(number):
            raise ValueError(f"{self.names[number]!r} is none of the model's classes.")
        return self.outputs(number)

    def output(self, number: int, scores: NDArray[Any]) -> int:
        """Return the model's class for one of these, of several that with the highest score."""
        outputs = self.outputs(number)
        return outputs[int(np.argmax(scores[list(outputs)]))]

    def predicted(self, output: int, truth: int) -> int:
        """Return the class to which one of the model's belongs; -1 where there is none.

        Of several it is ``truth``, or else the first.
        """
        if self._known is None:
            return output
        numbers = [i for i, outputs in enumerate(self._known.values()) if output in outputs]
        return truth if truth in numbers else next(iter(numbers), NO_LABEL)

    def _number(self, label: str | int) -> int:
        if isinstance(label, int) and self._of_dataset:
            if not 0 <= label < len(self._of_dataset):
                raise UnknownClassError(f"the dataset has no class {label}.")
            label = self._of_dataset[label]
        if self._known is not None:
            if str(label) not in self._known:
                raise UnknownClassError(f"the map of classes has no {label!r}.")
            return self.names.index(str(label))
        try:
            return _index(label, self._model, self._outputs)
        except ValueError as error:
            advice = "Name the model's classes (--classes), or map the dataset's (--classes-map)."
            raise UnknownClassError(f"{error} {advice}") from None


def _different(names: Sequence[str]) -> tuple[str, ...]:
    """Names, the index behind those that are there twice (ImageNet has two cranes)."""
    count = Counter(names)
    return tuple(f"{name} ({i})" if count[name] > 1 else name for i, name in enumerate(names))


def read_class_map(path: Path, model: Model, outputs: int) -> dict[str, tuple[int, ...]]:
    """Read a map of classes from a file.

    A JSON file holds one object with the dataset's classes as keys, and as values the model's: a
    name, an index or a list of these, which may be empty. Of any other file each line is a class of
    the dataset and then the model's, separated by commas (CSV).

    Raises
    ------
    ValueError
        If the file is not readable as such, or the model has no such class.
    OSError
        If it cannot be read.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
        entries = _from_json(text) if path.suffix == ".json" else _from_csv(text)
        found = {}
        for name, classes in entries:
            if name in found:
                raise ValueError(f"{name!r} is there twice.")
            found[name] = tuple(dict.fromkeys(_index(one, model, outputs) for one in classes))
    except (ValueError, csv.Error) as error:
        raise ValueError(f"{path}: {error}") from None
    if not found:
        raise ValueError(f"{path}: holds no classes.")
    return found


def _from_json(text: str) -> Iterable[tuple[str, list[Any]]]:
    content = json.loads(text, object_pairs_hook=tuple)  # in a dict the last of equal keys wins
    if not isinstance(content, tuple):
        raise ValueError("must hold a JSON object, the dataset's classes as its keys.")
    for name, classes in content:
        yield name, classes if isinstance(classes, list) else [classes]


def _from_csv(text: str) -> Iterable[tuple[str, list[Any]]]:
    for row in csv.reader(io.StringIO(text), skipinitialspace=True):
        if row:
            yield row[0].strip(), [part.strip() for part in row[1:] if part.strip()]


def _index(name: Any, model: Model, outputs: int) -> int:
    """The output that a name or an index means; names come first, some are numbers."""
    if isinstance(name, bool) or not isinstance(name, (str, int)):
        raise ValueError(f"{name!r} is neither a class name nor an index.")
    if isinstance(name, str):
        try:
            return model.class_index(name)
        except ValueError:
            if not (name.isascii() and name.isdecimal()):
                raise
    if not 0 <= int(name) < outputs:
        raise ValueError(f"{name} is not an output; the model has {outputs}, counted from 0.")
    return int(name)
