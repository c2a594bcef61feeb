"""`zobench settings [PATTERN]`: all settings of a run, with type, default, unit, meaning, users.

All of it is read from the source: fields, types, defaults and comments of the dataclasses in
zobench/settings.py and zobench/schema.py, defaults of groups in conf/config.yaml, and the files of
the package that mention a setting. Nothing is imported for it.
"""

import argparse
import ast
import io
import re
import textwrap
import tokenize
from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import NamedTuple

import yaml

from zobench.errors import UserError
from zobench.paths import PACKAGE_DIR, conf_dir

SCHEMA = ("settings.py", "schema.py")
GROUP = "group"  # the kind of a setting that is chosen by name
_UNITS = ("steps", "forwards", "seconds", "minutes", "evaluations", "examples", "runs")


class Setting(NamedTuple):
    """A setting of a run.

    kind: its type, such as `int or null`; `group` for one that is an option of conf/KEY/.
    """

    key: str
    kind: str
    default: str
    text: str

    @property
    def unit(self) -> str:
        """What a number counts, by its name, the first word of its text, or `this many ...`."""
        if not re.match(r"int|float", self.kind):
            return ""
        words = re.findall(r"^[a-z]+|(?<=this many )[a-z]+", self.text)
        named = self.key.rpartition(".")[2].split("_")
        return next((word for word in (*words, *named) if word in _UNITS), "")


@cache
def settings() -> list[Setting]:
    """All settings, in the order of the schema."""
    classes = {node.name: node for file in SCHEMA for node in _classes(PACKAGE_DIR / file)}
    comments = {file: _comments(PACKAGE_DIR / file) for file in SCHEMA}
    chosen = _chosen()
    found: list[Setting] = []
    for name, kind, default, line in _fields(classes["Config"]):
        text = comments["schema.py"].get(line, "")
        section = classes.get(kind.removeprefix("sections."))
        if section is not None:
            found += [
                Setting(f"{name}.{key}", _kind(inner), value, comments["settings.py"].get(at, ""))
                for key, inner, value, at in _fields(section)
            ]
        elif kind == "Any":
            found.append(Setting(name, GROUP, chosen.get(name, "null"), text))
        else:
            value = chosen.get(name, "") if default == "MISSING" else default
            found.append(Setting(name, _kind(kind), value, text))
    return found


def sections() -> dict[str, str]:
    """Section -> what the first line of its dataclass says of it."""
    classes = {node.name: node for file in SCHEMA for node in _classes(PACKAGE_DIR / file)}
    kinds = {name: kind.removeprefix("sections.") for name, kind, *_ in _fields(classes["Config"])}
    documented = {name: ast.get_docstring(classes[k]) for name, k in kinds.items() if k in classes}
    return {name: (text or "").splitlines()[0] for name, text in documented.items()}


@cache
def users(key: str) -> list[str]:
    """The files of the package that mention a setting, or else its section; empty for a group."""
    section, _, name = key.rpartition(".")
    top = section or name
    of_settings = rf"(?<![a-z])(settings|config|plain)(\.{top}\b|\[\"{top}\"\])"
    whole = rf"{of_settings}|(preset|get|pop)\(\"{top}\""
    if not section:
        return _mentioning(whole)
    own = rf"(?<![a-z]){section}\.{name}\b|\"{section}\"[\],] ?\[?\"{name}\""
    return _mentioning(own) or _mentioning(whole)


def _mentioning(pattern: str) -> list[str]:
    wanted = re.compile(pattern)
    return [path for path, text in _sources().items() if "settings" in text and wanted.search(text)]


@cache
def _sources() -> dict[str, str]:
    paths = sorted(PACKAGE_DIR.rglob("*.py"))
    named = {path.relative_to(PACKAGE_DIR).as_posix(): path for path in paths}
    return {name: path.read_text() for name, path in named.items() if name != SCHEMA[0]}


def _classes(path: Path) -> list[ast.ClassDef]:
    return [node for node in ast.parse(path.read_text()).body if isinstance(node, ast.ClassDef)]


def _fields(node: ast.ClassDef) -> Iterator[tuple[str, str, str, int]]:
    """Name, type, default and line of each field of a dataclass."""
    for field in node.body:
        if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name):
            value = ast.unparse(field.value) if field.value else ""
            yield field.target.id, ast.unparse(field.annotation), _shown(value), field.lineno


def _comments(path: Path) -> dict[int, str]:
    """Line -> the comment at its end."""
    tokens = tokenize.generate_tokens(io.StringIO(path.read_text()).readline)
    comments = [token for token in tokens if token.type == tokenize.COMMENT]
    return {token.start[0]: token.string.lstrip("# ") for token in comments}


def _kind(annotation: str) -> str:
    return annotation.replace(" | None", " or null").replace("dict[str, str]", "mapping")


def _shown(default: str) -> str:
    """A default as it is typed on the command line."""
    plain = {"None": "null", "True": "true", "False": "false", "field(default_factory=dict)": "{}"}
    return plain.get(default, default.strip("'"))


def _chosen() -> dict[str, str]:
    """The defaults of conf/config.yaml: options of groups, and values."""
    config = yaml.safe_load((conf_dir() / "config.yaml").read_text())
    named = [entry for entry in config["defaults"] if isinstance(entry, dict)]
    pairs = [pair for entry in (*named, config) for pair in entry.items()]
    values = {key: value for key, value in pairs if not isinstance(value, dict | list)}
    return {key: "null" if value is None else str(value) for key, value in values.items()}


def matching(pattern: str) -> list[Setting]:
    """The settings whose key or text has the pattern; UserError if there are none."""
    try:
        wanted = re.compile(pattern, re.IGNORECASE)
    except re.error as error:
        raise UserError(f"{pattern}: not a regular expression ({error})") from None
    found = [one for one in settings() if wanted.search(one.key) or wanted.search(one.text)]
    if not found:
        raise UserError(
            f"{pattern}: no such setting; `zobench why {pattern}` also knows those of the options"
            " chosen, such as optimizer.lr"
        )
    return found


def main(arguments: Sequence[str]) -> int:
    """Print the settings: key, default, type, meaning; with PATTERN also who mentions them."""
    parser = argparse.ArgumentParser(
        prog="zobench settings",
        description="Show all settings of a run, or those whose name or text has PATTERN (a regular"
        " expression). The settings of a group's option, such as optimizer.lr, are those of its"
        " yaml: zobench why optimizer.",
        epilog="example: zobench settings eval_every",
    )
    parser.add_argument("pattern", metavar="PATTERN", nargs="?", default="")
    pattern = parser.parse_args(arguments).pattern
    for one in matching(pattern):
        print(f"{one.key}={one.default}  ({', '.join(filter(None, (one.kind, one.unit)))})")
        text = one.text or (f"an option of conf/{one.key}/" if one.kind == GROUP else "")
        files = users(one.key) if pattern and one.kind != GROUP else []
        for line in filter(None, [text, f"mentioned in {', '.join(files)}" if files else ""]):
            print(textwrap.fill(line, 100, initial_indent="    ", subsequent_indent="    "))
    return 0
