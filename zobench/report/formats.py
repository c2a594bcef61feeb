"""Write a sheet of strings as plain text, Markdown, LaTeX or HTML, or its numbers as CSV.

Cells are written in ASCII, `91.2 +- 1.0 (3) [1]`; the best cells are bold and
those within noise underlined, in plain text `*` and `~`.
"""

import io
from collections.abc import Callable

import pandas as pd

from zobench.report.html import html
from zobench.report.latex import latex
from zobench.report.sheet import UNDER, Sheet


def text(sheet: Sheet) -> str:
    """A table for the terminal, without colours and never cut to a width."""
    from rich.box import ASCII2
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    grid = Table(box=ASCII2)
    for place, name in enumerate(sheet.header):
        grid.add_column(Text(name), justify="right" if place else "left", no_wrap=True)
    signed = {column for _, column in sheet.best | sheet.close}
    for n, line in enumerate(sheet.body):
        blanks = [" " if place in signed else "" for place in range(len(line))]
        signs = [sheet.sign(n, place, "*", "~") or blank for place, blank in enumerate(blanks)]
        grid.add_row(*(Text(cell + sign) for cell, sign in zip(line, signs, strict=True)))
    out = io.StringIO()
    Console(file=out, width=10_000, color_system=None, force_terminal=False).print(grid)
    lines = [line.rstrip() for line in out.getvalue().splitlines()]
    warning = [sheet.warning] if sheet.warning else []
    notes = [*sheet.legend("*", "~"), *sheet.notes]
    return "\n".join([*warning, sheet.title, *lines, *notes]) + "\n"


def markdown(sheet: Sheet) -> str:
    """A GitHub table with the notes as a list under it."""

    def row(cells: list[str]) -> str:
        label = cells[0]
        if label.startswith(UNDER):  # spaces in front would be dropped
            label = "&nbsp;&nbsp;" + label.strip()
        return "| " + " | ".join(cell.replace("|", r"\|") for cell in [label, *cells[1:]]) + " |"

    def marked(line: int, cells: list[str]) -> list[str]:
        signs = [sheet.sign(line, place, "**{}**", "<u>{}</u>") for place in range(len(cells))]
        return [(sign or "{}").format(cell) for sign, cell in zip(signs, cells, strict=True)]

    rule = ["---", *["---:"] * (len(sheet.header) - 1)]
    body = [row(marked(n, line)) for n, line in enumerate(sheet.body)]
    table = [row(sheet.header), row(rule), *body]
    notes = [f"- {note}" for note in [*sheet.legend("bold", "underlined"), *sheet.notes]]
    warning = [sheet.warning, ""] if sheet.warning else []
    return "\n".join([*warning, f"**{sheet.title}**", "", *table, "", *notes]) + "\n"


def csv(sheet: Sheet) -> str:
    """One line per cell, with full-precision numbers (an accuracy stays a fraction).

    The differences of the runs are a column, so that programs can read the file.
    """
    return pd.DataFrame(sheet.records).to_csv(index=False)


FORMATS: dict[str, Callable[[Sheet], str]] = {
    "text": text,
    "markdown": markdown,
    "csv": csv,
    "latex": latex,
    "html": html,
}
