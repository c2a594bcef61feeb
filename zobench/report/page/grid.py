"""The suite's table for the report page: a sheet whose cells are split into parts."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from zobench.errors import UserError
from zobench.report.brief import LISTED
from zobench.report.formats import csv
from zobench.report.runs import Suite
from zobench.report.sheet import Sheet, unmarked
from zobench.report.table import sheet

_PARTS = re.compile(r"(?P<mean>\S+)(?: \+- (?P<spread>\S+))?(?: \((?P<runs>[^()]*)\))?")


@dataclass
class PageTable:
    """A header and lines of cells; `error` is the reason if there are none.

    csv: the numbers of the table as a file.
    """

    title: str = ""
    warning: str = ""
    header: list[str] = field(default_factory=list)
    body: list[dict[str, Any]] = field(default_factory=list)
    notes: list[dict[str, str]] = field(default_factory=list)
    csv: str = ""
    error: str = ""


def grid(suite: Suite, *, details: bool = False) -> PageTable:
    """The table of the suite under its own `table:` settings."""
    try:
        return taken_apart(sheet(suite, details=details))
    except UserError as error:
        return PageTable(error=str(error))


def taken_apart(made: Sheet) -> PageTable:
    """Each line as label and cells, each cell as its parts, each note with the mark it explains."""
    notes: list[dict[str, str]] = []
    for text in [*made.legend("bold", "underlined"), *made.notes]:
        match = re.fullmatch(r"\[(\w+)\] (.*)", text, re.DOTALL)
        mark, text = (match[1], match[2]) if match else ("", text)
        # The first of the notes under a mark is what the mark links to.
        target = mark if all(note["mark"] != mark for note in notes) else ""
        text = text.replace("+-", "±").replace(LISTED, "listed below")
        notes.append({"mark": mark, "target": target, "text": text})
    targets = {note["target"] for note in notes}
    body = made.lines(partial(_cell, targets))
    return PageTable(made.title, made.warning, made.header, body, notes, csv(made))


def _cell(targets: set[str], text: str) -> Mapping[str, Any]:
    """`91.2 +- 1.0 (3; 1 failed) [2]` in its parts; the text alone if it has another form."""
    plain, names = unmarked(text)
    marks = [{"name": name, "linked": name in targets} for name in names]
    match = _PARTS.fullmatch(plain)
    parts = match.groupdict("") if match else {"mean": plain, "spread": "", "runs": ""}
    return {"marks": marks, **parts}
