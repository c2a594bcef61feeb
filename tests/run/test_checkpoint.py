"""Checkpoints: whole or not there, the last two, each proved by its name."""

import os
from pathlib import Path
from typing import Any

import pytest
import torch

from zobench.run.checkpoint import Checkpoints
from zobench.run.durable import write_durably


def state(step: int) -> dict[str, Any]:
    return {"weights": {"w": torch.full((5000,), float(step))}, "losses": [0.5] * step}


def files(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_the_last_two_are_kept_and_the_newest_is_read(tmp_path: Path) -> None:
    """Nothing else stays in the folder, and clear leaves nothing."""
    checkpoints = Checkpoints(tmp_path, 2, None)
    assert checkpoints.latest() is None
    for step in (2, 4, 6):
        assert checkpoints.due(step) and not checkpoints.due(step + 1)
        checkpoints.save(step, state(step))
        assert not checkpoints.due(step)
    assert [name.split("-")[1] for name in files(tmp_path)] == ["000000004", "000000006"]
    found = Checkpoints(tmp_path, 2, None).latest()
    assert found is not None and found[0] == 6
    assert torch.equal(found[1]["weights"]["w"], state(6)["weights"]["w"])
    checkpoints.clear()
    assert not files(tmp_path)


@pytest.mark.parametrize("hurt", ["flip", "cut", "empty"])
def test_a_damaged_one_is_named_and_the_one_before_is_read(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], hurt: str
) -> None:
    """Whatever happened to its bytes; with both damaged there is none."""
    checkpoints = Checkpoints(tmp_path, 1, None)
    for step in (1, 2):
        checkpoints.save(step, state(step))
    for name, expected in zip(reversed(files(tmp_path)), (1, None), strict=True):
        content = bytearray((tmp_path / name).read_bytes())
        content[len(content) // 2] ^= 4
        cut = {"flip": bytes(content), "cut": bytes(content[:-1]), "empty": b""}[hurt]
        (tmp_path / name).write_bytes(cut)
        found = Checkpoints(tmp_path, 1, None).latest()
        assert (found[0] if found else None) == expected
        assert f"{name} is damaged" in capfd.readouterr().err


def test_minutes_come_due_by_the_clock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also without a number of steps; a save restarts the minutes."""
    now = [0.0]
    monkeypatch.setattr("zobench.run.checkpoint.time.monotonic", lambda: now[0])
    checkpoints = Checkpoints(tmp_path, None, 2.0)
    assert not checkpoints.due(50)
    now[0] = 120.0
    assert checkpoints.due(50)
    checkpoints.save(50, state(1))
    now[0] = 200.0
    assert not checkpoints.due(51)


def test_what_fails_while_it_is_written_leaves_the_old_content(tmp_path: Path) -> None:
    """A full disk, say: the error comes through, and no part of the new file is left."""
    path = tmp_path / "file"
    write_durably(path, lambda file: file.write(b"old"))

    def failing(file: Any) -> None:
        file.write(b"new")
        raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="No space left"):
        write_durably(path, failing)
    assert path.read_bytes() == b"old" and files(tmp_path) == ["file"]
    checkpoints = Checkpoints(tmp_path / "gone", 1, None)
    with pytest.raises(FileNotFoundError):
        checkpoints.save(1, state(1))
    assert os.listdir(tmp_path) == ["file"]
