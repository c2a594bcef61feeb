"""`zobench report`: the page says what the run folders say, and holds all that it needs."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.report.page_runs import metrics, write_run
from zobench.errors import UserError
from zobench.report.page.build import PARTS, main, page
from zobench.report.page.curves import columns, thin

HOSTILE = "</script><script>alert(1)</script><!-- <b> & \u2028 ' \" {{ 7 * 7 }}"


def data_of(html: str) -> dict[str, Any]:
    """The data in a page, found as a browser finds it: up to the first end tag of a script."""
    start = html.index('id="data">') + len('id="data">')
    content: dict[str, Any] = json.loads(html[start : html.index("</script", start)])
    return content


@pytest.fixture
def suite(tmp_path: Path) -> Path:
    """The folder of a suite without runs."""
    return tmp_path / "quick"


def made(suite: Path) -> dict[str, Any]:
    """The data of the suite's page."""
    return data_of(page(suite.parent, suite.name))


def test_numbers_are_those_of_the_run_folder(suite: Path) -> None:
    """Results and curve points are in the page as result.json and metrics.jsonl have them."""
    write_run(suite, steps=40)
    [run] = made(suite)["runs"]
    assert run["numbers"]["test/accuracy"] == 0.912346  # six significant digits
    assert run["numbers"]["cost/tokens"] == 331 * 40  # counts are whole
    rows = metrics(40, 1e-3)
    for name in ("train/loss", "dev/accuracy"):
        for axis in ("step", "cost/forwards", "cost/tokens", "time/train_s"):
            there = {
                x: y for x, y in zip(run["x"][axis], run["y"][name], strict=True) if y is not None
            }
            logged = {row[axis]: row[name] for row in rows if name in row}
            assert list(there) == pytest.approx(list(logged), rel=1e-5)
            assert list(there.values()) == pytest.approx(list(logged.values()), rel=1e-5)


def test_a_note_names_no_option_of_the_command_line(suite: Path) -> None:
    """What --details lists is below on the page."""
    write_run(suite)
    write_run(suite, 1, status="diverged", reason="nan")
    html = page(suite.parent, suite.name)
    assert "(listed below)" in html and "--details" not in html


@given(st.lists(st.none() | st.floats(-1e9, 1e9), max_size=900), st.sampled_from([4, 30, 400]))
def test_thinning_keeps_the_ends_and_the_extremes(values: list[float | None], limit: int) -> None:
    """At most `limit` points stay, among them the first, the last, the lowest and the highest."""
    keep = thin(values, limit)
    known = [i for i, value in enumerate(values) if value is not None]
    assert keep == sorted(set(keep)) and len(keep) <= limit and set(keep) <= set(known)
    if known:
        numbers = [value for value in values if value is not None]
        kept = [values[i] for i in keep]
        assert {known[0], known[-1]} <= set(keep)
        assert {min(numbers), max(numbers)} <= set(kept)
    if len(known) <= limit:
        assert keep == known


