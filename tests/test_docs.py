"""The pages of docs/ hang together: their links resolve, and the site's navigation has them all."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.pages import DOCS, README, ROOT, text_of

PAGES = [README, ROOT / "CONTRIBUTING.md", *sorted(DOCS.rglob("*.md"))]


def anchors(page: Path) -> set[str]:
    """The names that headings of a page have as targets of links."""
    text = re.sub(r"```.*?```", "", page.read_text(), flags=re.DOTALL)
    heads = re.findall(r"^#+ (.*)$", text, flags=re.MULTILINE)
    plain = (re.sub(r"[^\w\- ]", "", head.lower()).strip() for head in heads)
    return {re.sub(r"[ -]+", "-", head) for head in plain}


def links(page: Path) -> list[str]:
    """The targets of the page's links and pictures, without those to other sites."""
    text = re.sub(r"```.*?```|`[^`\n]*`", "", text_of(page), flags=re.DOTALL)
    return [link for link in re.findall(r"\]\(([^)\s]+)\)", text) if "://" not in link]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_links_resolve(page: Path) -> None:
    """Each relative link names a file of the checkout, and a heading of it where it names one."""
    for link in links(page):
        name, _, anchor = link.partition("#")
        target = (page.parent / name).resolve() if name else page
        assert target.is_file(), link
        assert not anchor or anchor in anchors(target), link
        if page.is_relative_to(DOCS):  # the site holds nothing else
            assert target.is_relative_to(DOCS), link


def test_every_page_is_in_the_navigation() -> None:
    """mkdocs.yml's nav names each page of docs/ once, and no other."""
    text_of(README)
    settings: dict[str, Any] = yaml.load((ROOT / "mkdocs.yml").read_text(), yaml.SafeLoader)
    named = list(_pages(settings["nav"]))
    assert sorted(named) == sorted(p.relative_to(DOCS).as_posix() for p in DOCS.rglob("*.md"))


def _pages(nav: Any) -> Iterator[str]:
    if isinstance(nav, str):
        yield nav
    for part in nav if isinstance(nav, list) else nav.values() if isinstance(nav, dict) else ():
        yield from _pages(part)


def test_the_readme_is_a_front_page() -> None:
    """It is at most 150 lines long and leads to the pages."""
    assert len(text_of(README).splitlines()) <= 150
    assert sum(link.startswith("docs/") for link in links(README)) > 20


def test_nothing_is_loaded_from_a_network() -> None:
    """Neither the site's settings nor its own scripts and styles name another site's address."""
    text_of(README)
    assert "font: false" in (ROOT / "mkdocs.yml").read_text()
    files = [ROOT / "mkdocs.yml", *(DOCS / "assets").iterdir()]
    assert not [path for path in files if re.search(r"https?:|//[\w-]+\.", path.read_text())]
