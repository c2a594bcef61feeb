"""JSON files of one document: a list of rows, rows by name, or a published nested form."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from zobench.errors import UserError
from zobench.tasks.example import Row
from zobench.tasks.raw import drop_json, squad_json


def json_rows(path: Path, text: str) -> Iterator[Row]:
    """Rows of a list of objects, of an object of objects, of SQuAD's or of DROP's JSON."""
    try:
        document = json.loads(text)
    except json.JSONDecodeError as error:
        raise UserError(f"{path}:{error.lineno}: not valid JSON ({error.msg})") from None
    except (RecursionError, ValueError) as error:  # nested too deep; a number of 5,000 digits
        raise UserError(f"{path}: not readable JSON ({str(error)[:80]})") from None
    for form in (squad_json, drop_json):
        if form.recognised(document):
            yield from form.rows(document, str(path))
            return
    for name, row in _entries(document, path):
        if not isinstance(row, dict):
            raise UserError(f"{path}: entry {name} is not a JSON object")
        yield Row(row, f"{path}: entry {name}")


def _entries(document: Any, path: Path) -> Iterator[tuple[object, Any]]:
    """Entries with the number (from 1) or the name by which messages call them."""
    if isinstance(document, list):
        yield from enumerate(document, start=1)
    elif isinstance(document, dict) and any(isinstance(v, dict) for v in document.values()):
        yield from document.items()
    else:
        raise UserError(f"{path}: expected a JSON list of objects, found {type(document).__name__}")
