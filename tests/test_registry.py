"""The registry of results: entries are packed without a machine's names, checked and replayed."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from tests.registry_runs import Compose, maker
from zobench.errors import UserError
from zobench.registry import replaying
from zobench.registry.entry import ENTRY, MOST_BYTES, Entry, Tuning, packed
from zobench.registry.leaderboard import page
from zobench.registry.submit import submit
from zobench.report.runs import read_suite
from zobench.report.scoring import rules_of, scored
from zobench.run.folder import RunFolder, read_json, write_json
from zobench.settings import identity

Command = Callable[..., tuple[int, str, str]]
NONE = Tuning(0, 0)


@pytest.fixture(scope="module")
def made(compose: Compose, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., RunFolder]:
    """`made("mezo", "seed=1")`: the folder of a finished run of a row; each is run once."""
    return maker(compose, tmp_path_factory.mktemp("made"))


@pytest.fixture
def entry(made: Callable[..., RunFolder], tmp_path: Path) -> Path:
    """A fresh entry of a run of MeZO."""
    return submit(made("mezo", "optimizer.lr=1e-3"), tmp_path / "results", "A. Name", NONE)


# ---- the entries of this repository


@pytest.fixture(scope="module")
def results() -> Path:
    """The folder of entries; the test is skipped where there is no checkout."""
    folder = Path(__file__).resolve().parents[1] / "results"
    if not folder.is_dir():
        pytest.skip("not a checkout: results are not here")
    return folder


@pytest.mark.smoke
def test_every_entry_is_what_it_says(
    results: Path, command: Command, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Those of the shipped model are replayed; the others need a model and data of their own.

    The tolerance is for other processors, on which one answer of a thousand may turn.
    """
    monkeypatch.chdir(tmp_path)  # no data of other entries here
    status, out, err = command("verify", str(results), "--tolerance", "2e-3")
    assert (status, err) == (0, ""), out
    count = len(list(results.glob("*/*/entry.json")))
    lines = out.splitlines()
    assert count >= 10 and lines[-1].startswith(f"{count} entries, 0 with differences: ")
    assert len(lines) == count + 1
    replayed = [line for line in lines[:-1] if "(replayed within" in line or "again within" in line]
    tiny = [path for path in results.glob("*/*-tiny-*") if "-adamw-" not in path.name]
    assert len(replayed) == len(tiny) >= 5


def test_entries_are_small_and_name_no_machine(results: Path) -> None:
    """At most 500 kB a file and 2 MB in all; no host, process or path."""
    files = [path for path in results.rglob("*") if path.is_file()]
    sizes = [path.stat().st_size for path in files]
    assert max(sizes) < 500_000 and sum(sizes) < 2_000_000
    for path in files:
        if path.suffix in (".json", ".jsonl", ".yaml"):
            text = path.read_text()
            assert not any(word in text for word in ('"host"', '"pid"', "/home", "/root", "/tmp"))


def test_the_leaderboard_is_that_of_the_entries(results: Path) -> None:
    """`make leaderboard` has been run."""
    assert (results.parent / "docs" / "results" / "leaderboard.md").read_text() == page(results)


# ---- submit


def test_an_entry_has_what_a_replay_needs_and_nothing_of_the_machine(
    made: Callable[..., RunFolder], entry: Path, command: Command
) -> None:
    """Its id is the run's; logger, host, process and time stamps of files are gone."""
    folder = made("mezo", "optimizer.lr=1e-3")
    assert entry.parts[-2:] == ("tried", folder.path.name)
    text = "".join(path.read_text() for path in entry.glob("*.[jy]*"))
    for word in ("my-host-7", "wandb", "mtime_ns", str(folder.path.parents[1]), "best.safetensors"):
        assert word not in text
    assert identity(RunFolder(entry).settings()) == folder.path.name[-8:]
    about = Entry.read(entry)
    assert (about.who, about.verified) == ("A. Name", "replayed to the same bits")
    assert set(about.files) == {path.name for path in entry.iterdir()} - {ENTRY}
    before = {path.name: path.read_bytes() for path in entry.iterdir()}
    status, out, err = command("verify", str(entry))
    assert (status, err) == (0, "")
    assert out == f"{entry}: as in result.json (replayed to the same bits)\n"
    assert before == {path.name: path.read_bytes() for path in entry.iterdir()}


