"""Makes the page of all settings of a run when the site is built (`hooks` in mkdocs.yml).

It has what `zobench settings` prints, which is read from the schema's source: a new setting, or a
new comment, needs no edit here.
"""

from collections.abc import Iterator
from typing import Any

from zobench.settings_reference import GROUP, Setting, sections, settings, users

PLACE = "reference/settings.md"
_HEAD = (
    "| setting | type | default | unit | meaning | mentioned in |",
    "|---|---|---|---|---|---|",
)


def page() -> str:
    """The page: groups, then the settings at the root, then a table for each section."""
    lines = [
        "# Settings",
        "",
        "The settings of a run, as typed on the command line or in a yaml. `zobench settings"
        " PATTERN` shows them in a terminal, `zobench why KEY` says which file or override a value"
        " is from, and `zobench --cfg job` shows all values of a run, those of the chosen options"
        " included.",
        "",
        "## Groups",
        "",
        "Chosen by the name of a file in `conf/GROUP/`, as in `optimizer=mezo`; the file has the"
        " settings of the option, such as `optimizer.lr`.",
        "",
        "| group | default | meaning |",
        "|---|---|---|",
        *(f"| `{s.key}` | `{s.default}` | {cell(s.text)} |" for s in settings() if s.kind == GROUP),
        "",
        "## At the root",
        "",
        *table([s for s in settings() if s.kind != GROUP and "." not in s.key]),
    ]
    for name, text in sections().items():
        own = [s for s in settings() if s.key.startswith(f"{name}.")]
        lines += ["", f"## {name}", "", text, "", *table(own)]
    return "\n".join(lines) + "\n"


def table(rows: list[Setting]) -> Iterator[str]:
    """The lines of a table of settings."""
    yield from _HEAD
    for row in rows:
        files = ", ".join(f"`{path}`" for path in users(row.key))
        cells = (f"`{row.key}`", row.kind, f"`{row.default}`", row.unit, cell(row.text), files)
        yield f"| {' | '.join(cells)} |"


def cell(text: str) -> str:
    """Text in a cell of a table."""
    return text.replace("|", "\\|").replace("<", "&lt;")


def on_config(config: Any) -> Any:
    """Puts the page into the navigation, first in Reference."""
    for entry in config.nav:
        if "Reference" in entry:
            entry["Reference"] = [{"Settings": PLACE}, *entry["Reference"]]
    return config


def on_files(files: Any, config: Any) -> Any:
    """Adds the page."""
    from mkdocs.structure.files import File

    files.append(File.generated(config, PLACE, content=page()))
    return files
