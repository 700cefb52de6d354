"""Tables of single images as Parquet files, written group by group from a run's records.

``curves.parquet`` has a row for each image, perturbation, order and method; ``metrics.parquet`` one
for each image and method.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from relprop.atomic import atomic_file
from relprop.evaluation.record_file import Record
from relprop.evaluation.settings import Settings
from relprop.evaluation.statistics import record_aopc
from relprop.optional import import_optional
from relprop.runs.classes import NO_LABEL

CURVES, METRICS = "curves.parquet", "metrics.parquet"

GROUP_BYTES = 2**24
"""About how much of curves is held and written at once."""


class ImageTables:
    """Writes what is known of every image.

    Parameters
    ----------
    classes
        The names of the classes that label and prediction number.
    outputs
        The names of the model's outputs.
    methods
        The names of the methods.
    settings
        The run's.

    Raises
    ------
    ImportError
        If pyarrow is not installed.
    """

    def __init__(
        self,
        classes: Sequence[str],
        outputs: Sequence[str],
        methods: Sequence[str],
        settings: Settings,
    ) -> None:
        self._arrow = import_optional("pyarrow", "evaluation", "a table of every image")
        self._parquet = import_optional("pyarrow.parquet", "evaluation", "a table of every image")
        self._classes = classes
        self._outputs = outputs
        self._methods = methods
        self._rows = settings.rows(tuple(methods))
        self._metrics = [metric.word for metric in settings.metrics]

    def write(self, folder: Path, records: Iterable[Record]) -> None:
        """Write both files; that of metrics where there are any.

        Raises
        ------
        OSError
            If a file cannot be written.
        """
        text, number = self._arrow.string(), self._arrow.float64()
        image = dict.fromkeys(("key", "label", "predicted", "target"), text)
        curves = {
            **image,
            **dict.fromkeys(("perturbation", "order", "method"), text),
            "score": number,
            "aopc": number,
            "curve": self._arrow.list_(number),
        }
        self._write(folder / CURVES, curves, map(self._curves, records))
        if self._metrics:
            metrics = {**image, "method": text, **dict.fromkeys(self._metrics, number)}
            self._write(folder / METRICS, metrics, map(self._figures, records))

    def _curves(self, record: Record) -> dict[str, list[Any]]:
        """The columns of an image's curves."""
        rows = self._rows
        return {
            **self._image(record, len(rows)),
            "perturbation": [row.perturbation for row in rows],
            "order": [row.order for row in rows],
            "method": [row.method for row in rows],
            "score": record.curves[:, 0].tolist(),
            "aopc": record_aopc(record).tolist(),
            "curve": list(record.curves),
        }

    def _figures(self, record: Record) -> dict[str, list[Any]]:
        """The columns of an image's metrics, None where one is not defined."""
        return {
            **self._image(record, len(self._methods)),
            "method": list(self._methods),
            **{
                word: [None if np.isnan(value) else float(value) for value in values]
                for word, values in zip(self._metrics, record.metrics.T)
            },
        }

    def _image(self, record: Record, rows: int) -> dict[str, list[Any]]:
        def name(number: int) -> str | None:
            return None if number == NO_LABEL else self._classes[number]

        return {
            "key": [record.key] * rows,
            "label": [name(record.label)] * rows,
            "predicted": [name(record.predicted)] * rows,
            "target": [self._outputs[record.target]] * rows,
        }

    def _write(
        self, path: Path, columns: dict[str, Any], images: Iterator[dict[str, list[Any]]]
    ) -> None:
        schema = self._arrow.schema(list(columns.items()))
        texts = [name for name, kind in columns.items() if kind == self._arrow.string()]
        first = next(images)
        size = 8 * sum(np.size(value) for column in first.values() for value in column)
        together = max(1, GROUP_BYTES // size)
        group = [first, *islice(images, together - 1)]
        with (
            atomic_file(path) as part,
            part.open("wb") as file,  # of which pyarrow need not read the name
            self._parquet.ParquetWriter(
                file, schema, compression="zstd", use_dictionary=texts
            ) as writer,
        ):
            while group:
                joined = {name: [v for one in group for v in one[name]] for name in columns}
                writer.write_table(self._arrow.table(joined, schema))
                group = list(islice(images, together))