def test_submit_says_what_it_did_and_refuses_twice(
    made: Callable[..., RunFolder], command: Command, tmp_path: Path
) -> None:
    """From the command line, with the tuning budget counted from a search."""
    folder = made("mezo", "optimizer.lr=1e-3")
    made("mezo", "optimizer.lr=1e-2")
    made("mezo_adam")
    runs = folder.path.parents[1]
    words = ["submit", str(folder.path), "--to", str(tmp_path / "results"), "--who", "A. Name"]
    status, out, err = command(*words)
    assert status == 1 and "--search SUITE, or --tuning-forwards N" in err
    status, out, err = command(*words, "--search", "tried", "--runs", str(runs))
    assert (status, err) == (0, "")
    assert out.splitlines()[0].endswith(": replayed to the same bits")
    place = tmp_path / "results" / "tried" / folder.path.name
    tuning = Entry.read(place).tuning
    same = [path for path in (runs / "tried").iterdir() if "-mezo-s" in path.name]
    assert tuning == Tuning(20 * len(same), len(same), "tried") and len(same) >= 2
    status, _, err = command(*words, "--tuning-forwards", "0", "--trials", "0")
    assert status == 1 and "exists already" in err
    assert [path.name for path in (tmp_path / "results").iterdir()] == ["tried"]


@pytest.mark.parametrize(
    ("commit", "told"), [("0123456789ab", False), ("0123456789ab-dirty", True)]
)
def test_a_run_of_changed_code_is_told(
    commit: str, told: bool, made: Callable[..., RunFolder], command: Command, tmp_path: Path
) -> None:
    """It is packed, and a line says that the registry wants a run of a commit."""
    run = made("mezo", "optimizer.lr=1e-3").path
    copy = RunFolder(shutil.copytree(run, tmp_path / run.name))
    write_json(copy.meta, read_json(copy.meta) | {"commit": commit})
    stated = ("--tuning-forwards", "0", "--trials", "0", "--no-replay")
    words = ("submit", str(copy.path), "--who", "A", "--to", str(tmp_path / "r"), *stated)
    status, out, _ = command(*words)
    assert status == 0 and ("not from a commit alone" in out) is told


def test_an_unfinished_run_is_refused_and_a_diverged_one_is_named(
    made: Callable[..., RunFolder], command: Command, tmp_path: Path
) -> None:
    """The entry of a diverged run is verified like any other."""
    folder = made("mezo", "optimizer.lr=1e12")
    words = ["--who", "A", "--tuning-forwards", "0", "--trials", "0", "--to", str(tmp_path / "r")]
    status, out, err = command("submit", str(folder.path), *words)
    assert (status, err) == (0, "") and ", diverged: " in out
    assert command("verify", str(tmp_path / "r"))[0] == 0
    copy = shutil.copytree(folder.path, tmp_path / folder.path.name)
    (copy / "result.json").unlink()
    status, _, err = command("submit", str(copy), *words)
    assert status == 1 and "not finished" in err
    status, _, err = command("verify", str(tmp_path / "nothing"))
    assert status == 1 and "nothing: no such folder" in err


def test_what_names_this_machine_or_is_too_large_is_refused(
    made: Callable[..., RunFolder], tmp_path: Path
) -> None:
    """In one line that names the setting, or the file."""
    folder = made("mezo", "optimizer.lr=1e-3")
    copy = RunFolder(shutil.copytree(folder.path, tmp_path / folder.path.name))
    whole = copy.settings()
    for place in ("/home/me/rows", "~/rows", "/rows", "C:\\rows"):
        settings = json.loads(json.dumps(whole))
        settings["task"]["data_dir"] = place
        copy.config.write_text(yaml.safe_dump(settings))
        with pytest.raises(UserError, match=r"task\.data_dir=.* names a path of this machine"):
            packed(copy)
    copy.config.write_text(yaml.safe_dump(whole))
    copy.predictions.write_bytes(bytes(MOST_BYTES + 1))
    with pytest.raises(UserError, match=r"predictions\.csv\.gz: 2,000,001 bytes"):
        packed(copy)
    for who in ("", "two\nlines", "x" * 101):
        with pytest.raises(UserError, match="--who"):
            submit(folder, tmp_path / "results", who, NONE)


