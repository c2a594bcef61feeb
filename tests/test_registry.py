"""The registry of results: entries are packed without a machine's names, checked and replayed."""

import gzip
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from zobench.errors import UserError
from zobench.launch.job import Job
from zobench.registry import replaying
from zobench.registry.entry import ENTRY, MOST_BYTES, Entry, Tuning, digests, packed
from zobench.registry.leaderboard import page
from zobench.registry.submit import submit
from zobench.run.folder import RunFolder, read_json, write_json
from zobench.run.runner import run
from zobench.settings import RunSettings, identity
from zobench.zo.ledger import Ledger, recover

Compose = Callable[..., dict[str, Any]]
Command = Callable[..., tuple[int, str, str]]
SMALL = (
    *("task.sizes.train=48", "task.sizes.dev=16", "task.sizes.test=16", "train.batch_size=8"),
    *("budget.steps=10", "train.eval_every=4", "train.log_every=2", "threads=1", "suite=tried"),
)
NONE = Tuning(0, 0)


@pytest.fixture(scope="module")
def made(compose: Compose, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., RunFolder]:
    """`made("mezo", "seed=1")`: the folder of a finished run of a row; each is run once."""
    root = tmp_path_factory.mktemp("made")
    known: dict[tuple[str, ...], RunFolder] = {}

    def folder_of(row: str, *overrides: str) -> RunFolder:
        words = (f"optimizer={row}", *overrides)
        if words not in known:
            plain = compose(*SMALL, f"runs_root={root}", "logger=wandb", *words)
            base = compose(*SMALL, f"runs_root={root}", "logger=wandb", *words, "seed=0")
            logger = plain.pop("logger")
            plain["logger"] = {"_target_": "zobench.run.loggers.none.NoLogger"}
            choices = {"task": "t", "model": "tiny", "tuning": "full", "optimizer": row}
            job = Job.of(RunSettings.of(plain), base, choices)
            job.begin()
            attempt = {"time": "2026-12-01T00:00:00+00:00", "event": "begun", "host": "my-host-7"}
            job.folder.attempts.write_text(json.dumps(attempt) + "\n")
            run(job.folder)
            job.folder.config.write_text(yaml.safe_dump({**plain, "logger": logger}))
            known[words] = job.folder
        return known[words]

    return folder_of


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
    assert (status, err) == (0, "") and out.endswith(": replayed to the same bits\n")
    place = tmp_path / "results" / "tried" / folder.path.name
    tuning = Entry.read(place).tuning
    same = [path for path in (runs / "tried").iterdir() if "-mezo-s" in path.name]
    assert tuning == Tuning(20 * len(same), len(same), "tried") and len(same) >= 2
    status, _, err = command(*words, "--tuning-forwards", "0", "--trials", "0")
    assert status == 1 and "exists already" in err
    assert [path.name for path in (tmp_path / "results").iterdir()] == ["tried"]


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


# ---- tampered entries


def renew(entry: Path) -> None:
    """Make the hashes of entry.json those of the files."""
    about = read_json(entry / ENTRY)
    files = {path.name: path.read_bytes() for path in entry.iterdir() if path.name != ENTRY}
    write_json(entry / ENTRY, about | {"files": digests(files)})


def changed_result(entry: Path) -> None:
    result = read_json(entry / "result.json")
    result["test"]["accuracy"] += 0.0625
    write_json(entry / "result.json", result)


def changed_config(entry: Path) -> None:
    text = (entry / "config.yaml").read_text()
    assert "batch_size: 8" in text
    (entry / "config.yaml").write_text(text.replace("batch_size: 8", "batch_size: 4"))


