"""A sheet as one HTML file: nothing to load, readable by screen readers and on narrow screens."""

from pathlib import Path
from typing import Any

from zobench.report.sheet import Sheet, unmarked


def html(sheet: Sheet) -> str:
    """A page of its own, in which every text of the sheet is escaped."""
    notes = [note.replace(" +- ", " ± ") for note in sheet.notes]
    made = {"title": sheet.title, "warning": sheet.warning, "header": sheet.header}
    return rendered("table.html.j2", **made, body=sheet.lines(_cell), notes=notes) + "\n"


def rendered(template: str, **values: Any) -> str:
    """A template below this folder with these values, which are escaped unless they are Markup."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    house = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return house.get_template(template).render(values)


def _cell(text: str) -> dict[str, str]:
    """The text, and the marks at its end without their brackets."""
    plain, marks = unmarked(text)
    return {"text": plain.replace(" +- ", " ± "), "marks": " ".join(marks)}
