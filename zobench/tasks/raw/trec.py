"""TREC's question types (`.label`): `COARSE:fine question` on each line, in latin-1."""

import re
from collections.abc import Iterator
from pathlib import Path

from zobench.errors import UserError
from zobench.tasks.example import Row
from zobench.tasks.raw.text import lines_of

_LINE = re.compile(r"([^\s:]+):(\S+) (.+)")


def trec_rows(path: Path, text: str) -> Iterator[Row]:
    """Rows with the columns label (coarse), fine and text."""
    for number, line in enumerate(lines_of(text), start=1):
        if not line.strip():
            continue
        match = _LINE.fullmatch(line)
        if match is None:
            raise UserError(f"{path}:{number}: expected `COARSE:fine question`")
        label, fine, question = match.groups()
        yield Row({"label": label, "fine": fine, "text": question}, f"{path}:{number}")
