"""Makes a page for each row of conf/optimizer when the site is built (`hooks` in mkdocs.yml).

A page is made from the row's yaml (its comment and settings), the docstrings of its parts, its line
in docs/methods.md and the tables of docs/results. A new yaml or a new part needs no edit here.
"""

import importlib
import inspect
import re
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from zobench import methods
from zobench.paths import conf_dir

DOCS = Path(__file__).resolve().parent.parent
PARTS = ("sampler", "estimator", "rule")
OTHERS = "first_order"
ARXIV = "https://arxiv.org/abs/"
SYMBOLS = (
    "`w`: the trained weights, `d` of them; `L`: the loss of the step's batch; `z_k`: directions,"
    " `c_k`: their coefficients, `g = sum_k c_k z_k`: the estimate; `W`, `Z`: a matrix (m x n) and"
    " its direction. Operations are elementwise, but for products of matrices."
)
_SECTION = re.compile(r"^(Args|Attributes|Formula|Raises|References|Returns|Yields):$")


class Part(NamedTuple):
    """A sampler, estimator or rule of a row.

    Attributes:
        key: Of its settings, such as `sampler` or `sampler.inner`.
        kind: Its class.
        settings: Its own settings, without those of a part inside it.
    """

    key: str
    kind: type
    settings: dict[str, Any]

    @property
    def file(self) -> str:
        """The name of its file."""
        return self.kind.__module__.rpartition(".")[2]


# ---- what a yaml says


def comment(row: str) -> tuple[str, dict[str, str]]:
    """The comment at the head of the row's yaml: first sentences, and fields such as `Claim`."""
    found, fields, name = "", {}, ""
    for line in (conf_dir() / "optimizer" / f"{row}.yaml").read_text().splitlines():
        if not line.startswith("#"):
            break
        text = line.removeprefix("#").strip()
        if text.startswith("@package"):
            continue
        if field := re.match(r"(Claim|Formula|Cost|Command): (.*)", text):
            name = field[1]
            fields[name] = field[2]
        elif name:
            fields[name] += " " + text
        else:
            found += " " + text
    return found.strip(), fields


def other_rows() -> list[str]:
    """The rows of conf/optimizer that are not of zeroth order."""
    known = set(methods.rows())
    return sorted({path.stem for path in (conf_dir() / "optimizer").glob("*.yaml")} - known)


def parts(row: str) -> list[Part]:
    """The row's parts, each before the one inside it."""
    node = methods.settings_of(row)
    return [part for group in PARTS for part in _inside(group, node[group])]


def _inside(key: str, node: Mapping[str, Any]) -> Iterator[Part]:
    module, _, name = node["_target_"].rpartition(".")
    inner = {k: v for k, v in node.items() if isinstance(v, dict) and "_target_" in v}
    own = {k: v for k, v in node.items() if k not in inner and not k.startswith("_")}
    yield Part(key, getattr(importlib.import_module(module), name), own)
    for name, below in inner.items():
        yield from _inside(f"{key}.{name}", below)


# ---- what a docstring says


def section(kind: type, name: str) -> list[str]:
    """The lines of a section of the class's docstring, or of the nearest base that has it."""
    for base in kind.__mro__:
        found = _sections(inspect.cleandoc(base.__dict__.get("__doc__") or "")).get(name)
        if found:
            return found
    return []


def _sections(doc: str) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {"": []}
    name = ""
    for line in doc.splitlines():
        if head := _SECTION.match(line):
            name = head[1]
            found[name] = []
        else:
            found[name].append(line if not name else line.removeprefix("    "))
    return found


def formula(kind: type) -> list[str]:
    """The formulas of a part; the first line of its docstring where it has no such section."""
    lines = [line for line in section(kind, "Formula") if not line.startswith("```")]
    return [line for line in lines if line] or (inspect.getdoc(kind) or "").splitlines()[:1]


def arguments(kind: type) -> dict[str, str]:
    """What the docstring says of each argument."""
    found: dict[str, str] = {}
    name = ""
    for line in section(kind, "Args"):
        if entry := re.match(r"(\w+): (.*)", line):
            name = entry[1]
            found[name] = entry[2]
        elif line and name:
            found[name] += " " + line.strip()
    return found


def prose(part: Part) -> str:
    """The docstrings of the part's file and of its class, without sections, as markdown."""
    file = inspect.cleandoc(sys.modules[part.kind.__module__].__doc__ or "")
    own = "\n".join(_sections(inspect.cleandoc(part.kind.__doc__ or ""))[""]).strip()
    source = reference(part.kind)
    texts = (file, own, f"Reference: {source}." if source else "")
    return plain("\n\n".join(text for text in texts if text))


def reference(kind: type) -> str:
    """Paper, equation or algorithm of a part."""
    return " ".join(line.strip() for line in section(kind, "References") if line).rstrip(".")