def test_a_run_that_a_ledger_cannot_replay_is_trained_again(
    made: Callable[..., RunFolder], command: Command, tmp_path: Path
) -> None:
    """The run folder has its weights; the entry has none, and says why it was not replayed."""
    place = submit(made("adamw"), tmp_path / "results", "A. Name", NONE)
    assert Entry.read(place).verified == "evaluated again to the same bits"
    status, out, _ = command("verify", str(place))
    assert status == 0 and "not replayed: AdamW is not a zeroth-order optimizer" in out
    status, out, err = command("verify", str(place), "--train")
    assert (status, err) == (0, "") and out.endswith("trained again to the same bits)\n"), out


def test_an_entry_without_its_model_is_checked_and_not_replayed(
    entry: Path, command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    """That is no difference."""
    monkeypatch.setattr(replaying, "files_of", lambda _: [])
    status, out, _ = command("verify", str(entry))
    assert status == 0 and "not replayed: the base model was not at hand" in out


# ---- the leaderboard


def test_the_leaderboard_ranks_by_test_and_shows_how_a_number_came_about(
    made: Callable[..., RunFolder], tmp_path: Path
) -> None:
    """The best row first, a diverged one last and without a rank; texts of others are escaped."""
    results = tmp_path / "results"
    submit(made("mezo", "optimizer.lr=1e12"), results, "A | <b>", Tuning(600, 3))
    for seed in (0, 1):
        submit(made("mezo_adam", f"seed={seed}"), results, "B", NONE, no_replay="slow")
    submit(made("zero_shot"), results, "C", NONE)
    rows = [line.split(" | ") for line in page(results).splitlines() if "| zero_shot |" in line]
    assert len(rows) == 1 and rows[0][5:9] == ["-", "-", "none", "C"]
    lines = [line for line in page(results).splitlines() if line.startswith("| ")][2:]
    assert [line.split(" | ")[0] for line in lines] in (
        ["| 1", "| 2", "| -"],
        ["| 1", "| 1", "| -"],
    )
    assert "| mezo |" in lines[-1] and "1 diverged" in lines[-1]
    assert "| 600 forwards, 3 trials | A \\| &lt;b> |" in lines[-1]
    [adam] = [line for line in lines if "| mezo_adam |" in line]
    assert "(2)" in adam and adam.endswith("| not replayed: slow |")


def test_the_leaderboard_has_the_scores_of_the_suite(
    made: Callable[..., RunFolder], tmp_path: Path
) -> None:
    """Forwards to the target under the table, and the area under the profile."""
    for run in (made("mezo", "optimizer.lr=1e-3"), made("mezo_adam"), made("zero_shot")):
        submit(run, tmp_path / "results", "A", NONE, no_replay="slow")
    suite = read_suite(tmp_path / "results", "tried")
    scores = scored(suite, rules_of(suite))
    lines = page(tmp_path / "results").splitlines()
    cells = {line.split(" | ")[1]: line.split(" | ")[5:7] for line in lines if line[:2] == "| "}
    for profile in scores.profiles:
        entry = scores.workloads[0].entries[profile.row]
        assert cells[profile.row] == [entry.text("cost/forwards"), f"{profile.score:.3f}"]
    assert cells["zero_shot"] == ["-", "-"] and cells["mezo"][1] != "-"
    [goal] = [line for line in lines if line.startswith("synthetic_reviews: target dev/loss")]
    assert "the best that mezo reached" in goal
