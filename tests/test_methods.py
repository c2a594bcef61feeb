"""docs/methods.md's table is what the code is."""

import pytest

from zobench.errors import UserError
from zobench.methods import line_of, rows, title_of, written
from zobench.paths import PACKAGE_DIR

DOCS = PACKAGE_DIR.parent / "docs" / "methods.md"


@pytest.mark.parametrize("row", rows())
def test_the_table_of_methods_is_up_to_date(row: str) -> None:
    """The page has the line of each row; `zobench methods --write docs/methods.md` updates it."""
    if not DOCS.is_file():
        pytest.skip("not a checkout: the document is not here")
    assert line_of(row) in DOCS.read_text().splitlines()


def test_every_line_of_the_table_is_a_row() -> None:
    """A row that was taken away leaves no line behind."""
    if not DOCS.is_file():
        pytest.skip("not a checkout: the document is not here")
    table = DOCS.read_text().split("zobench methods: begin -->")[1].split("<!-- zobench")[0]
    named = [line.split("`")[1] for line in table.splitlines() if line.startswith("| `")]
    assert named == ["optimizer=", *rows()]


def test_the_table_goes_between_its_marks() -> None:
    """What stands around the marks stays; a file without marks is refused."""
    text = "a\n<!-- zobench methods: begin -->\nold\n<!-- zobench methods: end -->\nb\n"
    assert written(text, ["new"]) == text.replace("old", "new")
    with pytest.raises(UserError, match="no lines"):
        written("a", ["new"])


def test_names_and_references_come_from_the_yaml() -> None:
    """The first line of a row's yaml names it and its source."""
    assert title_of("mezo") == ("MeZO", "Malladi et al. 2023, arXiv 2305.17333")
    assert title_of("rloo") == ("LOREN's control", "Seung et al. 2026, arXiv 2511.07971")
