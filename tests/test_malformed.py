"""Malformed settings and files: a line that names key or file, status 1, no traceback, no results.

`make test` takes every fourteenth of the cases, `make test-faults` all of them.
"""

import re
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.malformed import CASES, SMALL, Case
from zobench.launch.process import attempt

Command = Callable[..., tuple[int, str, str]]
LEFT = {  # of a run that could not begin
    *("config.yaml", "meta.json", "failure.json", "stderr.log", "attempts.jsonl", "overrides.txt"),
}


def test_there_are_two_hundred() -> None:
    """Each another one."""
    assert len(CASES) == len({case.name for case in CASES}) >= 200


def chosen(number: int, case: Case) -> object:
    marks = [] if number % 14 == 0 else [pytest.mark.faults]
    return pytest.param(case, id=case.name[:60], marks=marks)


@pytest.mark.parametrize("case", [chosen(n, case) for n, case in enumerate(CASES)])
def test_it_is_a_line_and_leaves_no_results(
    case: Case, command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One or two lines on the console, and of files the log and what names the run."""
    monkeypatch.setattr("zobench.launch.launch.run_jobs", lambda *jobs: attempt(jobs))
    monkeypatch.setattr("faulthandler.enable", lambda: None)
    place = tmp_path / "given"
    place.mkdir()
    case.make(place)
    before = {path for path in place.rglob("*") if path.is_file()}
    given = [argument.replace("{here}", str(place)) for argument in case.arguments]
    keys = {argument.partition("=")[0].lstrip("+~") for argument in given}
    status, out, err = command(*given, *(s for s in SMALL if s.partition("=")[0] not in keys))
    assert status == 1
    assert "Traceback" not in out + err
    lines = [line for line in err.splitlines() if not line.startswith(("Error executing", "  log"))]
    assert 1 <= len(lines) <= 2, err
    assert re.search(case.names, err), err
    assert {path for path in place.rglob("*") if path.is_file()} - before == set()
    runs = tmp_path / "runs"
    left = [path for path in runs.rglob("*") if path.is_file()]
    assert {path.name for path in left} <= LEFT, left
    for log in runs.rglob("stderr.log"):
        assert "Traceback" not in log.read_text()
