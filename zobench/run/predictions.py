"""What a run answered to each test example: `predictions.csv.gz` of its folder."""

import csv
import gzip
import io
from collections.abc import Sequence
from pathlib import Path

from zobench.run.folder import write_atomically
from zobench.tasks.problem import Answer


def write_predictions(path: Path, answers: Sequence[Answer]) -> None:
    """Columns row (of the test split), answer, gold, score; the same bytes for the same answers."""
    write_atomically(path, gzip.compress(csv_of(answers).encode(), mtime=0))


def csv_of(answers: Sequence[Answer]) -> str:
    """The file's text."""
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow(["row", *Answer._fields])
    table.writerows([n, a.answer, a.gold, f"{a.score:.6g}"] for n, a in enumerate(answers))
    return text.getvalue()
