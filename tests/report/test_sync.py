"""`zobench sync`: which offline runs go to W&B, and what is said of them. No test goes there."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from zobench.errors import UserError
from zobench.report import sync, wandb_login

FAKE = '''
"""Stands for W&B: notes what it is asked to upload, and leaves W&B's mark unless told to fail."""
import os, pathlib, sys

command, folder = sys.argv[1:]
assert command == "sync" and "WANDB_MODE" not in os.environ
with open(os.environ["FAKE_WANDB_LOG"], "a") as log:
    log.write(folder + "\\n")
if "refused" in folder:
    print("wandb: ERROR project not found")  # and ends well, as W&B does
elif "crash" in folder:
    sys.exit(3)
else:
    for file in pathlib.Path(folder).glob("*.wandb"):
        file.with_suffix(".wandb.synced").touch()
'''


def offline_run(root: Path, run: str, *, end: str = "result.json", synced: bool = False) -> Path:
    """A run folder with an offline W&B run in it; `run` is suite/name."""
    folder = root / run / "wandb" / "offline-run-20260101_000000-0"
    folder.mkdir(parents=True)
    (folder / "run-0.wandb").write_bytes(b"w")
    if synced:
        (folder / "run-0.wandb.synced").touch()
    if end:
        (root / run / end).write_text("{}")
    return folder


@pytest.fixture
def uploads(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[[], list[str]]:
    """`python -m wandb` is a fake with a login; call for the runs that it was asked to upload."""
    package = tmp_path / "fake" / "wandb"
    package.mkdir(parents=True)
    (package / "__init__.py").touch()
    (package / "__main__.py").write_text(FAKE)
    log = tmp_path / "log"
    log.touch()
    monkeypatch.setenv("PYTHONPATH", str(package.parent))
    monkeypatch.setenv("FAKE_WANDB_LOG", str(log))
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setattr(sync, "require_login", lambda: None)
    return lambda: [Path(line).parents[1].name for line in log.read_text().splitlines()]


def test_what_waits_is_uploaded_once_and_a_failure_stops_nothing(
    uploads: Callable[[], list[str]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Uploaded, failed with W&B's own words, there before, still running: each is said of each."""
    root = tmp_path / "runs"
    for run in ("one/a-refused", "one/b-crash", "one/c", "two/e"):
        offline_run(root, run)
    offline_run(root, "one/d", end="failure.json")
    offline_run(root, "one/before", synced=True)
    offline_run(root, "one/running", end="")
    assert sync.main(["--runs", str(root)]) == 1
    assert uploads() == ["a-refused", "b-crash", "c", "d", "e"]
    out, err = capsys.readouterr()
    said = ["uploaded: one/c", "uploaded: one/d", "uploaded: two/e"]
    assert out.splitlines() == [
        *said,
        "2 failed, 1 unfinished, 3 uploaded, 1 uploaded before",
    ]
    assert err.splitlines() == [
        "failed: one/a-refused: wandb: ERROR project not found",
        "failed: one/b-crash: wandb sync exited with status 3",
    ]
    assert sync.main(["--runs", str(root), "two"]) == 0
    assert len(uploads()) == 5
    assert capsys.readouterr().out == "1 uploaded before\n"


def test_a_dry_run_lists_and_uploads_nothing(
    uploads: Callable[[], list[str]],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It shows one suite when it is named, and needs no login."""
    root = tmp_path / "runs"
    offline_run(root, "one/a")
    offline_run(root, "two/b")
    monkeypatch.setattr(sync, "require_login", lambda: pytest.fail("asked for a login"))
    assert sync.main(["--runs", str(root), "--dry-run", "two"]) == 0
    assert capsys.readouterr().out == "to upload: two/b\n1 to upload\n"
    assert uploads() == []


def test_without_a_login_nothing_is_touched(
    uploads: Callable[[], list[str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One sentence says how to log in, before the first upload."""

    def refuse() -> None:
        raise UserError("not logged in")

    monkeypatch.setattr(sync, "require_login", refuse)
    offline_run(tmp_path / "runs", "one/a")
    with pytest.raises(UserError, match="not logged in"):
        sync.main(["--runs", str(tmp_path / "runs")])
    assert uploads() == []


def test_an_unknown_suite_is_named_and_no_runs_are_no_error(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A run without W&B is not waiting for anything."""
    (tmp_path / "one" / "a").mkdir(parents=True)
    with pytest.raises(UserError, match=r"no suite 'nope'.*there are one"):
        sync.main(["--runs", str(tmp_path), "nope"])
    assert sync.main(["--runs", str(tmp_path)]) == 0
    assert capsys.readouterr().out == "no run was logged to W&B offline\n"


LOGINS = """
import os
from zobench.errors import UserError
from zobench.report.wandb_login import require_login
for key in ("", "short", "0" * 40):
    os.environ["WANDB_API_KEY"] = key
    try:
        print(require_login())
    except UserError as error:
        print(error)
"""


def test_a_key_is_a_login_and_nobody_is_asked(tmp_path: Path) -> None:
    """Whatever WANDB_MODE says, the key at hand decides; an ill-formed one is said to be that.

    The server's address is one where nothing answers, so asking it would fail.
    """
    environment = {name: os.environ[name] for name in ("PATH", "SYSTEMROOT") if name in os.environ}
    environment |= {"HOME": str(tmp_path), "PYTHONPATH": str(Path(wandb_login.__file__).parents[2])}
    environment |= {"WANDB_MODE": "offline", "WANDB_BASE_URL": "http://127.0.0.1:9"}
    done = subprocess.run(
        [sys.executable, "-c", LOGINS],
        cwd=tmp_path,
        env=environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=True,
    )
    without, bad, good = done.stdout.splitlines()
    assert without == "not logged in to W&B: run `wandb login`, or set WANDB_API_KEY"
    assert bad.startswith("W&B: WANDB_API_KEY invalid")
    assert good == "None"


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("WANDB_MODE", "foo"),
        ("WANDB_BASE_URL", "nowhere"),
        ("WANDB_PROJECT", "a/b"),
        ("WANDB_TAGS", "x" * 70),
        ("WANDB_SILENT", "maybe"),
    ],
)
def test_a_variable_that_wandb_does_not_take_is_named(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str
) -> None:
    """In one line, before anything is uploaded."""
    monkeypatch.setenv(name, value)
    with pytest.raises(UserError, match=f"^{name}: ") as refused:
        wandb_login.require_login()
    assert "\n" not in str(refused.value) and "ValidationError" not in str(refused.value)
