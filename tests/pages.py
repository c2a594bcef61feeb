"""The README and the pages of docs/: their code blocks, and the command lines in them."""

import re
import shlex
from pathlib import Path

import pytest

from zobench.paths import PACKAGE_DIR

ROOT = PACKAGE_DIR.parent
README = ROOT / "README.md"
DOCS = ROOT / "docs"
OTHERS = ("table", "plot", "report", "compare", "status", "sync", "dashboard", "replay", "verify")


def text_of(page: Path) -> str:
    """The page; the test is skipped where there is no checkout."""
    if not README.is_file():
        pytest.skip("not a checkout: README and docs are not here")
    return page.read_text()


def blocks(page: Path, language: str, title: str = "") -> list[str]:
    """Contents of the page's code blocks in one language, with that title if one is given."""
    titled = f' title="{re.escape(title)}"' if title else r"[^\n]*"
    return re.findall(rf"```{language}{titled}\n(.*?)```", text_of(page), flags=re.DOTALL)


def commands(page: Path) -> list[list[str]]:
    """The words of each command line in the page's sh blocks, without comments."""
    joined = [block.replace("\\\n", " ") for block in blocks(page, "sh")]
    lines = [line for block in joined for line in block.splitlines()]
    parts = [part for line in lines for part in line.split(" && ")]
    return [shlex.split(_plain(part), comments=True) for part in parts]


def runs(page: Path) -> list[list[str]]:
    """The arguments of those command lines that start runs."""
    called = [words[1:] for words in commands(page) if words[:1] == ["zobench"]]
    return [words for words in called if not words or words[0] not in OTHERS]


def _plain(command: str) -> str:
    """The command with bash's $'...' as plain quoting, which shlex knows."""
    return re.sub(
        r"\$'([^']*)'",
        lambda found: shlex.quote(found[1].encode().decode("unicode_escape")),
        command,
    )
