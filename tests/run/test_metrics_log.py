"""metrics.jsonl after kills and damage: each row once, a bad line named."""

import math
from collections.abc import Mapping
from pathlib import Path

import pytest

from zobench.errors import UserError
from zobench.run.loggers.none import NoLogger
from zobench.run.metrics_log import MetricsLog, read_rows


class Heard(NoLogger):
    """Keeps the rows that it receives."""

    def __init__(self) -> None:
        self.rows: list[Mapping[str, float | None]] = []

    def log(self, row: Mapping[str, float | None]) -> None:
        self.rows.append(row)


def rows_of(path: Path) -> list[dict[str, float | None]]:
    return read_rows(path)[0]


def write(path: Path, upto: int) -> Heard:
    """What a run writes that goes through all its steps again."""
    heard = Heard()
    with MetricsLog(path, heard) as metrics_log:
        for step in range(upto):
            metrics_log.write(step, {"train/loss": 0.1 * step, "cost/forwards": 2 * step})
            if step % 2 == 0:
                metrics_log.write(
                    step, {"dev/loss": math.nan if step == 4 else 0.5, "time/eval_s": 1}
                )
    return heard


def test_cut_at_any_byte_and_gone_through_again_it_is_the_same(tmp_path: Path) -> None:
    """No row twice, none missing, and the logger hears exactly those that were not there."""
    path = tmp_path / "metrics.jsonl"
    write(path, 7)
    whole = path.read_bytes()
    for cut in range(len(whole)):
        path.write_bytes(whole[:cut])
        there = rows_of(path)
        heard = write(path, 7)
        assert path.read_bytes() == whole
        assert [*there, *heard.rows] == rows_of(path)


def test_rows_are_found_by_step_and_what_they_are_about(tmp_path: Path) -> None:
    """Train and dev of one step are two rows; NaN is null in the file."""
    path = tmp_path / "metrics.jsonl"
    write(path, 5)
    metrics_log = MetricsLog(path, NoLogger())
    assert metrics_log.known(4, "dev") == {"step": 4, "dev/loss": None, "time/eval_s": 1}
    assert metrics_log.known(4, "train") != metrics_log.known(4, "dev")
    assert metrics_log.known(3, "dev") is None and metrics_log.known(5, "train") is None
    assert [row["step"] for row in metrics_log.about("dev")] == [0, 2, 4]


@pytest.mark.parametrize("bad", [b"\0\0\0\n", b'{"step": 3}\n', b"{oops\n", b"3\n", b"\xff\xfe\n"])
def test_damage_is_named_and_never_read(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], bad: bytes
) -> None:
    """At the end it is left out, with a word; between good lines it stops the run."""
    path = tmp_path / "metrics.jsonl"
    write(path, 3)
    good = path.read_bytes()
    path.write_bytes(good + bad)
    assert read_rows(path)[1] == len(good)
    assert "metrics.jsonl:6 is cut off" in capfd.readouterr().err
    lines = good.splitlines(keepends=True)
    path.write_bytes(b"".join([*lines[:2], bad, *lines[2:]]))
    with pytest.raises(UserError, match=r"metrics\.jsonl:3: damaged"):
        read_rows(path)
