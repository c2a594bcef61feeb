"""A sheet as one HTML file: nothing to load, readable by screen readers and on narrow screens."""

import base64
from pathlib import Path
from typing import Any

from zobench.report.sheet import Sheet, unmarked


def html(sheet: Sheet) -> str:
    """A page of its own, in which every text of the sheet is escaped."""
    texts = [*sheet.legend("bold", "underlined"), *sheet.notes]
    notes = [note.replace(" +- ", " ± ") for note in texts]
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


def address(figure: Path) -> str:
    """An address that holds the SVG file itself."""
    return f"data:image/svg+xml;base64,{base64.b64encode(figure.read_bytes()).decode()}"


def _cell(text: str) -> dict[str, str]:
    """The text, and the marks at its end without their brackets."""
    plain, marks = unmarked(text)
    return {"text": plain.replace(" +- ", " ± "), "marks": " ".join(marks)}