def plain(text: str) -> str:
    """Text as markdown: signs that markdown would read are escaped, arXiv ids are links."""
    pieces = re.split(r"(`[^`]*`)", text)
    for place in range(0, len(pieces), 2):
        piece = re.sub(r"(?<!^)(?<!\n)\*", r"\\*", pieces[place]).replace("<", "&lt;")
        pieces[place] = re.sub(r"arXiv (\d{4}\.\d{5})", rf"[arXiv \1]({ARXIV}\1)", piece)
    return "".join(pieces)


# ---- what the tables say


def line_of(row: str) -> list[str]:
    """The cells of the row's line in docs/methods.md; measured where it is not there yet."""
    lines = (DOCS / "methods.md").read_text().partition("zobench methods: begin")[2].splitlines()
    line = next((line for line in lines if line.startswith(f"| `{row}` | ")), None)
    return [cell.strip() for cell in (line or methods.line_of(row)).strip("|").split(" | ")]


def results(row: str) -> Iterator[str]:
    """For each table of docs/results that has the row: a link, and its line with MeZO's."""
    named = re.compile(rf"\| `?({row}|mezo)`?( \(|,| \|)")
    for file in sorted((DOCS / "results").glob("*.md")):
        lines = file.read_text().splitlines()
        title, heading = lines[0].removeprefix("# "), ""
        for place, line in enumerate(lines):
            if line.startswith("## "):
                heading = line.removeprefix("## ")
            if not re.match(r"\|[ :|-]+\|$", line):
                continue
            table = []
            for below in lines[place + 1 :]:
                if not below.startswith("|"):
                    break
                table.append(below)
            found = [below for below in table if named.match(below)]
            if any(re.match(rf"\| `?{row}\b", below) for below in found):
                anchor = f"#{slug(heading)}" if heading else ""
                where = f"{heading} ({title})" if heading else title
                link = f"[{where}](../results/{file.name}{anchor})"
                yield "\n".join([link, "", lines[place - 1], line, *found])


def slug(heading: str) -> str:
    """The anchor of a heading."""
    return re.sub(r"[ -]+", "-", re.sub(r"[^\w\- ]", "", heading.lower()).strip())


def checks(name: str) -> str:
    """A link to the section of docs/methods.md about the method, if there is one."""
    heads = re.findall(r"^### (.+)$", (DOCS / "methods.md").read_text(), flags=re.MULTILINE)
    found = [head for head in heads if re.match(rf"{re.escape(head)}\b", name)]
    says = "says how the formulas were checked, and what the controls say."
    return "".join(f"[Methods: {head}](../methods.md#{slug(head)}) {says}\n" for head in found)


def overlays(row: str) -> list[str]:
    """The overlays of conf/experiment whose grid names the row."""
    grid = re.compile(r"optimizer: (?:>-\n((?: {8}.*\n)+)|(.*))")
    found = []
    for file in sorted((conf_dir() / "experiment").glob("*.yaml")):
        grids = " ".join(lines + line for lines, line in grid.findall(file.read_text()))
        found += [file.stem] if re.search(rf"\b{row}\b", grids) else []
    return found


# ---- pages


def page(row: str) -> str:
    """The page of a zeroth-order row, as markdown."""
    name, source = methods.title_of(row)
    head, fields = comment(row)
    cells, own = line_of(row), parts(row)
    claim = fields.get("Claim", "none is recorded.")
    compared = "mezo" if row == "mezo" else f"mezo,{row}"
    lines = [
        f"# {name}",
        "",
        f"`optimizer={row}`: {plain(head.partition(': ')[2])}",
        "",
        "**Source:** " + plain(source or "; ".join(reference(part.kind) for part in own)),
        "",
        "## Formula",
        "",
        "```text",
    ]
    for part in own:
        lines += [f"{part.key} ({part.file})", *(f"    {text}" for text in formula(part.kind))]
    lines += [
        "```",
        "",
        SYMBOLS,
        "",
        "## Cost",
        "",
        f"- {cells[3]} forwards a step",
        f"- {cells[4]} passes over the trained weights a step",
        f"- {cells[5]} bytes of state per weight",
        f"- `{cells[6]}`: what an earlier step's direction needs to be drawn again",
        "",
        "[Methods](../methods.md#all-rows) says how these are measured.",
        "",
        "## What the paper claims",
        "",
        plain(claim[:1].upper() + claim[1:]),
        "",
        "## What we saw",
        "",
        "\n\n".join(results(row)) or "This method is in no table of our results yet.",
        "",
        checks(name),
        "## Options",
        "",
        "| option | default | meaning |",
        "|---|---|---|",
        *options(row, own),
        "",
        "Seed, batching of points and CUDA graphs are the same for every row:"
        " [ZOOptimizer](../reference/optimizer.md).",
        "",
        "## Run it",
        "",
        "```sh",
        f"zobench optimizer={row}",
        f"zobench -m optimizer={compared} seed=0,1,2 budget.forwards=1200 suite={row}",
        f"zobench table {row}",
        "```",
        "",
        "The commands run on the model that ships with zobench.",
        "",
    ]
    if found := overlays(row):
        named = ", ".join(f"`{overlay}`" for overlay in found)
        lines += [
            f"`experiment=` options that have this row in their grid: {named}. Those of papers need"
            " models from the hub and mostly a GPU ([Repeat a paper's table](../tables.md)).",
            "",
        ]
    lines += ["## Parts", ""]
    for part in own:
        target = f"{part.kind.__module__}.{part.kind.__name__}"
        lines += [f"### {part.key}: [{part.kind.__name__}][{target}]", "", prose(part), ""]
    return "\n".join(lines)


