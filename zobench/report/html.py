"""A sheet as one HTML file: nothing to load, readable by screen readers and on narrow screens."""

from zobench.report.sheet import UNDER, Sheet, unmarked

_PAGE = """\
<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{{ title }}</title>
<style>
:root { color-scheme: light dark; --line: color-mix(in srgb, currentColor 30%, transparent); }
body { font: 1rem/1.5 system-ui, sans-serif; margin: 2rem auto; padding: 0 1rem; max-width: 80rem; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; border-block: 2px solid; font-variant-numeric: tabular-nums; }
caption { text-align: start; font-weight: 600; padding-block: .5rem; }
th, td { padding: .3rem .75rem; text-align: end; white-space: nowrap; font-weight: 400; }
th:first-child { text-align: start; }
thead th { font-weight: 600; border-bottom: 1px solid; }
tbody tr:not(.under) > * { border-top: 1px solid var(--line); }
.under > * { opacity: .8; font-size: .9em; padding-block: .1rem; }
.under th { padding-inline-start: 2rem; }
.warning { border-inline-start: .25rem solid #b45309; padding-inline-start: .75rem; }
.notes { font-size: .9rem; padding-inline-start: 1.2rem; max-width: 70ch; }
.notes li { overflow-wrap: anywhere; }
</style>
</head>
<body>
<main>
{% if warning %}<p class="warning" role="note">{{ warning }}</p>
{% endif %}<div class="scroll" role="region" aria-label="{{ title }}" tabindex="0">
<table>
<caption>{{ title }}</caption>
<thead>
<tr>{% for name in header %}<th scope="col">{{ name }}</th>{% endfor %}</tr>
</thead>
<tbody>
{% for line in body -%}
<tr{% if line.under %} class="under"{% endif %}><th scope="row">{{ line.label }}</th>
{%- for cell in line.cells %}<td>{{ cell.text }}
{%- if cell.marks %}<sup>{{ cell.marks }}</sup>{% endif %}</td>{% endfor %}</tr>
{% endfor -%}
</tbody>
</table>
</div>
<ul class="notes">
{% for note in notes %}<li>{{ note }}</li>
{% endfor %}</ul>
</main>
</body>
</html>
"""


def html(sheet: Sheet) -> str:
    """A page of its own, in which every text of the sheet is escaped."""
    from jinja2 import Environment, StrictUndefined

    template = Environment(autoescape=True, undefined=StrictUndefined).from_string(_PAGE)
    body = [
        {
            "under": line[0].startswith(UNDER),
            "label": line[0].strip(),
            "cells": [_cell(text) for text in line[1:]],
        }
        for line in sheet.body
    ]
    notes = [note.replace(" +- ", " ± ") for note in sheet.notes]
    page = template.render(
        title=sheet.title, warning=sheet.warning, header=sheet.header, body=body, notes=notes
    )
    return page + "\n"


def _cell(text: str) -> dict[str, str]:
    """The text, and the marks at its end without their brackets."""
    plain, marks = unmarked(text)
    return {"text": plain.replace(" +- ", " ± "), "marks": " ".join(marks)}
