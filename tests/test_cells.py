"""Rows of conf/cells: each can be read, a user's own beat them, and what is no table is refused."""

import re
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import yaml

from zobench.cells import rows
from zobench.errors import UserError
from zobench.explain import explained
from zobench.paths import conf_dir
from zobench.schema import composed
from zobench.targets import FOLDERS

Command = Callable[..., tuple[int, str, str]]


@pytest.fixture
def mine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Path]]:
    """`mine("x.yaml", text)`: a table of the user's, in the folder that `--config-dir` names."""
    monkeypatch.setenv(FOLDERS, str(tmp_path / "mine"))

    def write(name: str, text: str) -> Path:
        path = tmp_path / "mine" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        return path

    yield write


def pairs() -> dict[str, list[str]]:
    """Group of rows -> the groups whose options make up its rows' names."""
    defaults = yaml.safe_load((conf_dir() / "config.yaml").read_text())["defaults"]
    found = {
        key: value for entry in defaults if isinstance(entry, dict) for key, value in entry.items()
    }
    return {
        key.removeprefix("optional "): re.findall(r"\$\{(\w+)\}", value)
        for key, value in found.items()
        if key.startswith("optional ")
    }


def test_every_row_is_of_options_that_there_are() -> None:
    """A row of a misspelt method would never be read."""
    names = [(row, row.rpartition("/")) for row in rows()]
    assert len(names) > 200
    for row, (group, _, name) in names:
        if group in ("grid", "scale/grid"):  # test_grids
            continue
        parts = dict(zip(pairs()[group], name.split("-"), strict=True))
        for of, option in parts.items():
            assert (conf_dir() / of / f"{option}.yaml").is_file(), row


def test_a_row_is_read_where_both_of_its_options_are_chosen() -> None:
    """And beaten by the command line."""
    chosen = "protocol=zobench", "tuning=lora"
    assert composed(*chosen, "optimizer=mezo")["optimizer"]["lr"] == 1e-4
    assert composed(*chosen, "optimizer=mezo", "optimizer.lr=3")["optimizer"]["lr"] == 3
    assert composed(*chosen, "optimizer=mezo_adam")["optimizer"]["lr"] == 1e-4
    assert composed(*chosen, "optimizer=mezo_momentum")["optimizer"]["lr"] == 1e-5


def test_a_users_table_adds_rows_and_beats_those_of_ours(mine: Callable[..., Path]) -> None:
    """`1e-7` is a number there, too, and other rows of the same pair of groups stay."""
    mine("cells/x.yaml", "tuned: {tiny: {mezo: {optimizer: {lr: 1e-7}}, zero_shot: {seed: 7}}}")
    assert composed("optimizer=mezo")["optimizer"]["lr"] == 1e-7
    assert composed("optimizer=zero_shot")["seed"] == 7
    assert composed("optimizer=mezo_adam")["optimizer"]["lr"] == 3e-4


def test_a_users_plain_file_of_a_rows_name_beats_it(tmp_path: Path, command: Command) -> None:
    """Where there are many rows a table is shorter; where there is one, a file may be."""
    file = tmp_path / "mine" / "tuned" / "tiny-mezo.yaml"
    file.parent.mkdir(parents=True)
    file.write_text("# @package _global_\noptimizer: {lr: 0.5}\n")
    status, shown, _ = command("--config-dir", str(tmp_path / "mine"), "--cfg", "job")
    assert status == 0 and yaml.safe_load(shown)["optimizer"]["lr"] == 0.5


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("tuned: [1", r"x\.yaml:\d+: not valid YAML"),
        ("tuned: {tiny: {mezo: {seed: 1}, mezo: {seed: 2}}}", r"x\.yaml:1: .*duplicate key mezo"),
        ("tunned: {tiny: {mezo: {seed: 1}}}", r"x\.yaml: tunned: not a group with rows"),
        ("tuned: {tiny: 3}", r"x\.yaml: tuned: tiny: expected KEY: VALUE"),
        ("tuned: {tiny: {mezo: 1e-3}}", r"x\.yaml: tuned: tiny: mezo: expected KEY: VALUE"),
        ("- tuned", r"x\.yaml: a table: expected KEY: VALUE"),
    ],
)
def test_what_is_no_table_is_refused_in_a_line(
    mine: Callable[..., Path], text: str, said: str
) -> None:
    """It names the file and the row."""
    mine("cells/x.yaml", text)
    with pytest.raises(Exception) as caught:
        composed()
    message = explained(caught.value)
    assert message is not None and re.search(said, message) and "\n" not in message


def test_a_row_that_two_tables_have_is_refused(mine: Callable[..., Path]) -> None:
    """Which of them counts would be the order of their names."""
    one = mine("cells/a.yaml", "tuned: {tiny: {mezo: {seed: 1}}}")
    two = mine("cells/b.yaml", "tuned: {tiny: {mezo: {seed: 2}}}")
    with pytest.raises(UserError, match="has this row, too") as caught:
        composed()
    assert all(word in str(caught.value) for word in (str(one), str(two), "tuned/tiny-mezo"))