def test_what_a_page_of_many_runs_weighs(suite: Path) -> None:
    """A hundred runs of 600 logged steps and many settings are a page under 5 MB."""
    rows = "".join(json.dumps(row) + "\n" for row in metrics(600, 1e-3))
    for number in range(100):
        folder = write_run(suite, number % 5, lr=1e-3 * (1 + number // 5), steps=2)
        (folder / "metrics.jsonl").write_text(rows)
    html = page(suite.parent, suite.name)
    data = data_of(html)
    assert len(data["runs"]) == 100
    kept = [value for value in data["runs"][0]["y"]["train/loss"] if value is not None]
    assert 380 < len(kept) <= 500  # with those where dev was evaluated, too
    assert len(html.encode()) < 5_000_000


def test_half_written_runs_are_unfinished(suite: Path) -> None:
    """A run that writes its metrics at this moment is there, as unfinished, with whole lines."""
    write_run(suite, 0)
    folder = write_run(suite, 1, status="unfinished", log="still at it")
    path = folder / "metrics.jsonl"
    path.write_text(path.read_text()[:-40])  # the last line breaks off
    (write_run(suite, 2, status="unfinished") / "metrics.jsonl").unlink()
    html = page(suite.parent, suite.name)
    runs = {run["seed"]: run for run in data_of(html)["runs"]}
    assert [runs[seed]["status"] for seed in (0, 1, 2)] == ["done", "unfinished", "unfinished"]
    assert runs[1]["log"] == "still at it"
    assert len(runs[1]["y"]["dev/loss"]) == len(runs[0]["y"]["dev/loss"])
    assert runs[1]["y"]["dev/loss"][-1] is None and runs[0]["y"]["dev/loss"][-1] is not None
    assert runs[2]["y"] == {}
    assert "<b>2</b> unfinished" in html and "<b>1</b> done" in html


def test_an_axis_that_falls_is_none(tmp_path: Path) -> None:
    """Nothing is drawn against a number that goes backwards; the other axes stay."""
    lines = [{"step": n, "cost/tokens": 5 - n, "train/loss": 1.0 / n} for n in (1, 2, 3)]
    path = tmp_path / "metrics.jsonl"
    path.write_text("\n".join(map(json.dumps, lines)))
    x, y = columns(path, 100)
    assert x == {"step": [1, 2, 3]} and y == {"train/loss": [1, 0.5, 0.333333]}


def test_failures_come_with_the_end_of_their_log(suite: Path) -> None:
    """A failed run has its reason and the last lines of stderr.log; a finished one has no log."""
    log = "".join(f"line {n}\n" for n in range(5000))
    write_run(suite, 0, status="failed", reason="RuntimeError: out of luck", log=log)
    write_run(suite, 1, log="a warning")
    failed, done = made(suite)["runs"]
    assert failed["status"] == "failed" and "out of luck" in failed["reason"]
    assert failed["log"].endswith("line 4999") and len(failed["log"]) < 5000
    assert re.match(r"\[\.\.\.\]\nline \d+\n", failed["log"])  # no line is cut
    assert done["log"] == ""


def test_nothing_from_a_run_can_leave_its_place(suite: Path) -> None:
    """End tags and templates in logs, reasons, settings and names are text in the page."""
    extra = {"note": HOSTILE, HOSTILE: 1}
    write_run(suite, optimizer="<i>x", extra=extra, status="failed", reason=HOSTILE, log=HOSTILE)
    html = page(suite.parent, suite.name)
    [run] = data_of(html)["runs"]
    assert run["log"] == HOSTILE and HOSTILE.partition("\u2028")[0].strip() in run["reason"]
    assert data_of(html)["settings"]["note"] == HOSTILE
    assert html.count("<script") == html.count("</script") == 2
    assert "alert(1)</script>" not in html and "<i>x" not in html and "<!--" not in html
    assert "{{ 7 * 7 }}" in html and "49" not in run["log"]


def test_the_page_loads_nothing(suite: Path) -> None:
    """No element, style or script of the page names another file, and its policy forbids it."""
    write_run(suite)
    html = page(suite.parent, suite.name)
    places = re.findall(r"(?:src|href|action)=[\"']?([^\"'\s>]*)", html)
    inside = ("#", "data:image/svg+xml;base64,")  # figures of the page itself
    assert places and all(place.startswith(inside) or place == "data:," for place in places)
    assert re.findall(r"url\((?!#frame\))", html) == [] and "@import" not in html
    assert re.findall(r"\b(?:fetch|XMLHttpRequest|WebSocket|import)\b\s*\(", html) == []
    assert set(re.findall(r"https?://[\w./]+", html)) == {"http://www.w3.org/2000/svg"}  # a name
    assert "default-src 'none'" in html


def test_scores_stand_against_memory_and_time(suite: Path) -> None:
    """Two figures, each with its rows and the front in words; none before a run has ended."""
    write_run(suite, status="unfinished")
    assert "<img" not in page(suite.parent, suite.name)
    write_run(suite, 1)
    html = page(suite.parent, suite.name)
    texts = re.findall(r'<img src="data:image/svg[^"]*" alt="([^"]*)"', html)
    assert [text.split(",")[0] for text in texts] == [
        f"test/accuracy against {cost}" for cost in ("memory/peak_gib", "time/train_s")
    ]
    assert all("Pareto front: " in text for text in texts)


def test_settings_that_differ_are_with_the_run(suite: Path) -> None:
    """What all runs share is said once; what differs, and only that, stands with each run."""
    write_run(suite, lr=1e-3)
    write_run(suite, lr=1e-4)
    data = made(suite)
    assert data["settings"]["task.name"] == "reviews"
    assert [run["config"] for run in data["runs"]] == [
        {"optimizer.lr": 0.0001},
        {"optimizer.lr": 0.001},
    ]
    labels = {run["label"] for run in data["runs"]}
    assert labels == {"mezo, optimizer.lr=0.0001", "mezo, optimizer.lr=0.001"}
    assert data["groups"] == ["optimizer", "optimizer.lr"]
    assert data["environment"]["versions.torch"] == "2.13"


def test_only_the_setting_that_dev_selects_is_selected(suite: Path) -> None:
    """Of two settings that compete for a cell, the one with the better dev accuracy is marked."""
    write_run(suite, lr=1e-3)
    better = write_run(suite, lr=1e-4)
    result = json.loads((better / "result.json").read_text())
    result["dev"]["accuracy"], result["test"]["accuracy"] = 0.95, 0.1
    (better / "result.json").write_text(json.dumps(result))
    chosen = [run["label"] for run in made(suite)["runs"] if run["selected"]]
    assert chosen == ["mezo, optimizer.lr=0.0001"]


def test_the_table_of_the_page_is_the_suites(suite: Path) -> None:
    """The results stand in the page without any script: mean, spread and number of seeds."""
    write_run(suite, 0)
    write_run(suite, 1)
    html = page(suite.parent, suite.name)
    table = html[html.index("<table") : html.index("</table>")]
    words = " ".join(re.sub(r"<[^>]*>", " ", table).split())
    assert "quick: test/accuracy (%)" in words and "MeZO 90.7 ± 0.7 80" in words
    details = html.split("</table>")[1]
    assert "mezo" in details and "95 % interval" in details


def test_the_command_writes_where_it_is_told(
    suite: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """report.html lies in the suite, or at --out, and the suite can be read again afterwards."""
    write_run(suite)
    out = tmp_path / "new" / "page.html"
    for more, place in (([], suite / "report.html"), (["--out", str(out)], out)):
        assert main([suite.name, "--runs", str(suite.parent), *more]) == 0
        assert capsys.readouterr().out == f"{place}\n"
        assert place.read_text(encoding="utf-8").startswith("<!doctype html>")
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot write"):
        main([suite.name, "--runs", str(suite.parent), "--out", str(tmp_path / "file" / "x.html")])


def test_every_part_of_the_page_is_used() -> None:
    """The template, the styles and each script of the folder are in the page's own list."""
    from zobench.report.page.build import SCRIPTS, STYLES

    there = {path.name for path in PARTS.iterdir()}
    assert there == {"template.html.j2", *STYLES, *SCRIPTS}
    assert all(len((PARTS / name).read_text().splitlines()) <= 250 for name in there)