def options(row: str, own: list[Part]) -> Iterator[str]:
    """Lines of the table of options: what the optimizer has, then each part."""
    node = methods.settings_of(row)
    known = arguments(methods.ZOOptimizer)
    for key in ("lr", "eps"):
        yield f"| `optimizer.{key}` | {shown(node[key])} | {cell(known[key])} |"
    for part in own:
        known = arguments(part.kind)
        for key, value in part.settings.items():
            yield f"| `{part.key}.{key}` | {shown(value)} | {cell(known.get(key, ''))} |"


def shown(value: Any) -> str:
    """A setting as it is typed."""
    if value is None or isinstance(value, bool):
        return f"`{'null' if value is None else str(value).lower()}`"
    return f"`{value:g}`" if isinstance(value, float) else f"`{value}`"


def cell(text: str) -> str:
    """Text in a cell of a table."""
    return plain(text).replace("|", "\\|")


def other_page() -> str:
    """The page of the rows that back-propagate or do not train."""
    lines = [
        "# Back-propagation and no training",
        "",
        "Baselines: they run through the same loop, tasks and tables as the zeroth-order rows. Any"
        " optimizer of `torch.optim` can be a row: a yaml with its `_target_` in a folder of your"
        " own ([Use guards](../guards.md)). [Choose a task](../tasks.md) says how to evaluate a"
        " model in another way, such as in-context learning.",
        "",
    ]
    for row in other_rows():
        head, fields = comment(row)
        seen = "\n\n".join(results(row))
        lines += [f"## {row}", "", plain(head), ""]
        if "Formula" in fields:
            lines += ["```text", *fields["Formula"].split("; "), "```", ""]
        lines += [plain(f"Cost: {fields['Cost']}"), ""] if "Cost" in fields else []
        lines += ["```sh", fields.get("Command", f"zobench optimizer={row}"), "```", ""]
        lines += [seen, ""] if seen else []
    return "\n".join(lines)


def linked(markdown: str) -> str:
    """docs/methods.md with a link from each row's name in a table to its page."""
    pages = {row: f"methods/{row}.md" for row in methods.rows()}
    pages |= dict.fromkeys(other_rows(), f"methods/{OTHERS}.md")

    def link(found: re.Match[str]) -> str:
        return f"[{found[0]}]({pages[found[1]]})" if found[1] in pages else found[0]

    lines = markdown.splitlines()
    return "\n".join(
        re.sub(r"`(\w+)`", link, line) if line.startswith("| `") else line for line in lines
    )


def missing_classes(group: str, markdown: str) -> str:
    """What a page of the reference lacks: the classes that a yaml names and the page does not."""
    found: set[str] = set()
    for file in (conf_dir() / group).glob("*.yaml"):
        found |= set(re.findall(r"_target_: (zobench\S+)", file.read_text()))
    there = set(re.findall(r"^::: (\S+)", markdown, flags=re.MULTILINE))
    return "".join(f"\n\n::: {target}" for target in sorted(found - there))


# ---- hooks of mkdocs


def on_config(config: Any) -> Any:
    """Puts the pages into the navigation, below the page of methods."""
    titles = {row: methods.title_of(row)[0] for row in methods.rows()}
    pages = [
        {titles[row]: f"methods/{row}.md"}
        for row in sorted(titles, key=lambda r: titles[r].lower())
    ]
    below = ["methods.md", *pages, {"Back-propagation, no training": f"methods/{OTHERS}.md"}]
    for entry in config.nav:
        if entry.get("Methods") == "methods.md":
            entry["Methods"] = below
    return config


def on_files(files: Any, config: Any) -> Any:
    """Adds the pages."""
    from mkdocs.structure.files import File

    for row in methods.rows():
        files.append(File.generated(config, f"methods/{row}.md", content=page(row)))
    files.append(File.generated(config, f"methods/{OTHERS}.md", content=other_page()))
    return files


def on_page_markdown(markdown: str, *, page: Any, **_: Any) -> str:
    """Links docs/methods.md to the pages, and completes the reference."""
    place = page.file.src_uri
    if place == "methods.md":
        return linked(markdown)
    if group := re.fullmatch(r"reference/(sampler|estimator|rule)s\.md", place):
        return markdown + missing_classes(group[1], markdown)
    return markdown
