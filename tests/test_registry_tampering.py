"""`zobench verify` finds what was changed in an entry of the registry."""

import gzip
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.registry_runs import Compose, maker
from zobench.errors import UserError
from zobench.registry.consistency import inconsistencies
from zobench.registry.entry import ENTRY, Tuning, damage, digests
from zobench.registry.labels import mislabelled
from zobench.registry.replaying import replay
from zobench.registry.submit import submit
from zobench.registry.verify import check
from zobench.report.runs import flatten
from zobench.run.folder import RunFolder, read_json, write_json
from zobench.settings import identity
from zobench.zo.ledger import Ledger, recover

Command = Callable[..., tuple[int, str, str]]


@pytest.fixture(scope="module")
def made(compose: Compose, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., RunFolder]:
    """`made("mezo", "seed=1")`: the folder of a finished run of a row; each is run once."""
    return maker(compose, tmp_path_factory.mktemp("made"))


@pytest.fixture
def entry(made: Callable[..., RunFolder], tmp_path: Path) -> Path:
    """A fresh entry of a run of MeZO."""
    run, none = made("mezo", "optimizer.lr=1e-3"), Tuning(0, 0)
    return submit(run, tmp_path / "results", "A. Name", none, no_replay="not needed here")


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


# ---- every field of an entry

FILES, LABELS, REPLAY = "the other files", "the labels", "a replay"
# A field, another value, and what finds the change when all hashes are renewed.
TABLE: tuple[tuple[str, str, Any, str], ...] = (
    ("meta.json", "id", "00000000", FILES),
    ("meta.json", "setting", "00000000", FILES),
    ("meta.json", "name", "another", FILES),
    ("meta.json", "suite", "another", FILES),
    ("meta.json", "seed", 1, FILES),
    ("meta.json", "commit", "0123456789ab", FILES),
    ("meta.json", "choices.optimizer", "mezo_adam", LABELS),
    ("meta.json", "choices.task", "synthetic_reviews_contrary", LABELS),
    ("meta.json", "choices.task", "synthetic_reviews-held_out=1", LABELS),
    ("meta.json", "choices.model", "tiny_encoder", LABELS),
    ("meta.json", "choices.tuning", "lora", LABELS),
    ("meta.json", "choices.evaluation", "calibrated", LABELS),
    ("meta.json", "choices.sampler", "cone", LABELS),
    ("meta.json", "choices.estimator", "one_sided", LABELS),
    ("meta.json", "choices.rule", "adam", LABELS),
    ("meta.json", "data.train", 47, REPLAY),
    ("meta.json", "data.dev", 15, REPLAY),
    ("meta.json", "data.test", 15, FILES),
    ("meta.json", "parameters", 1, REPLAY),
    ("meta.json", "base", "0" * 64, REPLAY),
    ("meta.json", "inputs", {"model.path": {"config.json": {"sha256": "0" * 64}}}, REPLAY),
    ("result.json", "status", "diverged", FILES),
    ("result.json", "reason", "the loss is nan", FILES),
    ("result.json", "test.loss", 0.1, FILES),
    ("result.json", "test.accuracy", 0.1, FILES),
    ("result.json", "dev.loss", 0.1, FILES),
    ("result.json", "dev.accuracy", 0.1, FILES),
    ("result.json", "final.loss", 0.1, FILES),
    ("result.json", "final.accuracy", 0.1, FILES),
    ("result.json", "train.loss", 0.1, FILES),
    ("result.json", "best_step", 1, FILES),
    ("result.json", "steps", 9, FILES),
    ("result.json", "cost.forwards", 2, FILES),
    ("result.json", "cost.tokens", 2, FILES),
    ("result.json", "time.train_s", 1e-3, FILES),
)
# What a submitter states, and neither files nor a replay on another machine can show.
STATED = {
    "meta.json": ("choices.tuned", "versions", "device"),
    "result.json": ("time.step_s", "time.eval_s", "time.load_s", "time.total_s", "memory"),
}


def set_in(node: dict[str, Any], key: str, value: Any) -> None:
    """Change the value of a dotted key that is there."""
    *outer, last = key.split(".")
    for name in outer:
        node = node[name]
    assert node[last] != value
    node[last] = value


def test_every_field_is_found_or_is_a_statement(entry: Path) -> None:
    """Each row of the table is found by what it names, and the tables have every field."""
    found: dict[tuple[str, str, Any], str] = {}
    for file, key, value, _ in TABLE:
        before = read_json(entry / file)
        changed = json.loads(json.dumps(before))
        set_in(changed, key, value)
        write_json(entry / file, changed)
        renew(entry)
        unlike = [*damage(entry), *inconsistencies(entry)]
        by = FILES if unlike else LABELS if mislabelled(entry) else ""
        found[file, key, str(value)] = by or (REPLAY if check(entry, 0.0, [replay])[1] else "")
        write_json(entry / file, before)
    assert found == {(file, key, str(value)): by for file, key, value, by in TABLE}
    for file, stated in STATED.items():
        listed = (*stated, *(key for where, key, _, _ in TABLE if where == file))
        fields = flatten(read_json(entry / file))
        assert not [key for key in fields if not key.startswith(listed)]


def test_a_row_that_was_renamed_throughout_is_found(entry: Path, command: Command) -> None:
    """Labels, names and hashes say MeZO-Adam, and the settings are MeZO's."""
    meta = read_json(entry / "meta.json")
    meta["choices"] |= {"optimizer": "mezo_adam", "rule": "adam"}
    meta["name"] = meta["name"].replace("-mezo-", "-mezo_adam-")
    write_json(entry / "meta.json", meta)
    renew(entry)
    other = entry.rename(entry.with_name(meta["name"]))
    status, out, _ = command("verify", str(other))
    first = out.partition("\n")[0]
    assert status == 1 and first.startswith("optimizer.rule._target_: zobench.zo.rules.sgd.SGD in")


def test_another_method_under_a_label_is_not_submitted(
    made: Callable[..., RunFolder], tmp_path: Path
) -> None:
    """What the option does not compose to has a name of its own; another rate has not."""
    run = made("mezo", "rule=momentum")
    labels = read_json(run.meta)
    for rule in ("momentum", "sgd"):
        labels["choices"]["rule"] = rule
        write_json(run.meta, labels)
        with pytest.raises(UserError, match=r"yaml of its own\. Not submitted"):
            submit(run, tmp_path / "results", "A. Name", Tuning(0, 0))
