"""Messages that the runs of a command share."""

from pathlib import Path

import pytest

from zobench.run.notes import COMMAND, print_once


def test_each_message_is_printed_once_in_a_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Another message is not taken for the first; without a command all are printed."""
    monkeypatch.setenv(COMMAND, f"1:{tmp_path}")
    for message in ("no GPU is free", "no graph", "no GPU is free"):
        print_once(message)
    assert capsys.readouterr().out == "no GPU is free\nno graph\n"
    monkeypatch.delenv(COMMAND)
    print_once("no graph")
    assert capsys.readouterr().out == "no graph\n"
