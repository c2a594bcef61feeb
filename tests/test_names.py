"""What a config says becomes a path inside the runs' folder, or an error."""

from collections.abc import Callable
from pathlib import Path

import pytest

from zobench.errors import UserError
from zobench.names import plain_name

Command = Callable[..., tuple[int, str, str]]
ESCAPES = ("../x", "a/b", "/tmp/x", ".", "..", ".hidden", "a\\b", "a\nb", "x" * 101, "")


@pytest.mark.parametrize("name", ESCAPES)
def test_a_name_is_that_of_one_folder(name: str) -> None:
    """No separators, nothing hidden, not too long."""
    with pytest.raises(UserError, match=r"(?s)^suite=.*: must be a plain folder name"):
        plain_name("suite", name)


@pytest.mark.parametrize("name", ["scratch", "mezo_opt13b", "a.b-c+d=e", "Größe 2", "x" * 100])
def test_ordinary_names_stay(name: str) -> None:
    assert plain_name("suite", name) == name


@pytest.mark.parametrize("sweep", [False, True])
@pytest.mark.parametrize(
    "override", ["suite=../escaped", "suite=a/../../escaped", "task=../task/synthetic_reviews"]
)
def test_nothing_is_written_outside(
    command: Command, tmp_path: Path, override: str, sweep: bool
) -> None:
    """Neither by a run nor by Hydra, which makes a sweep's folder before it looks at a run."""
    status, out, err = command(*(["-m", "seed=0,1"] if sweep else []), override, "logger=none")
    assert status == 1 and "must be a plain folder name" in err + out
    assert {path.name for path in tmp_path.iterdir()} <= {"runs"}
    assert not list((tmp_path / "runs").rglob("config.yaml"))
