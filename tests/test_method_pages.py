"""The site's pages of methods (docs/hooks/method_pages.py): each says what a reader looks for."""

import importlib.util
import re
import sys
from types import SimpleNamespace
from typing import Any

import pytest

from tests.pages import DOCS
from tests.test_docs import anchors
from zobench import methods

HOOK = DOCS / "hooks" / "method_pages.py"


@pytest.fixture(scope="module")
def pages() -> Any:
    """The hook, as a module; the test is skipped where there is no checkout."""
    if not HOOK.is_file():
        pytest.skip("not a checkout: docs are not here")
    spec = importlib.util.spec_from_file_location("method_pages", HOOK)
    assert spec is not None and spec.loader is not None
    module = sys.modules["method_pages"] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def sections(page: str) -> dict[str, str]:
    """What stands below each heading of the second level; the head of the page is ''."""
    parts = re.split(r"^## (.+)$", page, flags=re.MULTILINE)
    return {"": parts[0]} | dict(zip(parts[1::2], parts[2::2], strict=True))


@pytest.mark.parametrize("row", methods.rows())
def test_a_page_has_source_formula_cost_claim_options_and_command(row: str, pages: Any) -> None:
    """Of the row itself: formulas of all its parts, its line of the table, its settings."""
    found = sections(pages.page(row))
    source = re.search(r"\*\*Source:\*\* (.+)", found[""])
    assert source is not None and re.search(r"\d{4}|id not known", source[1])
    block = re.search(r"```text\n(.*?)```", found["Formula"], flags=re.DOTALL)
    assert block is not None
    for part in pages.parts(row):
        assert pages.section(part.kind, "Formula"), f"{part.kind.__name__} has no Formula section"
        assert f"{part.key} ({part.file})" in block[1]
        assert f"### {part.key}: [{part.kind.__name__}][" in found["Parts"]
    forwards = float(re.search(r"- (\S+) forwards a step", found["Cost"])[1])  # type: ignore[index]
    own = pages.methods.optimizer_of(row, methods.layers(1, 16, 16)).estimator.forwards
    assert forwards == pytest.approx(own, rel=1e-3)
    assert "bytes of state per weight" in found["Cost"]
    assert len(found["What the paper claims"].strip()) > 20
    assert "No claim" not in found["What the paper claims"]
    assert "| `optimizer.lr` | `" in found["Options"]
    assert "|  |\n" not in found["Options"], "an argument without a line in Args"
    assert f"zobench optimizer={row}\n" in found["Run it"]


@pytest.mark.parametrize("row", methods.rows())
def test_links_of_a_page_resolve(row: str, pages: Any) -> None:
    """Each relative link names a page of docs/, and a heading of it where it names one."""
    for link in re.findall(r"\]\((\.\./[^)]+)\)", pages.page(row)):
        name, _, anchor = link.partition("#")
        target = (DOCS / "methods" / name).resolve()
        assert target.is_file() and (not anchor or anchor in anchors(target)), link


def test_results_are_shown_where_there_are_some(pages: Any) -> None:
    """A row's lines of docs/results, beside those of MeZO."""
    seen = sections(pages.page("conmezo"))["What we saw"]
    assert "../results/lm.md" in seen and "../results/all_tiny.md" in seen
    assert "| conmezo |" in seen and "| mezo |" in seen and "| loren |" not in seen


def test_text_of_docstrings_is_safe_in_markdown(pages: Any) -> None:
    """No sign of a formula is read as HTML or emphasis; code and arXiv ids stay."""
    text = pages.plain("p = <u, a> and (U*U) `a < b`, arXiv 2305.17333\n* a point")
    assert text == (
        "p = &lt;u, a> and (U\\*U) `a < b`, [arXiv 2305.17333](https://arxiv.org/abs/2305.17333)"
        "\n* a point"
    )


def test_rows_that_are_not_of_zeroth_order_share_a_page(pages: Any) -> None:
    """With a command and a cost each."""
    found = sections(pages.other_page())
    assert set(found) == {"", *pages.other_rows()}
    for row in pages.other_rows():
        assert f"\nzobench optimizer={row}" in found[row] and "Cost: " in found[row]


def test_the_navigation_and_the_overview_name_every_page(pages: Any) -> None:
    """Titles differ, and docs/methods.md links each row of its tables."""
    config = pages.on_config(SimpleNamespace(nav=[{"Methods": "methods.md"}]))
    first, *entries = config.nav[0]["Methods"]
    titles = [title for entry in entries for title in entry]
    named = [place for entry in entries for place in entry.values()]
    assert first == "methods.md" and len(set(titles)) == len(titles)
    assert set(named) == {f"methods/{row}.md" for row in (*methods.rows(), pages.OTHERS)}
    text = pages.linked((DOCS / "methods.md").read_text())
    for row in methods.rows():
        assert text.count(f"[`{row}`](methods/{row}.md)") >= 2  # by family, and in the table


def test_the_reference_has_every_part_that_a_yaml_names(pages: Any) -> None:
    """What its page lacks is added when the site is built."""
    for group in pages.PARTS:
        text = (DOCS / "reference" / f"{group}s.md").read_text()
        assert not pages.missing_classes(group, text)
        assert pages.missing_classes(group, "").count("\n::: zobench.zo.") > 10
