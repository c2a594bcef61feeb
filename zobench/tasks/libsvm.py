"""Files in LIBSVM's text format: `label index:value ...` a line, indices from 1 up."""

import math
from pathlib import Path

import numpy as np
import numpy.typing as npt

from zobench.errors import UserError
from zobench.tasks.raw.text import lines_of, text_of
from zobench.tasks.shown import brief, quoted


def read(path: Path, features: int) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """(rows, features) dense values and (rows,) labels, +1 or -1.

    features: width, given because a file need not mention the last feature. Raises UserError
    naming file and line for a label or an entry that does not fit.
    """
    lines = [(n, line) for n, line in enumerate(lines_of(text_of(path)), 1) if line.strip()]
    if not lines:
        raise UserError(f"{path}: the file holds no rows")
    values, labels = np.zeros((len(lines), features)), np.zeros(len(lines))
    for row, (number, line) in enumerate(lines):
        label, *entries = line.split()
        if label not in ("+1", "1", "-1"):
            raise UserError(f"{path}:{number}: label {quoted(label)} is not +1 or -1")
        labels[row] = int(label)
        for entry in entries:
            index, _, value = entry.partition(":")
            try:
                place, number_value = int(index), float(value)
                if not math.isfinite(number_value):
                    raise ValueError
            except ValueError:
                raise UserError(f"{path}:{number}: {quoted(entry)} is not index:value") from None
            if not 1 <= place <= features:
                raise UserError(
                    f"{path}:{number}: feature {brief(place)} is not in 1 to {features}"
                )
            values[row, place - 1] = number_value
    return values, labels