def changed_metrics(entry: Path) -> None:
    rows = [json.loads(line) for line in (entry / "metrics.jsonl").read_text().splitlines()]
    best = min((row for row in rows if "dev/loss" in row), key=lambda row: row["dev/loss"])
    best["dev/loss"] *= 0.99
    (entry / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


def changed_curve(entry: Path) -> None:
    rows = [json.loads(line) for line in (entry / "metrics.jsonl").read_text().splitlines()]
    row = next(row for row in rows if "train/loss" in row)
    row["train/loss"] *= 0.99
    (entry / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


def changed_ledger(entry: Path) -> None:
    """One loss is another, in a file whose checks are right; the marks are left out."""
    known = recover(entry / "ledger.bin")
    (entry / "ledger.bin").unlink()
    with Ledger(entry / "ledger.bin", known.seed) as ledger:
        for step, record in enumerate(known.records):
            first, *others = record.losses
            losses = (first * 1.5 if step == 0 else first, *others)
            ledger.append(type(record)(record.lr, losses, record.coefficients))


CHANGES = (changed_result, changed_config, changed_metrics, changed_curve, changed_ledger)


@pytest.mark.parametrize("renewed", [False, True], ids=["old hashes", "new hashes"])
@pytest.mark.parametrize("change", CHANGES, ids=lambda change: change.__name__)
def test_a_changed_file_is_found(
    change: Callable[[Path], None], renewed: bool, entry: Path, command: Command
) -> None:
    """By its hash, and without it by the other files or by the replay."""
    change(entry)
    if renewed:
        renew(entry)
    status, out, err = command("verify", str(entry.parents[1]))
    assert (status, err) == (1, "")
    assert ("SHA-256" in out) is not renewed and "Traceback" not in out
    assert f"{entry}: " in out.splitlines()[-1] and " differences (" in out


def test_a_result_that_all_files_agree_on_is_found_by_the_replay(
    entry: Path, command: Command
) -> None:
    """Result, metrics, predictions and hashes changed together."""
    path = entry / "predictions.csv.gz"
    head, first, *others = gzip.decompress(path.read_bytes()).decode().splitlines()
    number, answer, gold, score = first.split(",")
    answer, score = str(1 - int(answer)), str(1 - int(score))
    lines = [head, ",".join([number, answer, gold, score]), *others, ""]
    path.write_bytes(gzip.compress("\n".join(lines).encode(), mtime=0))
    result = read_json(entry / "result.json")
    result["test"]["accuracy"] += (2 * int(score) - 1) / len([first, *others])
    write_json(entry / "result.json", result)
    rows = [json.loads(line) for line in (entry / "metrics.jsonl").read_text().splitlines()]
    for row in rows:
        row |= {k: result["test"]["accuracy"] for k in row if k == "test/accuracy"}
    (entry / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    renew(entry)
    status, out, _ = command("verify", str(entry))
    found = [line.partition(":")[0] for line in out.splitlines()[:-1]]
    assert status == 1 and found == ["test/accuracy", "predictions.csv.gz"], out


def renamed(entry: Path, change: Callable[[dict[str, Any]], object]) -> Path:
    """The entry with other settings, and with id, name, folder and hashes made to fit them."""
    settings = RunFolder(entry).settings()
    change(settings)
    (entry / "config.yaml").write_text(yaml.safe_dump(settings, sort_keys=False))
    meta, own = read_json(entry / "meta.json"), identity(settings)
    meta |= {"id": own, "setting": own, "name": meta["name"][:-8] + own}
    write_json(entry / "meta.json", meta)
    renew(entry)
    return entry.rename(entry.with_name(meta["name"]))


def test_another_learning_rate_is_found_by_the_ledger(entry: Path, command: Command) -> None:
    """A replay takes rates from the ledger, and compares them with those of the settings."""
    other = renamed(entry, lambda settings: settings["optimizer"].update(lr=1e-4))
    status, out, _ = command("verify", str(other))
    assert status == 1 and out.startswith("lr of step 0: 0.001 in ledger.bin, 0.0001 by config")


def test_another_batch_size_is_found_by_training_again(entry: Path, command: Command) -> None:
    """A replay reads no batch: this forgery is beyond it, and --train is there for it."""
    other = renamed(entry, lambda settings: settings["train"].update(batch_size=16))
    assert command("verify", str(other))[0] == 0
    status, out, _ = command("verify", str(other), "--train")
    assert status == 1 and "in a new run" in out and "ledger.bin: other bytes" in out


def test_missing_unknown_and_broken_files_are_named(entry: Path, command: Command) -> None:
    """An entry is no place for other files; nothing in it ends in a traceback."""
    (entry / "model.safetensors").write_bytes(b"x")
    (entry / "attempts.jsonl").unlink()
    status, out, _ = command("verify", str(entry))
    assert status == 1
    assert "model.safetensors: is not a file of an entry" in out and "attempts.jsonl: miss" in out
    for name in ("meta.json", "config.yaml", "result.json", ENTRY, "predictions.csv.gz"):
        whole = (entry / name).read_bytes()
        for text in (b"", b"[]", b'{"id": 1}', b"\xff\xfe"):
            (entry / name).write_bytes(text)
            status, out, err = command("verify", str(entry))
            assert (status, err) == (1, ""), (name, text, out)
        (entry / name).write_bytes(whole)
    (entry / ENTRY).unlink()
    other = entry.with_name("other")
    other.mkdir()
    (other / ENTRY).write_text("{}")
    status, out, _ = command("verify", str(entry.parent))
    assert status == 1 and "entry.json: missing" in out and out.count("differences (") == 2


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
    assert len(rows) == 1 and rows[0][5:7] == ["none", "C"]
    lines = [line for line in page(results).splitlines() if line.startswith("| ")][2:]
    assert [line.split(" | ")[0] for line in lines] in (
        ["| 1", "| 2", "| -"],
        ["| 1", "| 1", "| -"],
    )
    assert "| mezo |" in lines[-1] and "1 diverged" in lines[-1]
    assert "| 600 forwards, 3 trials | A \\| &lt;b> |" in lines[-1]
    [adam] = [line for line in lines if "| mezo_adam |" in line]
    assert "(2)" in adam and adam.endswith("| not replayed: slow |")
